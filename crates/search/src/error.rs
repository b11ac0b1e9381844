use std::{io, path::PathBuf};

use maskwright_blueprint::{BlueprintError, RonError};
use maskwright_cost_model::CostError;
use maskwright_evaluator::{EvaluatorError, TrainingError};

use crate::ConfigError;

/// Why a search could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Ron(#[from] RonError),
    #[error(transparent)]
    Cost(#[from] CostError),
    #[error(transparent)]
    Evaluator(#[from] EvaluatorError),
    #[error(transparent)]
    Blueprint(#[from] BlueprintError),
    #[error("{} cannot be read or written", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("runs cannot be kept in {}: choose a folder that can be written with `--runs DIR`", path.display())]
    Runs {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the device `{device}` computes in {supported}, the space asks for {asked}: change `space.precisions` or `device`"
    )]
    Precision { device: String, supported: String, asked: String },
    #[error("no mask keeps within {budget}: even one block a row of every head uses {least}; raise `budget`")]
    Budget { budget: String, least: String },
    #[error(
        "`loop_examples` is {asked}, but there are {validation} validation examples, and some must be left to select by"
    )]
    LoopExamples { asked: usize, validation: usize },
    #[error(
        "{} holds weights {found}, the blueprint beside it was fine-tuned with {expected}: put those there, or move the file \
         away to measure the dense model under the masks",
        path.display()
    )]
    TunedWeights { path: PathBuf, found: String, expected: String },
    #[error(
        "no {}: the weights there mean nothing without the vocabulary that was learnt for them; put it there, or move the \
         weights away to measure the dense model under the masks",
        path.display()
    )]
    NoVocabulary { path: PathBuf },
    #[error(
        "{} holds the vocabulary {found}, the weights beside it were trained with {expected}: put that one there",
        path.display()
    )]
    OtherVocabulary { path: PathBuf, found: String, expected: String },
    #[error("{} was made for the task {task}, the configuration's is {asked}: give the configuration of its search", path.display())]
    OtherTask { path: PathBuf, task: String, asked: String },
    #[error(
        "{} does not fit the dense model: give the configuration, `--set`s and seed of its search, or put the weights that \
         were fine-tuned under it beside it",
        path.display()
    )]
    OtherModel {
        path: PathBuf,
        #[source]
        source: BlueprintError,
    },
    #[error(
        "{} has masks for other attention modules than the configuration's model: module {at} is {found}, the model's is \
         {expected}; give the configuration of a model with those modules",
        path.display()
    )]
    OtherModules { path: PathBuf, at: usize, found: String, expected: String },
    #[error(
        "folds: {folds}, seeds: {seeds}; 2 folds or more, no more than the {examples} training and validation examples, \
         and one seed or more, each once"
    )]
    Folds { folds: usize, seeds: usize, examples: usize },
    #[error(
        "{} is of a translator, and cross-validation asks of each example whether it was answered rightly: leave `--report` \
         out, and run the search with other seeds",
        path.display()
    )]
    NoSingleAnswer { path: PathBuf },
    #[error("{} is no run directory: it has no `{missing}`", run.display())]
    NotARun { run: PathBuf, missing: &'static str },
    #[error("another process works in {}: wait for it, or stop it", run.display())]
    Locked { run: PathBuf },
    #[error(
        "{} was started with another configuration ({was}, now {now}): resume with the same file and `--set`s, or start a \
         new run",
        run.display()
    )]
    ChangedConfig { run: PathBuf, was: String, now: String },
    #[error("the checkpoint in {} cannot be followed: {why}; start a new run", run.display())]
    Checkpoint { run: PathBuf, why: String },
    #[error("interrupted; everything so far is in {}", run.display())]
    Interrupted { run: PathBuf },
}

impl SearchError {
    /// Whether the user stopped it, in a search or inside a training.
    pub fn is_interruption(&self) -> bool {
        let in_training =
            |error: &EvaluatorError| matches!(error, EvaluatorError::Training(TrainingError::Interrupted { .. }));
        matches!(self, Self::Interrupted { .. }) || matches!(self, Self::Evaluator(error) if in_training(error))
    }
}
