use std::sync::Arc;

use burn::tensor::{Tensor, activation::softmax};

use crate::{CompiledMasks, backend::is_in_memory};

/// Added to a score that must not count: far below any real score, and finite, so that no NaN can arise from it.
pub(crate) const EXCLUDED: f32 = -1e9;

/// How attention is computed.
pub enum Attention<'a> {
    /// Every score, put together from burn's operations: what the other ways are compared with. On the CPU
    /// [`CompiledMasks::dense`] gives the same sooner.
    Dense,
    /// As a blueprint says.
    Masked(&'a CompiledMasks),
    /// No score: each token of self-attention keeps its own value. Cross-attention, where no query has a token of its own,
    /// averages all values. A control, not a way to compute.
    Identity,
    /// Every score, with something watching.
    Probed(&'a mut Probe),
}

/// Watches the attention of a dense forward pass.
#[derive(Debug, Default)]
pub struct Probe {
    /// For each module a tensor `[batch, heads, queries, keys]` of zeros that requires a gradient: added to the scaled
    /// scores, so that its gradient is the loss's by each score.
    pub offsets: Vec<Tensor<4>>,
    /// For each module a tensor `[batch, heads, queries, 1]` of zeros that requires a gradient: a query's output is multiplied
    /// by one more than it, so that its gradient is the output times the loss's gradient by that, summed over features.
    pub gains: Vec<Tensor<4>>,
    /// Filled with each module's queries, keys `[batch, heads, tokens, head_dim]` and scaled scores.
    pub seen: Vec<SeenAttention>,
}

/// One module's attention on one batch. Where a model attends in windows, each window is an example of the batch.
#[derive(Debug, Clone)]
pub struct SeenAttention {
    /// `[batch, heads, queries, head_dim]`
    pub q: Tensor<4>,
    /// `[batch, heads, keys, head_dim]`
    pub k: Tensor<4>,
    /// `[batch, heads, queries, keys]`, scaled by `1 / sqrt(head_dim)`; what must not count holds at most -1e8.
    pub scores: Tensor<4>,
}

/// What a model knows of one attention besides queries, keys and values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context {
    /// Added to the scaled scores; broadcasts to `[batch, heads, queries, keys]`.
    pub bias: Option<Tensor<4>>,
    /// 1 for each real token, 0 for padding: `[batch, 1, queries, 1]`.
    pub real_queries: Option<Tensor<4>>,
    /// The same for keys: `[batch, 1, keys, 1]`.
    pub real_keys: Option<Tensor<4>>,
    /// What `bias` says, where blocks need not be told by a tensor.
    pub bias_is: BiasIs,
    /// Keys are of another sequence than queries.
    pub crosses: bool,
    /// Queries of each example that are no padding, which is on the right, where they are not as many as the keys that
    /// `bias_is` counts.
    pub live_queries: Option<Arc<[usize]>>,
    /// Only the outputs of so many first queries are read, in self-attention that sees later tokens, too.
    pub read: Option<usize>,
}

/// What a bias does to the scores.
#[derive(Debug, Clone, Default)]
pub(crate) enum BiasIs {
    /// Whatever its numbers say, or there is none.
    #[default]
    Numbers,
    /// It hides padding, which is on the right: so many keys of each example count.
    RightPadding(Arc<[usize]>),
    /// It hides later tokens from each query; so many tokens of each example count, where there is padding on the right.
    Causality(Option<Arc<[usize]>>),
}

impl Context {
    /// Keys that are padding do not count. `real_keys` is `[batch, keys]`, 1 for each real token.
    pub fn padded_keys(real_keys: Tensor<2>) -> Self {
        let [batch, keys] = real_keys.dims();
        let bias = real_keys.clone().sub_scalar(1.0).mul_scalar(-EXCLUDED).reshape([batch, 1, 1, keys]);
        let bias_is = right_padding(&real_keys).map_or(BiasIs::Numbers, BiasIs::RightPadding);
        let real_keys = Some(real_keys.reshape([batch, 1, keys, 1]));
        Self { bias: Some(bias), real_keys, bias_is, ..Self::default() }
    }

