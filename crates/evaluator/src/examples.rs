use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use maskwright_blueprint::{AttentionKind, Digest};
use maskwright_transformer::{Inputs, Reads, TokenisedTexts};

use crate::{
    ImageFolderError, ParallelText, SentencePair,
    folder_images::FolderImages,
    translations::{Translations, begins},
};

/// Labelled examples of one kind of input.
///
/// An example asks for one answer or several: its class, or each token of its translation. Labels, scores and what is
/// right are counted by answers, in the order of the examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    inputs: Values,
    /// Values of one example.
    stride: usize,
    /// One for each answer.
    labels: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq)]
enum Values {
    /// `channels * side * side` values an example.
    Images {
        side: usize,
        channels: usize,
        pixels: Vec<f32>,
    },
    FolderImages(FolderImages),
    /// Rows of `stride` tokens, filled up with padding.
    Texts(TokenisedTexts),
    Translations(Translations),
}

/// Tokens of a batch's examples that are no padding, and how many there are with it.
pub(crate) struct RealTokens {
    pub lengths: Vec<usize>,
    pub padded: usize,
}

impl Examples {
    /// Images `[examples, channels, side, side]`.
    ///
    /// # Panics
    /// When there are not `channels * side * side` pixels for each label.
    pub fn images(side: usize, channels: usize, pixels: Vec<f32>, labels: Vec<u32>) -> Self {
        let stride = channels * side * side;
        assert_eq!(pixels.len(), stride * labels.len(), "one image for each label");
        Self { stride, inputs: Values::Images { side, channels, pixels }, labels }
    }

    /// Images of a folder.
    ///
    /// # Panics
    /// When there is not one image for each label.
    pub(crate) fn folder_images(images: FolderImages, labels: Vec<u32>) -> Self {
        assert_eq!(images.len(), labels.len(), "one image for each label");
        Self { stride: 3 * images.side() * images.side(), inputs: Values::FolderImages(images), labels }
    }

    /// Sequences of tokens, of any length.
    ///
    /// # Panics
    /// When there is not one sequence for each label.
    pub fn sequences(sequences: &[Vec<u32>], labels: Vec<u32>) -> Self {
        Self::texts(TokenisedTexts::of_tokens(sequences), labels)
    }

    /// Texts of any length.
    ///
    /// # Panics
    /// When there is not one text for each label.
    pub fn texts(texts: TokenisedTexts, labels: Vec<u32>) -> Self {
        assert_eq!(texts.lengths.len(), labels.len(), "one text for each label");
        Self { stride: texts.length, inputs: Values::Texts(texts), labels }
    }

