//! A search that is interrupted in any of its stages goes on from there and ends with the same bytes.

use std::{fs, path::Path};

use maskwright_search::{Outcome, Search, SearchConfig, SearchError, Silent, Stage, Watch, load_config};

const CONFIG: &str = r#"(
  version: 1,
  model: (
    name: "recall",
    source: New(encoder: (input: Tokens(length: 64, vocabulary: 9), width: 16, layers: 1, heads: 1, mlp: 16, classes: 8)),
    training: (epochs: 1, batch: 500, learning_rate: 1e-3),
  ),
  task: BlockRecall,
  space: (block_sizes: [8], precisions: [4]),
  budget: Density(0.9),
  tolerance: Absolute(1.0),
  kappa: Scan(4),
  evaluations: 16,
  loop_examples: 8,
  calibration_examples: 8,
  finalists: 1,
  fine_tune: (epochs: 1, batch: 500, learning_rate: 1e-3),
  baselines: [Random],
)"#;

/// Interrupts when one stage, counted from 0, has done something; keeps the stages that it saw.
struct StopIn {
    stage: usize,
    seen: Vec<Stage>,
    has_advanced: bool,
}

impl Watch for StopIn {
    fn begin(&mut self, stage: &Stage, _: u64) {
        self.seen.push(stage.clone());
        self.has_advanced = false;
    }

    fn advance(&mut self, _: u64, _: &str) {
        self.has_advanced = true;
    }

    fn end(&mut self, _: &str) {}

    fn is_interrupted(&self) -> bool {
        self.seen.len() == self.stage + 1 && self.has_advanced
    }
}

/// Everything that a search found, which does not say where.
fn found(outcome: &Outcome) -> (String, Vec<Vec<u8>>) {
    let run = Path::new(&outcome.run);
    let files = ["episodes.jsonl", "best/searched.ron", "best/searched.safetensors", "rows/random.ron"];
    let json = serde_json::to_string(outcome).unwrap().replace(&outcome.run, "RUN");
    (json, files.iter().map(|file| fs::read(run.join(file)).unwrap()).collect())
}

fn search(config: &SearchConfig, runs: &Path) -> Search {
    Search::start(config.clone(), "interruption.ron", runs).unwrap()
}

#[test]
fn an_interrupted_search_goes_on_to_the_same_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("interruption.ron");
    fs::write(&path, CONFIG).unwrap();
    let config = load_config(&path, &[]).unwrap();

    let mut all = StopIn { stage: usize::MAX, seen: Vec::new(), has_advanced: false };
    let expected = found(&search(&config, &folder.path().join("whole")).run(&mut all).unwrap());
    let named = |stage: fn(String) -> Stage, name: &str| stage(name.into());
    let stops = [
        Stage::Train,
        named(Stage::Search, "scan"),
        named(Stage::Search, "search"),
        named(Stage::Select, "random"),
        named(Stage::FineTune, "searched"),
    ];
    for name in stops {
        let stage = all.seen.iter().position(|seen| *seen == name).expect("the search has this stage");
        // A cache of its own: the dense model is trained, and interrupted, anew.
        let search = search(&config, &folder.path().join(format!("stopped-{stage}")));
        let run = search.directory().to_owned();
        let mut watch = StopIn { stage, seen: Vec::new(), has_advanced: false };
        match search.run(&mut watch) {
            Err(SearchError::Interrupted { .. }) => {}
            Err(error) => panic!("{name:?}: {error}"),
            Ok(_) => panic!("{name:?} was not interrupted"),
        }
        let outcome = Search::resume(&run, config.clone()).unwrap().run(&mut Silent).unwrap();
        assert!(found(&outcome) == expected, "{name:?}");
    }
}
