//! When the stages of a search and of a cross-validation begin: before their first step, so that their times and memory
//! are of all their steps.

use std::{
    fs,
    time::{Duration, Instant},
};

use maskwright_search::{Search, Stage, Watch, cross_validate, load_config};

/// Every training is one step over all examples.
const CONFIG: &str = r#"(
  version: 1,
  model: (
    name: "list-ops",
    source: New(encoder: (input: Tokens(length: 64, vocabulary: 16), width: 32, layers: 1, heads: 1, mlp: 32, classes: 10)),
    training: (epochs: 1, batch: 5000, learning_rate: 1e-3),
  ),
  task: ListOps(sizes: (shortest: 10, longest: 50, train: 600, validation: 60, test: 60, seed: 1)),
  space: (block_sizes: [8], precisions: [4]),
  budget: Density(0.9),
  tolerance: Absolute(1.0),
  kappa: Fixed(0.05),
  evaluations: 3,
  loop_examples: 8,
  calibration_examples: 8,
  finalists: 1,
  fine_tune: (epochs: 1, batch: 5000, learning_rate: 1e-3),
  baselines: [],
)"#;

/// A step over 330 sequences of 64 tokens or more: some 6,000 multiplications a token in the layer and 4,000 in its attention,
/// three times with the gradients. That is 6e8, which two threads do not do in this time.
const ONE_STEP: Duration = Duration::from_millis(1);

/// Measures from each stage's beginning to its first step.
struct Clock {
    begun: Option<(Stage, Instant)>,
    first_steps: Vec<(Stage, Duration)>,
}

impl Watch for Clock {
    fn begin(&mut self, stage: &Stage, _: u64) {
        self.begun = Some((stage.clone(), Instant::now()));
    }

    fn advance(&mut self, _: u64, _: &str) {
        self.first_steps.extend(self.begun.take().map(|(stage, at)| (stage, at.elapsed())));
    }

    fn end(&mut self, _: &str) {}

    fn is_interrupted(&self) -> bool {
        false
    }
}

#[test]
fn the_first_step_of_every_training_counts_into_its_stage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stages.ron");
    fs::write(&path, CONFIG).unwrap();
    let config = load_config(&path, &[]).unwrap();
    let mut clock = Clock { begun: None, first_steps: Vec::new() };
    let search = Search::start(config.clone(), "stages.ron", folder.path()).unwrap();
    let masks = search.directory().join("best/searched.ron");
    search.run(&mut clock).unwrap();
    let store = folder.path().join("study");
    cross_validate(&masks, &config, 2, &[1], &store, &mut clock).unwrap();

    let is_training = |stage: &Stage| matches!(stage, Stage::Train | Stage::FineTune(_) | Stage::Study(_));
    clock.first_steps.retain(|(stage, _)| is_training(stage));
    let count = |wanted: fn(&Stage) -> bool| clock.first_steps.iter().filter(|(stage, _)| wanted(stage)).count();
    // Two folds of the dense model and its four treatments.
    assert_eq!((count(|of| *of == Stage::Train), count(|of| matches!(of, Stage::Study(_)))), (1, 10));
    assert!(clock.first_steps.iter().all(|(_, took)| *took >= ONE_STEP), "{:?}", clock.first_steps);

    // What is kept is not trained again, and yet each training is told of.
    let mut again = Told(Vec::new());
    cross_validate(&masks, &config, 2, &[1], &store, &mut again).unwrap();
    assert_eq!((again.0.len(), again.0[0].as_str()), (10, "seed 1, fold 1 of 2, dense (1/10)"));
}

/// The titles of a study's trainings; refuses a step.
struct Told(Vec<String>);

impl Watch for Told {
    fn begin(&mut self, stage: &Stage, _: u64) {
        let Stage::Study(title) = stage else { panic!("{stage:?}") };
        self.0.push(title.clone());
    }

    fn advance(&mut self, _: u64, _: &str) {
        panic!("nothing is left to train")
    }

    fn end(&mut self, _: &str) {}

    fn is_interrupted(&self) -> bool {
        false
    }
}
