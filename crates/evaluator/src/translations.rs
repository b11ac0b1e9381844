use burn::tensor::{Device, Tensor, TensorData};
use maskwright_transformer::{TokenisedTexts, TranslationBatch};

use crate::SentencePair;

/// Sentences and, beside the examples' labels, what a translator needs to be asked for their translations.
///
/// The labels of an example are its translation's tokens, the end included: each of them is one answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Translations {
    /// Each with its end.
    pub sources: TokenisedTexts,
    /// Where each translation begins among the labels, and where the last one ends.
    pub begins: Vec<usize>,
    /// The token that a target starts with.
    pub start: u32,
    /// As they were written.
    pub pairs: Vec<SentencePair>,
    /// Sources and translations that were cut.
    pub truncated: usize,
    /// Pairs that were passed over because one side is empty.
    pub empty: usize,
}

impl Translations {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Tokens of the translation at `at`.
    pub fn target_length(&self, at: usize) -> usize {
        self.begins[at + 1] - self.begins[at]
    }

    /// Tokens that the targets of a batch are padded to: a multiple of eight, so that batches come in few lengths.
    pub fn padded_target(&self, indices: &[usize]) -> usize {
        let longest =
            |among: &mut dyn Iterator<Item = usize>| among.map(|at| self.target_length(at)).max().unwrap_or(1);
        let most = longest(&mut (0..self.len()));
        longest(&mut indices.iter().copied()).next_multiple_of(8).min(most)
    }

    /// Sources and targets at `indices`, in that order; `labels` are those of all examples.
    pub fn batch(&self, indices: &[usize], labels: &[u32], device: &Device) -> TranslationBatch {
        let sources = self.sources.rows(indices).batch(device);
        let tokens = self.padded_target(indices);
        // The start token also stands for padding, which nothing looks at.
        let mut target = vec![self.start as i32; indices.len() * tokens];
        for (row, &at) in target.chunks_mut(tokens).zip(indices) {
            let last = self.begins[at + 1] - 1;
            for (to, label) in row[1..].iter_mut().zip(&labels[self.begins[at]..last]) {
                *to = *label as i32;
            }
        }
        TranslationBatch {
            source: sources.tokens,
            real: sources.real,
            target: Tensor::from_data(TensorData::new(target, [indices.len(), tokens]), device),
            lengths: Some(indices.iter().map(|at| self.target_length(*at)).collect()),
        }
    }

    /// The examples at `indices`, in that order.
    pub fn select(&self, indices: &[usize]) -> Self {
        Self {
            sources: self.sources.rows(indices),
            begins: begins(indices.iter().map(|at| self.target_length(*at))),
            start: self.start,
            pairs: indices.iter().map(|at| self.pairs[*at].clone()).collect(),
            truncated: 0, // these two stay with the whole
            empty: 0,
        }
    }

    /// These, then others.
    pub fn followed_by(&self, others: &Self) -> Self {
        let all = [self, others];
        Self {
            sources: self.sources.followed_by(&others.sources),
            begins: begins(all.iter().flat_map(|of| (0..of.len()).map(|at| of.target_length(at)))),
            start: self.start,
            pairs: [&self.pairs[..], &others.pairs].concat(),
            truncated: self.truncated + others.truncated,
            empty: self.empty + others.empty,
        }
    }
}

/// Where each of several runs of labels begins, and where the last one ends.
pub(crate) fn begins(lengths: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut end = 0;
    std::iter::once(0)
        .chain(lengths.map(|length| {
            end += length;
            end
        }))
        .collect()
}
