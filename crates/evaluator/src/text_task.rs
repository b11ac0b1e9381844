//! Tasks about texts: from tables to tokens.

use maskwright_transformer::{CheckpointError, Text, TokenisedTexts};
use rand::{SeedableRng, rngs::ChaCha12Rng, seq::SliceRandom};

use crate::{Examples, Fold, GlueSplit, Task, TaskData, TaskError, TextExample};

/// Parts of the training examples of which one validates, where a task has no validation split.
const PARTS: usize = 10;

/// Draws the order of the examples: files are often sorted by label, and searches look at the first ones.
const ORDER_SEED: u64 = 0;

/// Turns texts into tokens.
type Encode<'a> = &'a dyn Fn(&[Text<'_>]) -> Result<TokenisedTexts, CheckpointError>;

/// The splits of a task about texts; the examples of each in an order drawn once and for all.
///
/// # Panics
/// When the task is about something else.
pub(crate) fn read(task: &Task, encode: Encode<'_>) -> Result<TaskData, TaskError> {
    let (train, validation, test) = match task {
        Task::Texts { train, validation, test, table, .. } => {
            let validation = validation.as_ref().map(|path| table.read(path)).transpose()?;
            (table.read(train)?, validation, table.read(test)?)
        }
        Task::Glue { task, folder } => (task.read(folder, GlueSplit::Train)?, None, task.read(folder, GlueSplit::Dev)?),
        Task::FashionMnist { .. } | Task::BlockRecall | Task::ListOps { .. } => panic!("{} has no texts", task.name()),
    };
    let (train, validation) = match validation {
        Some(validation) => (train, validation),
        None => part_off(train)?,
    };
    let examples = |texts| examples(texts, encode);
    Ok(TaskData { train: examples(train)?, validation: examples(validation)?, test: examples(test)? })
}

/// A tenth of each class for validation.
fn part_off(examples: Vec<TextExample>) -> Result<(Vec<TextExample>, Vec<TextExample>), TaskError> {
    if examples.len() < PARTS {
        return Err(TaskError::TooFew { found: examples.len() });
    }
    let labels: Vec<u32> = examples.iter().map(|example| example.label).collect();
    let fold = Fold::stratified(&labels, PARTS, ORDER_SEED).swap_remove(0);
    let part = |indices: Vec<usize>| indices.into_iter().map(|at| examples[at].clone()).collect();
    Ok((part(fold.train), part(fold.held_out)))
}

fn examples(mut texts: Vec<TextExample>, encode: Encode<'_>) -> Result<Examples, TaskError> {
    texts.shuffle(&mut ChaCha12Rng::seed_from_u64(ORDER_SEED));
    let tokens = encode(&texts.iter().map(TextExample::as_text).collect::<Vec<_>>())?;
    Ok(Examples::texts(tokens, texts.iter().map(|text| text.label).collect()))
}
