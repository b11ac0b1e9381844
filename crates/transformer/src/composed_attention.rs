use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData, activation::softmax};
use maskwright_blueprint::{AttentionKind, AttentionShape, HeadMask, Precision};

use crate::{
    attention::{Context, EXCLUDED},
    fake_quantise::{fake_quantise, fake_quantise_numerators},
};

/// One module's masks as tensors, and attention put together from tensor operations: over all scores, on any device, with
/// any bias. What [`block_attention`](crate::block_attention) is compared with.
#[derive(Debug, Clone)]
pub(crate) struct ComposedMask {
    /// `[1, heads, queries, keys]`, 0 or [`EXCLUDED`]; none when every score is active.
    bias: Option<Tensor<4>>,
    /// The precisions in use, each with its `[1, heads, queries, keys]` selector of 0 and 1; none when it is the only
    /// one.
    precisions: Vec<(Precision, Option<Tensor<4>>)>,
}

impl ComposedMask {
    /// On `device`, which must be the device of the tensors that it attends with.
    pub(crate) fn new(shape: &AttentionShape, heads: &[HeadMask], device: &Device) -> Self {
        let scores: Vec<Option<Precision>> = heads.iter().flat_map(|mask| expand(shape, mask)).collect();
        let dims = [1, heads.len(), shape.queries as usize, shape.keys as usize];
        let tensor = |value: &dyn Fn(&Option<Precision>) -> f32| {
            Tensor::from_data(TensorData::new(scores.iter().map(value).collect::<Vec<f32>>(), dims), device)
        };
        let used: Vec<Precision> = Precision::ALL.into_iter().filter(|p| scores.contains(&Some(*p))).collect();
        let selector = |p: Precision| tensor(&move |score| if *score == Some(p) { 1.0 } else { 0.0 });
        Self {
            bias: scores.contains(&None).then(|| tensor(&|score| if score.is_some() { 0.0 } else { EXCLUDED })),
            precisions: match used[..] {
                [only] => vec![(only, None)],
                _ => used.into_iter().map(|p| (p, Some(selector(p)))).collect(),
            },
        }
    }

    /// The masks of the first `queries` and `keys` tokens.
    pub(crate) fn first(&self, queries: usize, keys: usize) -> Self {
        self.part(0..queries, keys)
    }

    /// The masks of one query and the first `keys` tokens; they fit any number of queries.
    pub(crate) fn row(&self, query: usize, keys: usize) -> Self {
        self.part(query..query + 1, keys)
    }

    fn part(&self, queries: Range<usize>, keys: usize) -> Self {
        let part = |of: &Tensor<4>| match of.dims() {
            [_, _, all_queries, all_keys] if (0..all_queries, all_keys) == (queries.clone(), keys) => of.clone(),
            [_, heads, _, _] => of.clone().slice([0..1, 0..heads, queries.clone(), 0..keys]),
        };
        Self {
            bias: self.bias.as_ref().map(part),
            precisions: self.precisions.iter().map(|(p, selector)| (*p, selector.as_ref().map(part))).collect(),
        }
    }

    /// Softmax over all active blocks of a row, each block's two products in its own precision. A row whose active blocks hold
    /// nothing but what the context hides gives zeros.
    pub(crate) fn attend(&self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, context: &Context) -> Tensor<4> {
        // Padding must not set the scale of the 8-bit values.
        let (q, k, v) = match self.precisions.iter().any(|(precision, _)| *precision == Precision::Int8) {
            true => (only(q, &context.real_queries), only(k, &context.real_keys), only(v, &context.real_keys)),
            false => (q, k, v),
        };
        let scale = (q.dims()[3] as f32).sqrt().recip();
        let scores = self.sum(|precision| {
            fake_quantise(q.clone(), precision).matmul(fake_quantise(k.clone(), precision).swap_dims(2, 3))
        });
        let scores = scores.mul_scalar(scale); // [batch, heads, queries, keys]
        let scores = [&self.bias, &context.bias].into_iter().flatten().fold(scores, |sum, bias| sum + bias.clone());
        let live =
            context.bias.is_some().then(|| scores.clone().detach().max_dim(3).greater_elem(0.5 * EXCLUDED).float()); // [batch, heads, queries, 1]
        only(self.average(scores, v), &live)
    }

    /// The values weighted by the softmax of the scores.
    fn average(&self, scores: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
        if let [(Precision::Single, _)] = self.precisions[..] {
            return softmax(scores, 3).matmul(v);
        }
        let largest = scores.clone().detach().max_dim(3); // [batch, heads, queries, 1]
        let numerators = (scores - largest).exp();
        let numerators = self.sum(|precision| fake_quantise_numerators(numerators.clone(), precision));
        let products = self.precisions.iter().map(|(precision, selector)| {
            let part = match selector {
                Some(selector) => numerators.clone() * selector.clone(),
                None => numerators.clone(),
            };
            part.matmul(fake_quantise(v.clone(), *precision))
        });
        let product = products.reduce(|sum, part| sum + part).expect("a mask has at least one active block");
        product / numerators.sum_dim(3) // [batch, heads, queries, head_dim]
    }

    /// Each score from the tensor that its precision's `part` gives.
    fn sum(&self, part: impl Fn(Precision) -> Tensor<4>) -> Tensor<4> {
        let parts = self.precisions.iter().map(|(precision, selector)| match selector {
            Some(selector) => part(*precision) * selector.clone(),
            None => part(*precision),
        });
        parts.reduce(|sum, part| sum + part).expect("a mask has at least one active block")
    }
}

/// `x` where `real` is 1, zeros where it is 0.
fn only(x: Tensor<4>, real: &Option<Tensor<4>>) -> Tensor<4> {
    match real {
        Some(real) => x * real.clone(),
        None => x,
    }
}

/// Each score's precision, in row order.
fn expand(shape: &AttentionShape, mask: &HeadMask) -> Vec<Option<Precision>> {
    let size = mask.block_size.tokens();
    let causal = shape.kind == AttentionKind::CausalSelfAttention;
    let score = |query: u32, key: u32| match causal && key > query {
        true => None,
        false => mask.blocks.get((query / size) as usize, (key / size) as usize),
    };
    (0..shape.queries)
        .flat_map(|query| (0..shape.keys).map(move |key| (query, key)))
        .map(|(q, k)| score(q, k))
        .collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;
    use maskwright_blueprint::BlockSize;

    use super::*;

    #[test]
    fn a_row_that_is_left_nothing_but_hidden_keys_gives_zeros() {
        let device = Device::flex();
        let shape = AttentionShape {
            kind: AttentionKind::SelfAttention,
            heads: 1,
            queries: 16,
            keys: 16,
            head_dim: 8,
            windows: 4,
        };
        // As at the edge of a Swin's shifted window: later queries must not see the only keys that the mask leaves them.
        let mask = HeadMask { block_size: BlockSize::B8, blocks: "4.\n4.".parse().unwrap() };
        let bias = Tensor::zeros([1, 1, 16, 16], &device).slice_fill([0..1, 0..1, 8..16, 0..8], EXCLUDED);
        let context = Context { bias: Some(bias), ..Context::default() };
        let [q, k, v] = [(); 3].map(|()| Tensor::random([2, 1, 16, 8], Distribution::Default, &device));
        let attended = ComposedMask::new(&shape, &[mask], &device).attend(q, k, v, &context);
        let largest = |queries| -> f32 { attended.clone().slice_dim(2, queries).abs().max().into_scalar() };
        assert_eq!(largest(8..16), 0.0);
        assert!(largest(0..8) > 0.0);
    }
}
