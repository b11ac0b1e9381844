use serde::{Deserialize, Serialize};

use crate::{AttentionShape, Digest, HeadId};

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
        self.modules.iter().map(|module| u64::from(module.shape.heads) * module.shape.scores()).sum()
    }
}
