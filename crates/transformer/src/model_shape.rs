use std::fmt::Debug;

use burn::module::Module;
use maskwright_blueprint::{AttentionKind, AttentionShape, Digest, Linear};

use crate::weights_digest;

/// A model's identity: its configuration and its weights.
pub(crate) fn model_digest(config: &impl Debug, model: &impl Module) -> Digest {
    Digest::of([format!("{config:?}"), weights_digest(model).to_string()])
}

/// `count` products of `[rows, inputs]` with weights `[inputs, outputs]`.
pub(crate) fn product(rows: u32, inputs: u32, outputs: u32, count: u32) -> Linear {
    Linear { rows, inputs, outputs, count }
}

/// Self-attention of every token to every token, `width` split among the heads.
pub(crate) fn self_attention(heads: u32, tokens: u32, width: u32) -> AttentionShape {
    AttentionShape {
        kind: AttentionKind::SelfAttention,
        heads,
        queries: tokens,
        keys: tokens,
        head_dim: width / heads,
        windows: 1,
    }
}
