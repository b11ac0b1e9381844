/// A tensor `[batch, heads, tokens, head_dim]` in which the features of a token stand side by side, whatever the order of
/// everything else: usually a view of `[batch, tokens, heads, head_dim]`.
pub(super) struct Operand<'a> {
    values: &'a [f32],
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

impl<'a> Operand<'a> {
    /// None where the features of a token are apart. The tensor begins `offset` into `values`.
    pub(super) fn new<S: Copy + TryInto<usize>>(
        values: &'a [f32],
        offset: usize,
        strides: &[S],
        dims: [usize; 4],
    ) -> Option<Self> {
        let &[batch, heads, tokens, features] = strides else { return None };
        if dims[3] > 1 && features.try_into().ok()? != 1 {
            return None;
        }
        let [Ok(batch), Ok(heads), Ok(tokens)] = [batch, heads, tokens].map(S::try_into) else { return None };
        Some(Self { values, offset, strides: [batch, heads, tokens], dims })
    }

    /// `[batch, heads, tokens, head_dim]`
    pub(super) fn dims(&self) -> [usize; 4] {
        self.dims
    }

    /// The first `len` tokens of a head.
    pub(super) fn tokens(&self, example: usize, head: usize, len: usize) -> Tokens<'a> {
        let [batch, heads, row] = self.strides;
        Tokens { values: self.values, first: self.offset + example * batch + head * heads, row, len }
    }
}

impl<'a> Tokens<'a> {
    #[inline(always)]
    pub(super) fn token(&self, at: usize, head_dim: usize) -> &'a [f32] {
        &self.values[self.first + at * self.row..][..head_dim]
    }

    /// The largest magnitude of a number in any of them, NaN if one is NaN; `head_dim` is a multiple of 8.
    #[inline(always)]
    pub(super) fn largest(&self, head_dim: usize) -> f32 {
        // Bits of magnitudes order as these do, with NaN on top.
        let mut largest = [0_u32; 8];
        for at in 0..self.len {
            for eight in self.token(at, head_dim).as_chunks::<8>().0 {
                for n in 0..8 {
                    largest[n] = largest[n].max(eight[n].abs().to_bits());
                }
            }
        }
        f32::from_bits(largest.into_iter().fold(0, u32::max))
    }
}
