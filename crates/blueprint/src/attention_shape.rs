use std::fmt;

use serde::{Deserialize, Serialize};

/// What an attention module's keys are, which decides what each row of its masks must keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AttentionKind {
    /// Queries and keys are the same tokens; every token may attend to every other.
    SelfAttention,
    /// Self-attention in which no token attends to a later one.
    CausalSelfAttention,
    /// Keys come from another sequence.
    CrossAttention,
}

/// Size of one attention module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionShape {
    pub kind: AttentionKind,
    /// Heads of this module.
    pub heads: u32,
    /// Query tokens.
    pub queries: u32,
    /// Key tokens; equal to `queries` for self-attention.
    pub keys: u32,
    /// Width of one head's queries, keys and values.
    pub head_dim: u32,
    /// How often one example passes through the module, each time with tokens of its own under the same masks: windows
    /// of a Swin. Left out of files where it is 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub windows: u32,
}

impl AttentionKind {
    /// Of so many block `columns`, counted from the left, those that block row `row` computes anything of: up to the diagonal's where
    /// no token attends to a later one. What a mask has in others is neither computed nor paid for.
    pub fn columns_of(self, row: usize, columns: usize) -> usize {
        match self {
            Self::CausalSelfAttention => columns.min(row + 1),
            Self::SelfAttention | Self::CrossAttention => columns,
        }
    }
}

impl AttentionShape {
    /// Scores of one head in one window: `queries * keys`.
    pub const fn scores(&self) -> u64 {
        self.queries as u64 * self.keys as u64
    }
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_one(windows: &u32) -> bool {
    *windows == 1
}

/// One head of one attention module, both counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadId {
    pub module: u32,
    pub head: u32,
}

impl fmt::Display for HeadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "module {} head {}", self.module, self.head)
    }
}
