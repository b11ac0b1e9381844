use serde::{Deserialize, Serialize};

use crate::{AttentionKind, AttentionShape, BlueprintError, Digest, HeadId};

/// Counts above this are not exact in an `f64`, and their products leave 64 bits. GPT-3 at 2,048 tokens takes 4e14.
const MOST_WORK: u128 = 1 << 53;

/// The model that a blueprint fits: its identity, its attention modules, and what else it computes.
///
/// Counts are for one example (batch 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelShape {
    /// For people; the digest decides.
    pub name: String,
    /// Of architecture and weights.
    pub digest: Digest,
    /// Attention modules in the order in which the model computes them.
    pub modules: Vec<ModuleShape>,
    /// Matrix products outside `Q K^T` and `P V`: projections, feed-forward, embedding, classifier.
    pub linears: Vec<Linear>,
    /// Elements that pass through vector operations outside attention: normalisations, activations, residuals.
    pub elementwise: u64,
}

/// One attention module by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleShape {
    /// Path in the model: `block.0.attention`.
    pub name: String,
    pub shape: AttentionShape,
}

/// A matrix product `[rows, inputs] x [inputs, outputs]` with stored weights, done `count` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    pub rows: u32,
    pub inputs: u32,
    pub outputs: u32,
    pub count: u32,
}

impl Linear {
    /// Multiply-accumulates of all `count` products.
    pub const fn macs(&self) -> u64 {
        self.rows as u64 * self.inputs as u64 * self.outputs as u64 * self.count as u64
    }

    /// Weights of all `count` products, in elements.
    pub const fn weights(&self) -> u64 {
        self.inputs as u64 * self.outputs as u64 * self.count as u64
    }
}

impl ModelShape {
    /// Every head of every module, in order, with its module's shape.
    pub fn heads(&self) -> impl Iterator<Item = (HeadId, &AttentionShape)> + '_ {
        self.modules.iter().enumerate().flat_map(|(module, ModuleShape { shape, .. })| {
            (0..shape.heads).map(move |head| (HeadId { module: module as u32, head }, shape))
        })
    }

    /// Scores of all heads when nothing is skipped.
    pub fn scores(&self) -> u64 {
        let of = |shape: &AttentionShape| u64::from(shape.heads) * u64::from(shape.windows) * shape.scores();
        self.modules.iter().map(|module| of(&module.shape)).sum()
    }

    /// Whether this is a model that blueprints can be made for, with counts that later sums cannot overflow.
    pub(crate) fn check(&self) -> Result<(), BlueprintError> {
        if self.modules.is_empty() {
            return Err(BlueprintError::NoModules);
        }
        let mut work = u128::from(self.elementwise);
        for (module, ModuleShape { shape, .. }) in self.modules.iter().enumerate() {
            let AttentionShape { kind, heads, queries, keys, head_dim, windows } = *shape;
            if [heads, queries, keys, head_dim, windows].contains(&0) {
                return Err(BlueprintError::Zero { module, heads, queries, keys, head_dim, windows });
            }
            if kind != AttentionKind::CrossAttention && queries != keys {
                return Err(BlueprintError::Tokens { module, queries, keys });
            }
            work =
                work.saturating_add(product([heads, queries, keys, head_dim]).saturating_mul(2 * u128::from(windows)));
        }
        for linear in &self.linears {
            // A zero must not hide a large product of the other three, which `Linear::weights` forms.
            let factors = [linear.rows, linear.inputs, linear.outputs, linear.count].map(|factor| factor.max(1));
            work = work.saturating_add(product(factors));
        }
        if work > MOST_WORK { Err(BlueprintError::TooMuchWork) } else { Ok(()) }
    }
}

fn product(factors: [u32; 4]) -> u128 {
    factors.into_iter().map(u128::from).product()
}
