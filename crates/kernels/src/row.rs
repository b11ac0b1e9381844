use std::ops::Range;

use maskwright_blueprint::{AttentionKind, AttentionShape, HeadMask, Precision};

/// One query block of one head and the key blocks that it attends to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub head: usize,
    /// Tokens of one block.
    pub block_size: usize,
    /// Query tokens of this row; the last row of a head may hold fewer than `block_size`.
    pub queries: Range<usize>,
    /// For each of [`Precision::ALL`], where its key blocks stand in the plan's list, left to right.
    pub blocks: [Range<usize>; 3],
}

/// Neighbouring rows that one thread computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Band {
    pub rows: Range<usize>,
    /// Query tokens of all those rows.
    pub queries: usize,
}

/// The rows of all heads in order, and the columns of their active blocks sorted by precision, so that a row changes
/// its arithmetic at most twice. Blocks that causality empties are left out.
pub(crate) fn rows(masks: &[HeadMask], shape: &AttentionShape) -> (Vec<Row>, Vec<u32>) {
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    for (head, mask) in masks.iter().enumerate() {
        let block_size = mask.block_size.tokens() as usize;
        for row in 0..mask.blocks.rows() {
            let end = match shape.kind {
                AttentionKind::CausalSelfAttention => row + 1,
                AttentionKind::SelfAttention | AttentionKind::CrossAttention => mask.blocks.columns(),
            };
            let blocks = Precision::ALL.map(|precision| {
                let start = columns.len();
                let of_precision = mask.blocks.row(row)[..end].iter().enumerate();
                columns.extend(of_precision.filter(|(_, cell)| **cell == Some(precision)).map(|(at, _)| at as u32));
                start..columns.len()
            });
            let first = row * block_size;
            let queries = first..(first + block_size).min(shape.queries as usize);
            rows.push(Row { head, block_size, queries, blocks });
        }
    }
    (rows, columns)
}

/// At most `count` bands of about equal work: a band ends when its share of the whole is reached.
pub(crate) fn bands(rows: &[Row], count: usize) -> Vec<Band> {
    let total: u128 = rows.iter().map(Row::work).sum();
    let mut bands: Vec<Band> = Vec::with_capacity(count);
    let (mut start, mut queries, mut done) = (0, 0, 0);
    for (at, row) in rows.iter().enumerate() {
        queries += row.queries.len();
        done += row.work();
        if done * count as u128 >= total * (bands.len() as u128 + 1) {
            bands.push(Band { rows: start..at + 1, queries });
            (start, queries) = (at + 1, 0);
        }
    }
    bands
}

impl Row {
    /// Keys of the 8-bit blocks, ragged ones counted whole.
    pub(crate) fn int8_keys(&self) -> usize {
        self.blocks[Precision::Int8.index()].len() * self.block_size
    }

    /// Scores, each weighted by the bytes of its operands: on CPUs with the instructions, an 8-bit product takes a
    /// quarter of the time of a 32-bit one.
    fn work(&self) -> u128 {
        let blocks = Precision::ALL.iter().map(|p| self.blocks[p.index()].len() as u128 * u128::from(p.bytes()));
        (self.queries.len() * self.block_size) as u128 * blocks.sum::<u128>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str, kind: AttentionKind, tokens: u32) -> (Vec<Row>, Vec<u32>) {
        let shape = AttentionShape { kind, heads: 1, queries: tokens, keys: tokens, head_dim: 8 };
        let block_size = maskwright_blueprint::BlockSize::B8;
        rows(&[HeadMask { block_size, blocks: text.parse().unwrap() }], &shape)
    }

    #[test]
    fn a_row_lists_its_blocks_from_coarse_to_fine_and_left_to_right() {
        let (rows, columns) = head("4121.\n.4...\n..1..\n...2.\n4...4", AttentionKind::CrossAttention, 37);
        assert_eq!(columns[..4], [1, 3, 2, 0]); // 8 bit, 8 bit, 16 bit, 32 bit
        assert_eq!(rows[0].blocks, [0..2, 2..3, 3..4]);
        assert_eq!(rows[4].queries, 32..37);
        assert_eq!(rows.iter().map(Row::int8_keys).collect::<Vec<_>>(), [16, 0, 8, 0, 0]);
    }

    #[test]
    fn blocks_above_a_causal_diagonal_are_left_out() {
        let (_, columns) = head("444\n444\n444", AttentionKind::CausalSelfAttention, 24);
        assert_eq!(columns, [0, 0, 1, 0, 1, 2]);
    }

    #[test]
    fn bands_share_work_and_not_rows() {
        // Work in blocks of single precision: 1, 1, 1, 1, 4.
        let (of_one, _) = head("4....\n.4...\n..4..\n...4.\n4444.", AttentionKind::SelfAttention, 40);
        let parts: Vec<_> = bands(&of_one, 2).into_iter().map(|band| (band.rows, band.queries)).collect();
        assert_eq!(parts, [(0..4, 32), (4..5, 8)]);
        // The same with the long row in 8 bit, which is worth one block: 1, 1, 1, 1, 1.
        let (of_one, _) = head("4....\n.4...\n..4..\n...4.\n1111.", AttentionKind::SelfAttention, 40);
        let parts: Vec<_> = bands(&of_one, 2).into_iter().map(|band| band.rows).collect();
        assert_eq!(parts, [0..3, 3..5]);
    }

    #[test]
    fn bands_cover_every_row_once_however_many_there_are() {
        let (of_one, _) = head("4....\n.4...\n..4..\n...4.\n1111.", AttentionKind::SelfAttention, 40);
        for count in 1..8 {
            let bands = bands(&of_one, count);
            assert!(bands.len() <= count);
            let covered: Vec<usize> = bands.into_iter().flat_map(|band| band.rows).collect();
            assert_eq!(covered, [0, 1, 2, 3, 4], "{count} bands");
        }
    }
}
