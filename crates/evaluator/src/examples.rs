use burn::tensor::{Device, Int, Tensor, TensorData};
use maskwright_blueprint::Digest;
use maskwright_transformer::{EncoderInput, Inputs};

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
    /// One channel, `side * side` values an example.
    Images {
        side: usize,
        pixels: Vec<f32>,
    },
    Tokens(Vec<u32>),
}

impl Examples {
    /// Grey images `[examples, side, side]`.
    ///
    /// # Panics
    /// When there are not `side * side` pixels for each label.
    pub fn images(side: usize, pixels: Vec<f32>, labels: Vec<u32>) -> Self {
        assert_eq!(pixels.len(), side * side * labels.len(), "one image for each label");
        Self { stride: side * side, inputs: Values::Images { side, pixels }, labels }
    }

    /// Sequences of symbols `[examples, length]`.
    ///
    /// # Panics
    /// When there are not `length` tokens for each label.
    pub fn tokens(length: usize, tokens: Vec<u32>, labels: Vec<u32>) -> Self {
        assert_eq!(tokens.len(), length * labels.len(), "one sequence for each label");
        Self { stride: length, inputs: Values::Tokens(tokens), labels }
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
    pub fn needs(&self) -> (EncoderInput, u32) {
        let most = |values: &[u32]| values.iter().max().map_or(0, |most| most + 1);
        let input = match &self.inputs {
            Values::Images { side, .. } => EncoderInput::Image { side: *side as u32, patch: 1, channels: 1 },
            Values::Tokens(tokens) => EncoderInput::Tokens { length: self.stride as u32, vocabulary: most(tokens) },
        };
        (input, most(&self.labels))
    }

    /// The examples at `indices`, in that order.
    pub fn batch(&self, indices: &[usize], device: &Device) -> Inputs {
        fn pick<T: Copy>(values: &[T], stride: usize, indices: &[usize]) -> Vec<T> {
            indices.iter().flat_map(|&at| &values[at * stride..(at + 1) * stride]).copied().collect()
        }
        match &self.inputs {
            Values::Images { side, pixels } => {
                let values = pick(pixels, self.stride, indices);
                Inputs::Images(Tensor::from_data(TensorData::new(values, [indices.len(), 1, *side, *side]), device))
            }
            Values::Tokens(tokens) => {
                let values: Vec<i32> =
                    pick(tokens, self.stride, indices).into_iter().map(|token| token as i32).collect();
                Inputs::Tokens(Tensor::from_data(TensorData::new(values, [indices.len(), self.stride]), device))
            }
        }
    }

    /// Labels at `indices` as a tensor `[batch]`.
    pub fn label_batch(&self, indices: &[usize], device: &Device) -> Tensor<1, Int> {
        let labels: Vec<i32> = indices.iter().map(|&at| self.labels[at] as i32).collect();
        Tensor::from_data(TensorData::new(labels, [indices.len()]), device)
    }

    /// The same images followed by their mirror images; sequences stay as they are.
    pub fn with_mirrored(self) -> Self {
        let Values::Images { side, pixels } = &self.inputs else { return self };
        let mirrored = pixels.chunks(*side).flat_map(|row| row.iter().rev().copied());
        let pixels = pixels.iter().copied().chain(mirrored).collect();
        let labels = self.labels.repeat(2);
        Self::images(*side, pixels, labels)
    }

    /// The first `count` examples and the others.
    pub fn split_at(&self, count: usize) -> (Self, Self) {
        let count = count.min(self.len());
        let (labels, other_labels) = self.labels.split_at(count);
        let at = count * self.stride;
        let (inputs, others) = match &self.inputs {
            Values::Images { side, pixels } => (
                Values::Images { side: *side, pixels: pixels[..at].to_vec() },
                Values::Images { side: *side, pixels: pixels[at..].to_vec() },
            ),
            Values::Tokens(tokens) => (Values::Tokens(tokens[..at].to_vec()), Values::Tokens(tokens[at..].to_vec())),
        };
        let part = |inputs, labels: &[u32]| Self { inputs, stride: self.stride, labels: labels.to_vec() };
        (part(inputs, labels), part(others, other_labels))
    }

    /// Of values and labels.
    pub fn digest(&self) -> Digest {
        let values: Vec<u8> = match &self.inputs {
            Values::Images { pixels, .. } => pixels.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Values::Tokens(tokens) => tokens.iter().flat_map(|token| token.to_le_bytes()).collect(),
        };
        let labels: Vec<u8> = self.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        Digest::of([values, labels])
    }
}
