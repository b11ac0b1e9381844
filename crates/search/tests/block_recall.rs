//! The search finds an optimum that is known: block-recall needs block (0, 4) and nothing else off the diagonal.
//!
//! Five seeds of five must reach 99 % accuracy at a density of at most .25, each within the evaluations that its test
//! names. Random search with as many evaluations is printed beside them (`--nocapture` shows it).

use std::{fs, path::Path};

use maskwright_search::{EpisodeRecord, Search, Silent, load_config};

/// The first evaluation, counted from 1, at which the searcher had the goal; and the least density with 99 % accuracy.
fn reached(run: &Path, searcher: &str) -> (Option<u64>, f64) {
    let lines = fs::read_to_string(run.join("episodes.jsonl")).unwrap();
    let records = lines.lines().map(|line| serde_json::from_str::<EpisodeRecord>(line).unwrap());
    let right: Vec<_> = records
        .filter(|record| record.searcher == searcher && record.accuracy.is_some_and(|accuracy| accuracy >= 0.99))
        .collect();
    let first = right.iter().find(|record| record.density <= 0.25).map(|record| record.episode + 1);
    (first, right.iter().map(|record| record.density).fold(1.0, f64::min))
}

#[expect(clippy::print_stdout, reason = "the counts are to be read beside those of random search")]
fn five_seeds(agent: &str, evaluations: u64) {
    // The dense models are trained once for all three tests.
    let runs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("block-recall");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../search-configs/block-recall.ron");
    let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut missed = Vec::new();
    for seed in 1..=5 {
        let overrides =
            [set("agent", agent), set("evaluations", &evaluations.to_string()), set("seed", &seed.to_string())];
        let config = load_config(&config, &overrides).unwrap();
        let search = Search::start(config, "block-recall.ron", &runs).unwrap();
        let run = search.directory().to_owned();
        let outcome = search.run(&mut Silent).unwrap();
        let (found, density) = reached(&run, "search");
        let (by_chance, chance_density) = reached(&run, "random");
        println!(
            "seed {seed}: goal after {found:?} evaluations, down to density {density:.3}; \
             random after {by_chance:?}, down to {chance_density:.3}"
        );
        fs::remove_dir_all(&run).unwrap();
        if found.is_none() || outcome.dense.accuracy < 0.99 {
            missed.push(seed);
        }
    }
    assert!(missed.is_empty(), "seeds {missed:?} did not reach the goal in {evaluations} evaluations");
}

#[test]
fn a_cold_start_reaches_the_goal_within_200_evaluations() {
    five_seeds(r#"{"Write": {"start": "Cold", "features": "Block"}}"#, 200);
}

#[test]
fn a_warm_start_reaches_it_within_60() {
    five_seeds(r#"{"Write": {"start": "Warm", "features": "Block"}}"#, 60);
}

#[test]
fn positions_alone_are_enough_within_600() {
    five_seeds(r#"{"Write": {"start": "Cold", "features": "Position"}}"#, 600);
}
