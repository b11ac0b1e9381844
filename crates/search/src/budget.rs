use maskwright_blueprint::{BlockSize, HeadMask, ModelShape};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Candidate;

/// A wall that no candidate passes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Budget {
    /// Share of all scores, in (0, 1].
    Density(f64),
    /// Active blocks of all heads.
    Blocks(u64),
    /// Bytes of all active scores in their precision: what scores need on chip.
    Bytes(u64),
}

impl Budget {
    /// What one head's mask uses of the budget.
    pub(crate) fn used_by(self, mask: &HeadMask, shape: &ModelShape, module: usize) -> f64 {
        let of = &shape.modules[module].shape;
        let scores = |row: usize, column: usize| {
            let size: BlockSize = mask.block_size;
            f64::from(size.extent(row as u32, of.queries)) * f64::from(size.extent(column as u32, of.keys))
        };
        match self {
            Self::Density(_) => mask.active_scores(of) as f64 / shape.scores() as f64,
            Self::Blocks(_) => mask.blocks.active().count() as f64,
            Self::Bytes(_) => mask.blocks.active().map(|(r, c, p)| scores(r, c) * f64::from(p.bytes())).sum(),
        }
    }

    /// What all of a candidate's masks use.
    pub(crate) fn used(self, candidate: &Candidate, shape: &ModelShape) -> f64 {
        shape
            .heads()
            .zip(candidate.masks())
            .map(|((head, _), mask)| self.used_by(mask, shape, head.module as usize))
            .sum()
    }

    /// The wall itself, with room for rounding.
    pub(crate) fn limit(self) -> f64 {
        match self {
            Self::Density(share) => share + 1e-12,
            Self::Blocks(blocks) => blocks as f64,
            Self::Bytes(bytes) => bytes as f64,
        }
    }

    pub(crate) fn check(self) -> Result<(), String> {
        match self {
            Self::Density(share) if !(share > 0.0 && share <= 1.0) => {
                Err(format!("`budget: Density` lies in (0, 1], not at {share}"))
            }
            Self::Blocks(0) | Self::Bytes(0) => Err("`budget` is at least 1".into()),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Density(share) => write!(f, "density {share}"),
            Self::Blocks(blocks) => write!(f, "{blocks} blocks"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes of scores"),
        }
    }
}
