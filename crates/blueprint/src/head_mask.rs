use serde::{Deserialize, Serialize};

use crate::{AttentionKind, AttentionShape, BlockMask, BlockSize, MaskError, Precision};

/// One head's mask together with the size of its blocks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadMask {
    pub block_size: BlockSize,
    pub blocks: BlockMask,
}

impl HeadMask {
    /// Every block active at one precision, for a head of `shape`.
    pub fn dense(shape: &AttentionShape, block_size: BlockSize, precision: Precision) -> Self {
        let (rows, columns) = (block_size.cover(shape.queries) as usize, block_size.cover(shape.keys) as usize);
        Self { block_size, blocks: BlockMask::dense(rows, columns, precision) }
    }

    /// Whether this mask fits a head of `shape`: the grid covers it, and for self-attention each row keeps a block at
    /// or left of the diagonal.
    pub fn check(&self, shape: &AttentionShape) -> Result<(), MaskError> {
        let (rows, columns) = (self.block_size.cover(shape.queries), self.block_size.cover(shape.keys));
        if (self.blocks.rows(), self.blocks.columns()) != (rows as usize, columns as usize) {
            return Err(MaskError::Shape {
                found_rows: self.blocks.rows(),
                found_columns: self.blocks.columns(),
                block_size: self.block_size.tokens(),
                queries: shape.queries,
                keys: shape.keys,
                rows,
                columns,
            });
        }
        match shape.kind {
            AttentionKind::SelfAttention | AttentionKind::CausalSelfAttention => self.blocks.keeps_the_past(),
            AttentionKind::CrossAttention => Ok(()),
        }
    }

    /// Scores that are computed, ragged edges counted exactly.
    pub fn active_scores(&self, shape: &AttentionShape) -> u64 {
        let size = self.block_size;
        self.blocks
            .active()
            .map(|(row, column, _)| {
                u64::from(size.extent(row as u32, shape.queries)) * u64::from(size.extent(column as u32, shape.keys))
            })
            .sum()
    }
}