    /// Sentences of any length with their translations, whose tokens are the labels; `text` has both as they were
    /// written.
    ///
    /// # Panics
    /// When there is not one source and one target for each pair.
    pub fn translations(sources: TokenisedTexts, targets: &TokenisedTexts, start: u32, text: ParallelText) -> Self {
        let ParallelText { pairs, empty } = text;
        let counts = [sources.lengths.len(), targets.lengths.len()];
        assert_eq!(counts, [pairs.len(); 2], "one source and one target for each pair");
        let rows = targets.tokens.chunks(targets.length).zip(&targets.lengths);
        let labels = rows.flat_map(|(row, length)| &row[..*length]).copied().collect();
        let begins = begins(targets.lengths.iter().copied());
        let truncated = sources.truncated + targets.truncated;
        let stride = sources.length;
        let translations = Translations { sources, begins, start, pairs, truncated, empty };
        Self { stride, inputs: Values::Translations(translations), labels }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.inputs {
            Values::Translations(translations) => translations.len(),
            _ => self.labels.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Of every answer.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Sentences and their translations as they were written, where translations are asked for.
    pub fn pairs(&self) -> Option<&[SentencePair]> {
        match &self.inputs {
            Values::Translations(translations) => Some(&translations.pairs),
            _ => None,
        }
    }

    /// Places of an example's answers among all.
    pub(crate) fn answers(&self, at: usize) -> Range<usize> {
        match &self.inputs {
            Values::Translations(translations) => translations.begins[at]..translations.begins[at + 1],
            _ => at..at + 1,
        }
    }

    /// How many answers the examples at `indices` ask for.
    pub(crate) fn count_answers(&self, indices: &[usize]) -> usize {
        indices.iter().map(|at| self.answers(*at).len()).sum()
    }

    /// What a model must read to take these examples, and how many classes it must tell apart.
    pub fn needs(&self) -> (Reads, u32) {
        let most = |values: &[u32]| values.iter().max().map_or(0, |most| most.saturating_add(1));
        let length = self.stride as u32;
        let reads = match &self.inputs {
            Values::Images { side, channels, .. } => Reads::Images { side: *side as u32, channels: *channels as u32 },
            Values::FolderImages(images) => Reads::Images { side: images.side() as u32, channels: 3 },
            Values::Texts(texts) => Reads::Text { length, vocabulary: most(&texts.tokens), padding: 0 },
            Values::Translations(translations) => Reads::Translations {
                source: length,
                target: (0..self.len()).map(|at| translations.target_length(at) as u32).max().unwrap_or(0),
                vocabulary: most(&translations.sources.tokens).max(most(&self.labels)),
            },
        };
        (reads, most(&self.labels))
    }

    /// Texts that were cut because they are longer than the model reads.
    pub fn truncated(&self) -> usize {
        match &self.inputs {
            Values::Texts(texts) => texts.truncated,
            Values::Translations(translations) => translations.truncated,
            Values::Images { .. } | Values::FolderImages(_) => 0,
        }
    }

    /// Pairs of sentences that were passed over because one side is empty.
    pub(crate) fn empty_pairs(&self) -> usize {
        match &self.inputs {
            Values::Translations(translations) => translations.empty,
            Values::Images { .. } | Values::FolderImages(_) | Values::Texts(_) => 0,
        }
    }

    /// How many texts there are; a sentence and its translation are two.
    pub(crate) fn count_texts(&self) -> usize {
        match &self.inputs {
            Values::Texts(_) => self.len(),
            Values::Translations(_) => 2 * self.len(),
            Values::Images { .. } | Values::FolderImages(_) => 0,
        }
    }

    /// Real tokens of an example, of the longer text where there are two; none where examples do not differ in it.
    pub(crate) fn length(&self, at: usize) -> Option<usize> {
        match &self.inputs {
            Values::Texts(texts) => Some(texts.lengths[at]),
            Values::Translations(of) => Some(of.sources.lengths[at].max(of.target_length(at))),
            Values::Images { .. } | Values::FolderImages(_) => None,
        }
    }

    /// Tokens of the examples at `indices` as queries and as keys of such a module, where examples differ in that.
    pub(crate) fn queries_and_keys(&self, indices: &[usize], kind: AttentionKind) -> Option<[RealTokens; 2]> {
        let of_texts = |texts: &TokenisedTexts| {
            let rows = texts.rows(indices);
            RealTokens { lengths: rows.lengths, padded: rows.length }
        };
        let of_targets = |of: &Translations| RealTokens {
            lengths: indices.iter().map(|at| of.target_length(*at)).collect(),
            padded: of.padded_target(indices),
        };
        match (&self.inputs, kind) {
            (Values::Images { .. } | Values::FolderImages(_), _) => None,
            (Values::Texts(texts), _) => Some([of_texts(texts), of_texts(texts)]),
            (Values::Translations(of), AttentionKind::SelfAttention) => {
                Some([of_texts(&of.sources), of_texts(&of.sources)])
            }
            (Values::Translations(of), AttentionKind::CausalSelfAttention) => Some([of_targets(of), of_targets(of)]),
            (Values::Translations(of), AttentionKind::CrossAttention) => Some([of_targets(of), of_texts(&of.sources)]),
        }
    }

    /// The examples at `indices`, in that order; an error where an image's file does not decode, or has changed.
    pub fn batch(&self, indices: &[usize], device: &Device) -> Result<Inputs, ImageFolderError> {
        let rows = |values: &[f32]| -> Vec<f32> {
            indices.iter().flat_map(|at| &values[at * self.stride..(at + 1) * self.stride]).copied().collect()
        };
        let images = |pixels, channels, side| {
            let data = TensorData::new(pixels, [indices.len(), channels, side, side]);
            Inputs::Images(Tensor::from_data(data, device))
        };
        Ok(match &self.inputs {
            Values::Images { side, channels, pixels } => images(rows(pixels), *channels, *side),
            Values::FolderImages(of) => images(of.pixels(indices)?, 3, of.side()),
            Values::Texts(texts) => Inputs::Text(texts.rows(indices).batch(device)),
            Values::Translations(of) => Inputs::Translation(of.batch(indices, &self.labels, device)),
        })
    }

    /// Labels of the examples at `indices`, one for each answer.
    pub fn labels_of(&self, indices: &[usize]) -> Vec<u32> {
        indices.iter().flat_map(|at| &self.labels[self.answers(*at)]).copied().collect()
    }

    /// The same images followed by their mirror images; other inputs stay as they are.
    pub fn with_mirrored(self) -> Self {
        let labels = || self.labels.repeat(2);
        match self.inputs {
            Values::Images { side, channels, ref pixels } => {
                let mirrored = pixels.chunks(side).flat_map(|row| row.iter().rev().copied());
                let pixels = pixels.iter().copied().chain(mirrored).collect();
                Self::images(side, channels, pixels, labels())
            }
            Values::FolderImages(ref of) => Self::folder_images(of.with_mirrored(), labels()),
            Values::Texts(_) | Values::Translations(_) => self,
        }
    }

    /// The first `count` examples and the others.
    pub fn split_at(&self, count: usize) -> (Self, Self) {
        let count = count.min(self.len());
        let first: Vec<usize> = (0..count).collect();
        let others: Vec<usize> = (count..self.len()).collect();
        (self.select(&first), self.select(&others))
    }

    /// The examples at `indices`, in that order.
    pub fn select(&self, indices: &[usize]) -> Self {
        fn pick<T: Copy>(values: &[T], stride: usize, indices: &[usize]) -> Vec<T> {
            indices.iter().flat_map(|at| &values[at * stride..(at + 1) * stride]).copied().collect()
        }
        let labels = self.labels_of(indices);
        match &self.inputs {
            Values::Images { side, channels, pixels } => {
                Self::images(*side, *channels, pick(pixels, self.stride, indices), labels)
            }
            Values::FolderImages(of) => Self::folder_images(of.select(indices), labels),
            Values::Texts(texts) => Self::texts(texts.rows(indices), labels),
            Values::Translations(of) => {
                let of = of.select(indices);
                Self { stride: of.sources.length, inputs: Values::Translations(of), labels }
            }
        }
    }

    /// These examples, then others of the same kind.
    ///
    /// # Panics
    /// When the others are of another kind or size.
    pub fn followed_by(&self, others: &Self) -> Self {
        let labels = [&self.labels[..], &others.labels].concat();
        match (&self.inputs, &others.inputs) {
            (Values::Images { side, channels, pixels }, Values::Images { pixels: more, .. }) => {
                Self::images(*side, *channels, [&pixels[..], more].concat(), labels)
            }
            (Values::FolderImages(of), Values::FolderImages(more)) => Self::folder_images(of.followed_by(more), labels),
            (Values::Texts(texts), Values::Texts(more)) => Self::texts(texts.followed_by(more), labels),
            (Values::Translations(of), Values::Translations(more)) => {
                let of = of.followed_by(more);
                Self { stride: of.sources.length, inputs: Values::Translations(of), labels }
            }
            _ => panic!("images follow images, texts texts, translations translations"),
        }
    }

    /// Of values and labels; of images in a folder, of their files, and of what is made of those.
    pub fn digest(&self) -> Digest {
        fn bytes<const N: usize>(values: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
            values.flatten().collect()
        }
        let of_texts = |texts: &TokenisedTexts| {
            let lengths = texts.lengths.iter().map(|length| *length as u32);
            let all = texts.tokens.iter().chain(&texts.token_types).copied().chain(lengths);
            bytes(all.map(|value| value.to_le_bytes()))
        };
        let labels = bytes(self.labels.iter().map(|label| label.to_le_bytes()));
        let values = match &self.inputs {
            Values::FolderImages(of) => return Digest::of(of.identity().map(String::into_bytes).chain([labels])),
            Values::Images { pixels, .. } => bytes(pixels.iter().map(|value| value.to_le_bytes())),
            Values::Texts(texts) => of_texts(texts),
            Values::Translations(of) => {
                let begins = bytes(of.begins.iter().map(|begin| (*begin as u64).to_le_bytes()));
                let references = of.pairs.iter().flat_map(|pair| [pair.target.as_bytes(), &[0]].concat());
                [of_texts(&of.sources), begins, references.collect()].concat()
            }
        };
        Digest::of([values, labels])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_token_and_label_that_there_are_need_more_than_any_model_has() {
        let (reads, classes) = Examples::sequences(&[vec![0, u32::MAX]], vec![u32::MAX]).needs();
        assert_eq!(reads, Reads::Text { length: 2, vocabulary: u32::MAX, padding: 0 });
        assert_eq!(classes, u32::MAX);
    }
}
