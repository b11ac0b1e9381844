use maskwright_blueprint::{BlockMask, BlockSize, HeadMask, ModelShape, Precision};
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

    /// The sparsest masks of a space, at the coarsest precision and the block size that uses least: in each row of each head
    /// the cheapest block that it may keep, of equals the one with the highest `value` (of a head, size and block).
    pub(crate) fn sparsest(
        self,
        shape: &ModelShape,
        space: &Space,
        value: impl Fn(usize, BlockSize, usize) -> f64,
    ) -> Candidate {
        let precision = space.precisions[0];
        let modules: Vec<usize> = shape.heads().map(|(id, _)| id.module as usize).collect();
        Candidate::from_fn(shape, |head, of| {
            let module = modules[head];
            let at_size = |&size: &BlockSize| {
                let columns = size.cover(of.keys) as usize;
                let mut cells = vec![None; size.cover(of.queries) as usize * columns];
                for (row, cells) in cells.chunks_mut(columns).enumerate() {
                    let cost = |column: &usize| self.of_block(size, precision, row, *column, shape, module);
                    let value = |column: &usize| value(head, size, row * columns + column);
                    let order = |a: &usize, b: &usize| cost(a).total_cmp(&cost(b)).then(value(b).total_cmp(&value(a)));
                    let kept = (0..keepers(of, row, columns)).min_by(order).expect("a row has blocks");
                    cells[kept] = Some(precision);
                }
                let blocks = BlockMask::new(columns, cells).expect("every row was just given a block");
                HeadMask { block_size: size, blocks }
            };
            let used = |mask: &HeadMask| self.used_by(mask, shape, module);
            let masks = space.block_sizes.iter().map(at_size);
            masks.min_by(|a, b| used(a).total_cmp(&used(b))).expect("the space has a block size")
        })
    }

    /// What the sparsest masks of a space use.
    pub(crate) fn least(self, shape: &ModelShape, space: &Space) -> f64 {
        self.used(&self.sparsest(shape, space, |_, _, _| 0.0), shape)
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
