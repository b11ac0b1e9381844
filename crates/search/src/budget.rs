use maskwright_blueprint::{BlockSize, HeadMask, ModelShape, Precision};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Candidate, Space, candidate::keepers};

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
    /// What one block of a head uses of the budget.
    fn of_block(
        self,
        size: BlockSize,
        precision: Precision,
        row: usize,
        column: usize,
        shape: &ModelShape,
        module: usize,
    ) -> f64 {
        let of = &shape.modules[module].shape;
        let scores = f64::from(size.extent(row as u32, of.queries)) * f64::from(size.extent(column as u32, of.keys));
        match self {
            Self::Density(_) => f64::from(of.windows) * scores / shape.scores() as f64,
            Self::Blocks(_) => 1.0,
            Self::Bytes(_) => scores * f64::from(precision.bytes()),
        }
    }

    /// What one head's mask uses of the budget.
    pub(crate) fn used_by(self, mask: &HeadMask, shape: &ModelShape, module: usize) -> f64 {
        let block = |(row, column, precision)| self.of_block(mask.block_size, precision, row, column, shape, module);
        mask.blocks.active().map(block).sum()
    }

    /// What all of a candidate's masks use.
    pub(crate) fn used(self, candidate: &Candidate, shape: &ModelShape) -> f64 {
        shape
            .heads()
            .zip(candidate.masks())
            .map(|((head, _), mask)| self.used_by(mask, shape, head.module as usize))
            .sum()
    }

    /// What the sparsest masks of a space use: one block a row for each head, the cheapest that the row may keep, at the
    /// block size and precision that use least.
    pub(crate) fn least(self, shape: &ModelShape, space: &Space) -> f64 {
        let precision = space.precisions[0];
        let head = |module: usize| {
            let of = &shape.modules[module].shape;
            let at_size = |size: &BlockSize| {
                let columns = size.cover(of.keys) as usize;
                let row = |row: usize| {
                    let block = |column: usize| self.of_block(*size, precision, row, column, shape, module);
                    (0..keepers(of, row, columns)).map(block).fold(f64::INFINITY, f64::min)
                };
                (0..size.cover(of.queries) as usize).map(row).sum::<f64>()
            };
            space.block_sizes.iter().map(at_size).fold(f64::INFINITY, f64::min)
        };
        shape.heads().map(|(id, _)| head(id.module as usize)).sum()
    }

    /// The wall itself, with room for rounding.
    pub(crate) fn limit(self) -> f64 {
        match self {
            Self::Density(share) => share + 1e-9,
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
