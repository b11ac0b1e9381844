use burn::{backend::flex::FlexTensor, tensor::DType};

/// A tensor `[batch, heads, tokens, head_dim]` in which the features of a token stand side by side, whatever the order of
/// everything else: usually a view of `[batch, tokens, heads, head_dim]`.
pub(super) struct Operand {
    tensor: FlexTensor,
    offset: usize,
    /// From one example, head and token to the next.
    strides: [usize; 3],
    dims: [usize; 4],
}

/// Tokens of one head of one example.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    pub values: &'a [f32],
    /// Where the first token begins.
    pub first: usize,
    /// From one token to the next.
    pub row: usize,
    pub len: usize,
}

impl Operand {
    /// Copies where features are apart.
    pub(super) fn new(tensor: FlexTensor) -> Self {
        assert_eq!(tensor.dtype(), DType::F32, "models compute in f32");
        Self::view(&tensor).unwrap_or_else(|| {
            Self::view(&tensor.to_contiguous()).expect("features of a contiguous tensor stand side by side")
        })
    }

    fn view(tensor: &FlexTensor) -> Option<Self> {
        let layout = tensor.layout();
        let dims: [usize; 4] = (**layout.shape()).try_into().expect("attention is of four dimensions");
        let &[batch, heads, tokens, features] = layout.strides() else { return None };
        if features != 1 && dims[3] > 1 {
            return None;
        }
        let [Ok(batch), Ok(heads), Ok(tokens)] = [batch, heads, tokens].map(usize::try_from) else { return None };
        Some(Self { tensor: tensor.clone(), offset: layout.start_offset(), strides: [batch, heads, tokens], dims })
    }

    /// `[batch, heads, tokens, head_dim]`
    pub(super) fn dims(&self) -> [usize; 4] {
        self.dims
    }

    /// The first `len` tokens of a head.
    pub(super) fn tokens(&self, example: usize, head: usize, len: usize) -> Tokens<'_> {
        let [batch, heads, row] = self.strides;
        Tokens { values: self.tensor.storage(), first: self.offset + example * batch + head * heads, row, len }
    }
}

impl<'a> Tokens<'a> {
    #[inline(always)]
    pub(super) fn token(&self, at: usize, head_dim: usize) -> &'a [f32] {
        &self.values[self.first + at * self.row..][..head_dim]
    }
}
