//! Tasks about texts: from tables to tokens.

use maskwright_transformer::{CheckpointError, Text, TokenisedTexts};
use rand::{SeedableRng, rngs::ChaCha12Rng, seq::SliceRandom};

use crate::{
    Examples, GlueError, GlueSplit, GlueTask, SecondMeasure, Task, TaskData, TaskError, TextExample,
    splits::{ORDER_SEED, part_off},
};

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
        Task::FashionMnist { .. }
        | Task::Idx { .. }
        | Task::BlockRecall
        | Task::ListOps { .. }
        | Task::Images { .. }
        | Task::Translation { .. } => {
            panic!("{} has no texts to classify", task.name())
        }
    };
    let (train, validation) = match validation {
        Some(validation) => (train, validation),
        None => a_tenth_off(train)?,
    };
    let data = TaskData::new(examples(train, encode)?, examples(validation, encode)?, examples(test, encode)?);
    Ok(TaskData { second: second_measure(task, encode)?, ..data })
}

/// What GLUE reports of a task beside accuracy. MNLI's mismatched split is measured where its file is there.
fn second_measure(task: &Task, encode: Encode<'_>) -> Result<Option<SecondMeasure>, TaskError> {
    match task {
        Task::Glue { task: GlueTask::Mrpc, .. } => Ok(Some(SecondMeasure::F1)),
        Task::Glue { task: GlueTask::Mnli, folder } => match GlueTask::Mnli.read(folder, GlueSplit::DevMismatched) {
            Ok(texts) => Ok(Some(SecondMeasure::Mismatched(examples(texts, encode)?))),
            Err(GlueError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        },
        _ => Ok(None),
    }
}

/// Training examples, and a tenth of each class for validation.
fn a_tenth_off(examples: Vec<TextExample>) -> Result<(Vec<TextExample>, Vec<TextExample>), TaskError> {
    let fold = part_off(&examples.iter().map(|example| example.label).collect::<Vec<_>>())?;
    let part = |indices: Vec<usize>| indices.into_iter().map(|at| examples[at].clone()).collect();
    Ok((part(fold.train), part(fold.held_out)))
}

fn examples(mut texts: Vec<TextExample>, encode: Encode<'_>) -> Result<Examples, TaskError> {
    texts.shuffle(&mut ChaCha12Rng::seed_from_u64(ORDER_SEED));
    let tokens = encode(&texts.iter().map(TextExample::as_text).collect::<Vec<_>>())?;
    Ok(Examples::texts(tokens, texts.iter().map(|text| text.label).collect()))
}
