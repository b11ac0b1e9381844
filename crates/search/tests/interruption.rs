//! A search that is interrupted, in each kind of stage that can be, goes on from there and ends with the same bytes.

use std::{collections::BTreeSet, fs, path::Path};

use maskwright_search::{Outcome, Search, SearchConfig, SearchError, Stage, Watch, load_config};

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
  patterns: [Strided, Local, Strided],
)"#;

/// Follows a search by stages and the first units that each told of, and interrupts one stage then.
#[derive(Default)]
struct Follow {
    stop: Option<Stage>,
    seen: Vec<(Stage, Option<u64>)>,
}

impl Follow {
    /// The first unit that a stage told of.
    fn first(&self, stage: &Stage) -> Option<u64> {
        self.seen.iter().find(|(seen, _)| seen == stage).and_then(|(_, first)| *first)
    }
}

impl Watch for Follow {
    fn begin(&mut self, stage: &Stage, _: u64) {
        self.seen.push((stage.clone(), None));
    }

    fn advance(&mut self, done: u64, _: &str) {
        self.seen.last_mut().expect("a stage has begun").1.get_or_insert(done);
    }

    fn end(&mut self, _: &str) {}

    fn is_interrupted(&self) -> bool {
        self.seen.last().is_some_and(|(stage, first)| Some(stage) == self.stop.as_ref() && first.is_some())
    }
}

/// Everything that a search found, which does not say where.
fn found(outcome: &Outcome) -> (String, Vec<Vec<u8>>) {
    let run = Path::new(&outcome.run);
    let mut files =
        vec![run.join("episodes.jsonl"), run.join("best/searched.ron"), run.join("best/searched.safetensors")];
    let rows = fs::read_dir(run.join("rows")).unwrap().map(|entry| entry.unwrap().path());
    files.extend(rows.collect::<BTreeSet<_>>());
    let json = serde_json::to_string(outcome).unwrap().replace(&outcome.run, "RUN");
    (json, files.iter().map(|file| fs::read(file).unwrap()).collect())
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

    let mut whole = Follow::default();
    let expected = found(&search(&config, &folder.path().join("whole")).run(&mut whole).unwrap());
    assert_eq!((whole.first(&Stage::Train), expected.1.len()), (Some(1), 3 + 6)); // dense-tuned, random, two patterns, shuffled, searched

    let named = |stage: fn(String) -> Stage, name: &str| stage(name.into());
    let stops = [
        Stage::Train,
        named(Stage::Search, "scan"),
        named(Stage::Search, "search"),
        named(Stage::Search, "random"),
        named(Stage::Select, "random"),
        named(Stage::FineTune, "searched"),
        named(Stage::FineTune, "pattern-strided"),
    ];
    for (at, stage) in stops.into_iter().enumerate() {
        // A cache of its own: the dense model is trained, and interrupted, anew.
        let search = search(&config, &folder.path().join(format!("stopped-{at}")));
        let run = search.directory().to_owned();
        let mut stopped = Follow { stop: Some(stage.clone()), ..Follow::default() };
        match search.run(&mut stopped) {
            Err(SearchError::Interrupted { .. }) => {}
            Err(error) => panic!("{stage:?}: {error}"),
            Ok(_) => panic!("{stage:?} was not interrupted"),
        }
        // What was measured is not measured again: it keeps its times.
        let times = || fs::read_to_string(run.join("times.jsonl")).unwrap_or_default();
        let before = times();
        let mut resumed = Follow::default();
        let outcome = Search::resume(&run, config.clone()).unwrap().run(&mut resumed).unwrap();
        assert!(found(&outcome) == expected, "{stage:?}");
        assert!(times().starts_with(&before), "{stage:?}");
        if matches!(stage, Stage::Train | Stage::FineTune(_)) {
            assert_eq!(resumed.first(&stage), Some(2), "{stage:?} goes on after its first step");
        } else {
            assert!(!before.is_empty());
        }
    }
}
