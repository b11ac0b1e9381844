//! Translation as a task: from parallel text to tokens.

use maskwright_transformer::{MarianConfig, Text, Tokeniser};
use rand::{SeedableRng, rngs::ChaCha12Rng, seq::SliceRandom};

use crate::{
    Examples, ParallelFiles, ParallelText, SentencePair, TaskData, TaskError,
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
        Ok(self.training_text()?.pairs)
    }

    fn training_text(&self) -> Result<ParallelText, TaskError> {
        Ok(self.train.read(self.most.map(|most| most as usize))?)
    }

    /// The splits as a translator reads them; the examples of each in an order drawn once and for all.
    pub fn read(&self, model: &MarianConfig, tokeniser: &Tokeniser) -> Result<TaskData, TaskError> {
        let train = self.training_text()?;
        let (train, validation) = match self.validation {
            Some(validation) => (train, validation.read(None)?),
            None => a_tenth_off(train)?,
        };
        let examples = |text| examples(text, model, tokeniser);
        let test = self.test.read(None)?;
        Ok(TaskData::new(examples(train)?, examples(validation)?, examples(test)?))
    }
}

/// Training pairs, and a tenth of them for validation; what was passed over counts with the former.
fn a_tenth_off(ParallelText { pairs, empty }: ParallelText) -> Result<(ParallelText, ParallelText), TaskError> {
    let fold = part_off(&vec![0; pairs.len()])?;
    let part = |indices: Vec<usize>| indices.into_iter().map(|at| pairs[at].clone()).collect();
    let train = ParallelText { pairs: part(fold.train), empty };
    Ok((train, ParallelText { pairs: part(fold.held_out), empty: 0 }))
}

fn examples(mut text: ParallelText, model: &MarianConfig, tokeniser: &Tokeniser) -> Result<Examples, TaskError> {
    text.pairs.shuffle(&mut ChaCha12Rng::seed_from_u64(ORDER_SEED));
    let (source, target) = model.lengths;
    let texts = |of: fn(&SentencePair) -> &str| text.pairs.iter().map(|pair| Text::One(of(pair))).collect::<Vec<_>>();
    let sources = tokeniser.encode(&texts(|pair| &pair.source), source as usize, model.padding)?;
    let targets = tokeniser.encode(&texts(|pair| &pair.target), target as usize, model.padding)?;
    // A translation that is never seen to end is never learnt to end.
    let ends = |(row, length): (&[u32], &usize)| row[..*length].last() == Some(&model.end);
    if !targets.tokens.chunks(targets.length).zip(&targets.lengths).all(ends) {
        return Err(TaskError::Unended { end: model.end });
    }
    Ok(Examples::translations(sources, &targets, model.start, text))
}
