//! Translation as a task: from parallel text to tokens.

use maskwright_transformer::{MarianConfig, Text, Tokeniser};
use rand::{SeedableRng, rngs::ChaCha12Rng, seq::SliceRandom};

use crate::{
    Examples, ParallelFiles, SentencePair, TaskData, TaskError,
    splits::{ORDER_SEED, part_off},
};

/// The files of a translation task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TranslationFiles<'a> {
    pub train: &'a ParallelFiles,
    pub validation: Option<&'a ParallelFiles>,
    pub test: &'a ParallelFiles,
    pub most: Option<u32>,
}

impl TranslationFiles<'_> {
    /// The training pairs, also those of which some will validate.
    pub fn training_pairs(&self) -> Result<Vec<SentencePair>, TaskError> {
        Ok(self.train.read(self.most.map(|most| most as usize))?.pairs)
    }

    /// The splits as a translator reads them; the examples of each in an order drawn once and for all.
    pub fn read(&self, model: &MarianConfig, tokeniser: &Tokeniser) -> Result<TaskData, TaskError> {
        let train = self.training_pairs()?;
        let (train, validation) = match self.validation {
            Some(validation) => (train, validation.read(None)?.pairs),
            None => a_tenth_off(train)?,
        };
        let examples = |pairs| examples(pairs, model, tokeniser);
        let test = self.test.read(None)?.pairs;
        Ok(TaskData { train: examples(train)?, validation: examples(validation)?, test: examples(test)? })
    }
}

/// Training pairs, and a tenth of them for validation.
fn a_tenth_off(pairs: Vec<SentencePair>) -> Result<(Vec<SentencePair>, Vec<SentencePair>), TaskError> {
    let fold = part_off(&vec![0; pairs.len()])?;
    let part = |indices: Vec<usize>| indices.into_iter().map(|at| pairs[at].clone()).collect();
    Ok((part(fold.train), part(fold.held_out)))
}

fn examples(mut pairs: Vec<SentencePair>, model: &MarianConfig, tokeniser: &Tokeniser) -> Result<Examples, TaskError> {
    pairs.shuffle(&mut ChaCha12Rng::seed_from_u64(ORDER_SEED));
    let (source, target) = model.lengths;
    if source.min(target) as usize <= tokeniser.special_tokens() {
        return Err(TaskError::Unended { end: model.end });
    }
    let texts = |of: fn(&SentencePair) -> &str| pairs.iter().map(|pair| Text::One(of(pair))).collect::<Vec<_>>();
    let sources = tokeniser.encode(&texts(|pair| &pair.source), source as usize, model.padding)?;
    let targets = tokeniser.encode(&texts(|pair| &pair.target), target as usize, model.padding)?;
    // A translation that is never seen to end is never learnt to end.
    let ends = |(row, length): (&[u32], &usize)| row[..*length].last() == Some(&model.end);
    if !targets.tokens.chunks(targets.length).zip(&targets.lengths).all(ends) {
        return Err(TaskError::Unended { end: model.end });
    }
    Ok(Examples::translations(sources, &targets, model.start, pairs))
}