    /// Attention from one sequence, of which `queries` says which tokens are no padding, to another one.
    pub fn crossing(real_keys: Tensor<2>, queries: &Self) -> Self {
        let live_queries = match &queries.bias_is {
            BiasIs::Causality(live) => live.clone(),
            BiasIs::Numbers | BiasIs::RightPadding(_) => None,
        };
        let real_queries = queries.real_queries.clone();
        Self { real_queries, live_queries, crosses: true, ..Self::padded_keys(real_keys) }
    }

    /// Self-attention over tokens some of which are padding.
    pub fn padded(real: Tensor<2>) -> Self {
        let context = Self::padded_keys(real);
        Self { real_queries: context.real_keys.clone(), ..context }
    }

    /// The same, of which no more than the first `read` tokens are read.
    pub fn reading(self, read: Option<usize>) -> Self {
        Self { read, ..self }
    }

    /// What is read of a tensor whose second dimension but last is tokens.
    pub fn read_of<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let tokens = x.dims()[D - 2];
        match self.read {
            Some(read) if read < tokens => x.slice_dim(D - 2, 0..read),
            _ => x,
        }
    }
}

impl Attention<'_> {
    /// Attention of the model's `module`-th module: q `[batch, heads, queries, head_dim]`, k and v
    /// `[batch, heads, keys, head_dim]`; gives `[batch, heads, queries, head_dim]` of those queries that are read.
    pub(crate) fn attend(
        &mut self,
        module: usize,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
        context: &Context,
    ) -> Tensor<4> {
        let probe = match self {
            Self::Masked(masks) => return masks.attend(module, q, k, v, context),
            Self::Identity => return context.read_of(own_values(v, q.dims()[2], context)),
            Self::Dense => None,
            Self::Probed(probe) => Some(probe),
        };
        let scale = (q.dims()[3] as f32).sqrt().recip();
        let mut scores = q.clone().matmul(k.clone().swap_dims(2, 3)).mul_scalar(scale);
        if let Some(bias) = &context.bias {
            scores = scores + bias.clone();
        }
        let Some(probe) = probe else { return softmax(context.read_of(scores), 3).matmul(v) };
        if let Some(offset) = probe.offsets.get(module) {
            scores = scores + offset.clone();
        }
        probe.seen.push(SeenAttention { q, k, scores: scores.clone() });
        let attended = softmax(scores, 3).matmul(v);
        context.read_of(match probe.gains.get(module) {
            Some(gain) => attended.clone() + attended * gain.clone(),
            None => attended,
        })
    }
}

/// The values `[batch, heads, keys, head_dim]` where there is one for each of `queries`; else their mean for each.
fn own_values(v: Tensor<4>, queries: usize, context: &Context) -> Tensor<4> {
    match &context.real_keys {
        Some(real) if context.crosses => {
            let [batch, heads, _, head_dim] = v.dims();
            let mean = (v * real.clone()).sum_dim(2) / real.clone().sum_dim(2).clamp_min(1.0);
            mean.expand([batch, heads, queries, head_dim])
        }
        _ => v,
    }
}

/// Real tokens of each row of `[batch, tokens]`, if ones come before zeros. Only where asking does not wait for a device.
fn right_padding(real: &Tensor<2>) -> Option<Arc<[usize]>> {
    if !is_in_memory(&real.device()) {
        return None;
    }
    let real_tokens = |row: &[f32]| {
        let live = row.iter().take_while(|real| **real == 1.0).count();
        row[live..].iter().all(|real| *real == 0.0).then_some(live)
    };
    let values: Vec<f32> = real.clone().into_data().try_to_vec().ok()?;
    values.chunks(real.dims()[1].max(1)).map(real_tokens).collect()
}

/// `[batch, tokens, width]` as `[batch, heads, tokens, head_dim]`.
pub(crate) fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, tokens, width] = x.dims();
    x.reshape([batch, tokens, heads, width / heads]).swap_dims(1, 2)
}

/// The inverse of [`split_heads`].
pub(crate) fn join_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, tokens, head_dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch, tokens, heads * head_dim])
}
