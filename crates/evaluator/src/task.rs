use std::path::{Path, PathBuf};

use maskwright_blueprint::Digest;
use maskwright_transformer::{EncoderConfig, EncoderInput};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Examples, IdxError, block_recall, fashion_mnist};

/// What a model is asked to do, and where the examples come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Task {
    /// Ten kinds of clothes, 28 x 28 grey images padded to 32 x 32. `folder` holds six IDX files, plain or gzipped:
    /// `{train,validation,test}-{images-idx3,labels-idx1}-ubyte[.gz]`.
    FashionMnist { folder: PathBuf },
    /// Recall one symbol of a random sequence; the best mask is known. Generated from a fixed seed.
    BlockRecall,
}

/// Which examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// What the model trains on.
    Train,
    /// What the search evaluates candidates on.
    Loop,
    /// What decides between finished candidates; disjoint from `Loop`.
    Selection,
    /// What is reported; the search never sees it.
    Test,
}

/// A task's examples, by split.
#[derive(Debug, Clone)]
pub struct TaskData {
    pub train: Examples,
    pub validation: Examples,
    pub test: Examples,
}

/// Why a task's data could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    #[error("no `{name}` in {}: a Fashion-MNIST folder holds train, validation and test images and labels as IDX files (`data/fashion-mnist` ships with the program)", folder.display())]
    MissingFile { folder: PathBuf, name: String },
    #[error(transparent)]
    Idx(#[from] IdxError),
    #[error("{} holds {found}, expected {expected}", path.display())]
    Content { path: PathBuf, expected: String, found: String },
    #[error("the model reads {model}, the task gives {task}: change `model.input` or `model.classes`")]
    Unfit { model: String, task: String },
}

impl Task {
    /// The name that blueprints and folders carry.
    pub fn name(&self) -> &'static str {
        match self {
            Self::FashionMnist { .. } => "fashion-mnist",
            Self::BlockRecall => "block-recall",
        }
    }

    /// Reads or generates the examples; a relative folder counts from the working directory.
    pub fn load(&self) -> Result<TaskData, TaskError> {
        match self {
            Self::FashionMnist { folder } => fashion_mnist::load(folder),
            Self::BlockRecall => Ok(block_recall::generate()),
        }
    }

    /// The folder that the task reads, if it reads one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::FashionMnist { folder } => Some(folder),
            Self::BlockRecall => None,
        }
    }
}

impl TaskData {
    /// Of all examples.
    pub fn digest(&self) -> Digest {
        Digest::of([&self.train, &self.validation, &self.test].map(|examples| examples.digest().to_string()))
    }

    /// Refuses a model that cannot read these examples or name their classes.
    pub fn check_model(&self, config: &EncoderConfig) -> Result<(), TaskError> {
        let (needed, classes) = self.train.needs();
        let input_fits = match (config.input, needed) {
            (EncoderInput::Image { side, channels, .. }, EncoderInput::Image { side: s, channels: c, .. }) => {
                (side, channels) == (s, c)
            }
            (EncoderInput::Tokens { length, vocabulary }, EncoderInput::Tokens { length: l, vocabulary: v }) => {
                length == l && vocabulary >= v
            }
            _ => false,
        };
        if input_fits && config.classes >= classes {
            return Ok(());
        }
        let describe = |input: EncoderInput, classes| match input {
            EncoderInput::Image { side, channels, .. } => {
                format!("images of {side} x {side} in {channels} channels and {classes} classes")
            }
            EncoderInput::Tokens { length, vocabulary } => {
                format!("{length} tokens of {vocabulary} symbols and {classes} classes")
            }
        };
        Err(TaskError::Unfit { model: describe(config.input, config.classes), task: describe(needed, classes) })
    }
}
