use std::fs;

use serde_json::Value;

use crate::program::{Folder, beside};

const FILES: [&str; 4] = ["result.json", "episodes.jsonl", "config.ron", "best/searched.ron"];

/// A copy of the fixture, whose figures are invented.
fn run_directory() -> Folder {
    let folder = Folder::new();
    fs::create_dir_all(folder.path("run/best")).unwrap();
    for file in FILES {
        fs::copy(beside("fixture-run").join(file), folder.path("run").join(file)).unwrap();
    }
    folder
}

fn page(folder: &Folder) -> String {
    assert_eq!(folder.run(["report", "run"]).good(), "run/report.html\n");
    fs::read_to_string(folder.path("run/report.html")).unwrap()
}

/// Another result in the same run.
fn change(folder: &Folder, how: impl FnOnce(&mut Value)) {
    let result = folder.path("run/result.json");
    let mut outcome = serde_json::from_str(&fs::read_to_string(&result).unwrap()).unwrap();
    how(&mut outcome);
    fs::write(&result, outcome.to_string()).unwrap();
}

#[test]
fn the_page_loads_nothing() {
    let page = page(&run_directory());
    for loader in ["<script", "<link", "<img", "@import", "url(", "src="] {
        assert!(!page.contains(loader), "{loader} in the page");
    }
    let addresses: Vec<_> = page.match_indices("http").map(|(at, _)| &page[at..at + 26]).collect();
    assert!(addresses.iter().all(|address| *address == "http://www.w3.org/2000/svg"), "{addresses:?}");
}

#[test]
fn the_same_run_gives_the_same_page() {
    let folder = run_directory();
    assert!(page(&folder) == page(&folder));
}

#[test]
fn the_page_shows_table_plots_and_every_head() {
    let page = page(&run_directory());
    assert_eq!(page.matches("<svg class=\"plot\"").count(), 2);
    assert_eq!(page.matches("<figcaption><b>head ").count(), 4); // two modules of two heads
    for row in ["dense", "dense 8 bit", "random *", "fixed", "knapsack", "searched"] {
        assert!(page.contains(&format!("<th>{row}</th>")), "no row {row}");
    }
}

#[test]
fn text_of_the_run_is_escaped() {
    let page = page(&run_directory());
    assert!(page.contains("// Invented for tests: &lt;no&gt; search was made with this."));
    assert!(!page.contains("<no>"));
}

#[test]
fn a_baseline_that_is_ahead_is_named_in_the_headline() {
    let folder = run_directory();
    change(&folder, |outcome| outcome["best"]["predicted"]["speedup"] = 15.0.into());
    assert!(page(&folder).contains("with at most as many evaluations: behind the search."));
    change(&folder, |outcome| outcome["best"]["predicted"]["speedup"] = 1.5.into());
    assert!(page(&folder).contains("with at most as many evaluations: ahead of the search."));
}

#[test]
fn a_figure_beside_accuracy_has_a_column_and_what_was_drawn_stands_below() {
    let folder = run_directory();
    change(&folder, |outcome| {
        let second = serde_json::json!({"name": "F1", "value": 0.875});
        outcome["dense"]["second"] = second.clone();
        outcome["table"][0]["second"] = second;
        outcome["caveats"] = serde_json::json!({
            "cut_texts": 0, "texts": 0, "empty_pairs": 0, "other_files": 2, "drawn_tensors": ["<head>"], "ignored_tensors": 0
        });
    });
    let page = page(&folder);
    assert!(page.contains("<th>F1<small>measured</small></th>"), "{page}");
    // The other rows were made before there was such a figure.
    assert_eq!((page.matches("<td>87.5 %</td>").count(), page.matches("<th>F1").count()), (1, 1));
    assert!(page.contains("Inputs: 2 files in the folder of images") && page.contains("other classes: &lt;head&gt;."));
}

#[test]
fn a_translators_answers_are_tokens() {
    let folder = run_directory();
    assert!(page(&folder).contains("<dt>Commonest class</dt>"));
    change(&folder, |outcome| outcome["details"]["test_answers"] = 5000.into());
    assert!(page(&folder).contains("<dt>Commonest token</dt>"));
}

#[test]
fn without_a_blueprint_the_page_says_so() {
    let folder = run_directory();
    change(&folder, |outcome| outcome["best"] = Value::Null);
    let page = page(&folder);
    assert!(
        page.contains("No mask for fixture-model on fixture-task kept within the 1.0 points of accuracy"),
        "{page}"
    );
    assert!(page.contains("The closest attempt computes"));
}

#[test]
fn a_run_that_is_not_finished_is_refused() {
    let folder = run_directory();
    fs::remove_file(folder.path("run/result.json")).unwrap();
    let stderr = folder.run(["report", "run"]).refused();
    assert!(stderr.contains("run is no finished run: it has no `result.json`"), "{stderr}");
    let stderr = folder.run(["report", "nowhere"]).refused();
    assert!(stderr.contains("nowhere/result.json") && !stderr.contains("resume"), "{stderr}");
}

#[test]
fn figures_that_no_search_writes_are_drawn_all_the_same() {
    let folder = run_directory();
    let rings = |page: &str| page.matches(" r=\"8\"").count();
    let whole = page(&folder);
    change(&folder, |outcome| {
        outcome["details"]["kappa"] = 0.into();
        assert_eq!((&outcome["table"][5]["name"], &outcome["table"][5]["found_at"]), (&"searched".into(), &11.into()));
        outcome["table"][5]["found_at"] = 0.into();
    });
    let episodes = folder.path("run/episodes.jsonl");
    let text = fs::read_to_string(&episodes).unwrap();
    let last = text.replacen(
        r#""episode": 10, "searcher": "search""#,
        r#""episode": 18446744073709551615, "searcher": "search""#,
        1,
    );
    assert_ne!(last, text);
    fs::write(&episodes, last).unwrap();
    // A ring is two circles. Evaluations count from 1, so nothing was found at 0, not even by the last there can be.
    assert_eq!(rings(&page(&folder)) + 2, rings(&whole));
}

#[test]
fn a_record_of_more_than_4_gib_is_refused_unread() {
    let folder = run_directory();
    let episodes = fs::OpenOptions::new().write(true).open(folder.path("run/episodes.jsonl")).unwrap();
    episodes.set_len((4 << 30) + 1).unwrap(); // sparse: takes no room
    let stderr = folder.run(["report", "run"]).refused();
    assert!(stderr.contains("episodes.jsonl cannot be read"), "{stderr}");
    assert!(stderr.contains("it holds more than 4294967296 bytes"), "{stderr}");
}

#[test]
fn a_foreign_line_is_shown_where_it_stands() {
    let folder = run_directory();
    let episodes = folder.path("run/episodes.jsonl");
    let text = fs::read_to_string(&episodes).unwrap();
    fs::write(&episodes, text.replacen('\n', "\n{}\n", 1)).unwrap();
    let stderr = folder.run(["report", "run"]).refused();
    assert!(stderr.contains("episodes.jsonl:2 is no line that this program wrote"), "{stderr}");
}
