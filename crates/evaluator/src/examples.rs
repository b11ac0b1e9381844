use burn::tensor::{Device, Int, Tensor, TensorData};
use maskwright_blueprint::Digest;
use maskwright_transformer::{Inputs, Reads, TokenisedTexts};

/// Labelled examples of one kind of input.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    inputs: Values,
    /// Values of one example.
    stride: usize,
    labels: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq)]
enum Values {
    /// `channels * side * side` values an example.
    Images { side: usize, channels: usize, pixels: Vec<f32> },
    /// `stride` symbols an example.
    Symbols(Vec<u32>),
    /// Rows of `stride` tokens, the last of them padding.
    Texts(TokenisedTexts),
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

    /// Sequences of symbols `[examples, length]`.
    ///
    /// # Panics
    /// When there are not `length` symbols for each label.
    pub fn symbols(length: usize, symbols: Vec<u32>, labels: Vec<u32>) -> Self {
        assert_eq!(symbols.len(), length * labels.len(), "one sequence for each label");
        Self { stride: length, inputs: Values::Symbols(symbols), labels }
    }

    /// Texts of any length.
    ///
    /// # Panics
    /// When there is not one text for each label.
    pub fn texts(texts: TokenisedTexts, labels: Vec<u32>) -> Self {
        assert_eq!(texts.lengths.len(), labels.len(), "one text for each label");
        Self { stride: texts.length, inputs: Values::Texts(texts), labels }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// What a model must read to take these examples, and how many classes it must tell apart.
    pub fn needs(&self) -> (Reads, u32) {
        let most = |values: &[u32]| values.iter().max().map_or(0, |most| most + 1);
        let length = self.stride as u32;
        let reads = match &self.inputs {
            Values::Images { side, channels, .. } => Reads::Images { side: *side as u32, channels: *channels as u32 },
            Values::Symbols(symbols) => Reads::Symbols { length, vocabulary: most(symbols) },
            Values::Texts(texts) => Reads::Text { length, vocabulary: most(&texts.tokens), padding: 0 },
        };
        (reads, most(&self.labels))
    }

    /// Texts that were cut because they are longer than the model reads.
    pub fn truncated(&self) -> usize {
        match &self.inputs {
            Values::Texts(texts) => texts.truncated,
            _ => 0,
        }
    }

    /// Real tokens of an example, where examples differ in it.
    pub(crate) fn length(&self, at: usize) -> Option<usize> {
        match &self.inputs {
            Values::Texts(texts) => Some(texts.lengths[at]),
            _ => None,
        }
    }

    /// Tokens that a batch of the examples at `indices` is padded to, where examples differ in that.
    pub(crate) fn padded_length(&self, indices: &[usize]) -> Option<usize> {
        match &self.inputs {
            Values::Texts(texts) => Some(texts.rows(indices).length),
            _ => None,
        }
    }

    /// The examples at `indices`, in that order.
    pub fn batch(&self, indices: &[usize], device: &Device) -> Inputs {
        let rows = |values: &[f32]| -> Vec<f32> {
            indices.iter().flat_map(|at| &values[at * self.stride..(at + 1) * self.stride]).copied().collect()
        };
        match &self.inputs {
            Values::Images { side, channels, pixels } => {
                let dims = [indices.len(), *channels, *side, *side];
                Inputs::Images(Tensor::from_data(TensorData::new(rows(pixels), dims), device))
            }
            Values::Symbols(symbols) => {
                let rows = indices.iter().flat_map(|at| &symbols[at * self.stride..(at + 1) * self.stride]);
                let values: Vec<i32> = rows.map(|symbol| *symbol as i32).collect();
                Inputs::Tokens(Tensor::from_data(TensorData::new(values, [indices.len(), self.stride]), device))
            }
            Values::Texts(texts) => Inputs::Text(texts.rows(indices).batch(device)),
        }
    }

    /// Labels at `indices` as a tensor `[batch]`.
    pub fn label_batch(&self, indices: &[usize], device: &Device) -> Tensor<1, Int> {
        let labels: Vec<i32> = indices.iter().map(|&at| self.labels[at] as i32).collect();
        Tensor::from_data(TensorData::new(labels, [indices.len()]), device)
    }

    /// The same images followed by their mirror images; other inputs stay as they are.
    pub fn with_mirrored(self) -> Self {
        let Values::Images { side, channels, pixels } = &self.inputs else { return self };
        let mirrored = pixels.chunks(*side).flat_map(|row| row.iter().rev().copied());
        let pixels = pixels.iter().copied().chain(mirrored).collect();
        let labels = self.labels.repeat(2);
        Self::images(*side, *channels, pixels, labels)
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
        let labels = indices.iter().map(|at| self.labels[*at]).collect();
        match &self.inputs {
            Values::Images { side, channels, pixels } => {
                Self::images(*side, *channels, pick(pixels, self.stride, indices), labels)
            }
            Values::Symbols(symbols) => Self::symbols(self.stride, pick(symbols, self.stride, indices), labels),
            Values::Texts(texts) => Self::texts(texts.rows(indices), labels),
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
            (Values::Symbols(symbols), Values::Symbols(more)) => {
                Self::symbols(self.stride, [&symbols[..], more].concat(), labels)
            }
            (Values::Texts(texts), Values::Texts(more)) => Self::texts(texts.followed_by(more), labels),
            _ => panic!("images follow images, symbols symbols, texts texts"),
        }
    }

    /// Of values and labels.
    pub fn digest(&self) -> Digest {
        fn bytes<const N: usize>(values: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
            values.flatten().collect()
        }
        let values = match &self.inputs {
            Values::Images { pixels, .. } => bytes(pixels.iter().map(|value| value.to_le_bytes())),
            Values::Symbols(symbols) => bytes(symbols.iter().map(|symbol| symbol.to_le_bytes())),
            Values::Texts(texts) => {
                let lengths = texts.lengths.iter().map(|length| *length as u32);
                let all = texts.tokens.iter().chain(&texts.token_types).copied().chain(lengths);
                bytes(all.map(|value| value.to_le_bytes()))
            }
        };
        Digest::of([values, bytes(self.labels.iter().map(|label| label.to_le_bytes()))])
    }
}
