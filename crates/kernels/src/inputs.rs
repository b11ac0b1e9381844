use maskwright_blueprint::AttentionShape;

use crate::KernelError;

/// What one call of attention reads.
///
/// `q` is `[heads, queries, head_dim]`, `k` and `v` are `[heads, keys, head_dim]`, all dense and row-major. Scores are
/// divided by `sqrt(head_dim)` inside.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    pub(crate) live_keys: Option<usize>,
}

impl<'a> Inputs<'a> {
    /// Every key is live.
    pub fn new(q: &'a [f32], k: &'a [f32], v: &'a [f32]) -> Self {
        Self { q, k, v, live_keys: None }
    }

    /// Only the first `live_keys` keys exist, the rest is right padding that no query attends to and that is never
    /// read. A query whose active blocks hold no live key gets zeros; for self-attention that happens to padded
    /// queries alone.
    pub fn live_keys(self, live_keys: usize) -> Self {
        Self { live_keys: Some(live_keys), ..self }
    }

    /// The number of live keys, after the lengths have been compared with `shape`.
    pub(crate) fn check(&self, shape: &AttentionShape) -> Result<usize, KernelError> {
        check_length("q", self.q, shape, shape.queries)?;
        check_length("k", self.k, shape, shape.keys)?;
        check_length("v", self.v, shape, shape.keys)?;
        let live = self.live_keys.unwrap_or(shape.keys as usize);
        match live <= shape.keys as usize {
            true => Ok(live),
            false => Err(KernelError::LiveKeys { found: live, keys: shape.keys }),
        }
    }
}

/// Whether `values` are `[heads, tokens, head_dim]`.
pub(crate) fn check_length<T>(
    operand: &'static str,
    values: &[T],
    shape: &AttentionShape,
    tokens: u32,
) -> Result<(), KernelError> {
    let &AttentionShape { heads, head_dim, .. } = shape;
    let expected = (heads as usize)
        .checked_mul(tokens as usize)
        .and_then(|rows| rows.checked_mul(head_dim as usize))
        .ok_or(KernelError::TooLarge { heads, tokens, head_dim })?;
    match values.len() == expected {
        true => Ok(()),
        false => Err(KernelError::Length { operand, found: values.len(), expected, heads, tokens, head_dim }),
    }
}
