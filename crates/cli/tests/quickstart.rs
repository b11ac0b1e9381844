//! The README's first command, as it stands there, and what its answer must hold.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn the_quickstart_trains_searches_compares_and_answers() {
    let runs = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_maskwright"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .args(["search", "search-configs/quickstart.ron", "--json", "--runs"])
        .arg(runs.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.is_empty(), "nothing is narrated where nobody watches: {said}");

    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["schema_version"], &answer["command"]), (&1.into(), &"search".into()));
    let result = &answer["result"];

    // The dense model is worth sparing: the classes are ten, evenly spread.
    assert!(number(&result["dense"]["accuracy"]) >= 0.80, "{}", result["dense"]);
    assert!(number(&result["dense"]["seconds"]) > 0.0);

    let best = &result["best"];
    let density = number(&best["density"]);
    assert!(density > 0.0 && density <= 0.5, "the budget is half of all scores, not {density}");
    assert!(number(&best["predicted"]["speedup"]) > 1.5, "{best}");
    assert!(number(&best["predicted"]["end_to_end_speedup"]) > 1.0, "{best}");
    // Chosen at a drop of one point on the selection split; 2000 test images have a standard error of .9 points.
    assert!(number(&best["accuracy_drop"]) < 0.04, "{best}");
    let drop = number(&result["dense"]["accuracy"]) - number(&best["accuracy"]);
    assert!((drop - number(&best["accuracy_drop"])).abs() < 1e-12);

    let names: Vec<&str> =
        result["baselines"].as_array().unwrap().iter().filter_map(|row| row["name"].as_str()).collect();
    for baseline in ["random", "fixed", "knapsack", "shuffled"] {
        assert!(names.contains(&baseline), "{baseline} is missing from {names:?}");
    }
    // Nobody has more evaluations than the search. Fixed patterns and the knapsack's masks are finite: they may have fewer.
    let evaluations = number(&result["evaluations"]);
    for row in result["table"].as_array().unwrap() {
        let of_row = number(&row["evaluations"]);
        assert!(of_row <= evaluations, "{row}");
        assert!(row["name"] != "random" || of_row == evaluations, "{row}");
    }
    // As many blocks elsewhere do not better, by more than the error of such a difference: the choice of blocks is worth
    // something.
    let shuffled = result["baselines"].as_array().unwrap().iter().find(|row| row["name"] == "shuffled").unwrap();
    assert!(number(&shuffled["accuracy_drop"]) > number(&best["accuracy_drop"]) - 0.01, "{shuffled}");

    let run = PathBuf::from(result["run"].as_str().unwrap());
    assert!(Path::new(best["blueprint"].as_str().unwrap()).is_file());
    for file in ["manifest.ron", "config.ron", "episodes.jsonl", "checkpoint/head.ron", "report.html", "result.json"] {
        assert!(run.join(file).is_file(), "{file}");
    }
    let report = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(report.contains("<svg") && !report.contains("<script src") && !report.contains("<link"));
}
