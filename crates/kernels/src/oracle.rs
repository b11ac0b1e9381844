//! Attention as it is defined, in double precision and without any cleverness: what every kernel is compared with.

use maskwright_blueprint::{AttentionKind, AttentionShape, HeadMask};

use crate::{Inputs, KernelError, check_masks};

/// `softmax(q k^T / sqrt(head_dim)) v` for every head, the softmax taken over exactly the keys that are in an active
/// block of the query's row, live, and (under a causal mask) not later than the query. A query without such a key gets
/// zeros. Precisions in `masks` play no part: this is what each of them approximates.
///
/// Result: `[heads, queries, head_dim]`. Takes time proportional to active scores, and no care.
///
/// ```
/// # use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, HeadMask, Precision};
/// # use maskwright_kernels::{Inputs, oracle};
/// let shape = AttentionShape { kind: AttentionKind::SelfAttention, heads: 1, queries: 2, keys: 2, head_dim: 8, windows: 1 };
/// let mask = HeadMask::dense(&shape, BlockSize::B8, Precision::Single);
/// let (q, k) = ([0.0; 16], [1.0; 16]); // equal scores: the mean of the values
/// let v: Vec<f32> = [[1.0; 8], [4.0; 8]].concat();
/// assert_eq!(oracle::attend(&[mask], &shape, Inputs::new(&q, &k, &v))?, vec![2.5; 16]);
/// # Ok::<(), maskwright_kernels::KernelError>(())
/// ```
pub fn attend(masks: &[HeadMask], shape: &AttentionShape, inputs: Inputs<'_>) -> Result<Vec<f64>, KernelError> {
    check_masks(masks, shape)?;
    let live_keys = inputs.check(shape)?;
    let (queries, keys, d) = (shape.queries as usize, shape.keys as usize, shape.head_dim as usize);
    let mut out = Vec::with_capacity(inputs.q.len());
    for (head, mask) in masks.iter().enumerate() {
        let k = &inputs.k[head * keys * d..][..keys * d];
        let v = &inputs.v[head * keys * d..][..keys * d];
        for (query, q) in inputs.q[head * queries * d..][..queries * d].chunks_exact(d).enumerate() {
            let seen: Vec<usize> = seen_keys(mask, shape, query).filter(|&key| key < live_keys).collect();
            let scores: Vec<f64> = seen.iter().map(|&key| dot(q, &k[key * d..][..d]) / (d as f64).sqrt()).collect();
            let weights = softmax(&scores);
            out.extend((0..d).map(|at| {
                seen.iter().zip(&weights).map(|(&key, weight)| weight * f64::from(v[key * d + at])).sum::<f64>()
            }));
        }
    }
    Ok(out)
}

/// Keys that `query` may attend to, in order.
fn seen_keys<'a>(mask: &'a HeadMask, shape: &'a AttentionShape, query: usize) -> impl Iterator<Item = usize> + 'a {
    let size = mask.block_size.tokens() as usize;
    let end = match shape.kind {
        AttentionKind::CausalSelfAttention => query + 1,
        AttentionKind::SelfAttention | AttentionKind::CrossAttention => shape.keys as usize,
    };
    (0..end).filter(move |key| mask.blocks.get(query / size, key / size).is_some())
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Shares that sum to one; empty for no scores.
fn softmax(scores: &[f64]) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|exp| exp / sum).collect()
}
