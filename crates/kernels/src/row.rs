use std::ops::Range;

use maskwright_blueprint::{AttentionShape, HeadMask, Precision, RowPromotion};

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
    /// How many of them the mask has at a coarser precision.
    pub promoted: usize,
}

/// The rows of all heads in order, and the columns of their active blocks sorted by precision, so that a chunk of
/// a row changes its arithmetic at most twice. Blocks that causality empties are left out.
pub(crate) fn rows(
    masks: &[HeadMask],
    shape: &AttentionShape,
    promoted: impl Fn(&HeadMask) -> Vec<RowPromotion>,
) -> (Vec<Row>, Vec<u32>) {
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    for (head, mask) in masks.iter().enumerate() {
        let promoted = promoted(mask);
        let block_size = mask.block_size.tokens() as usize;
        for (row, promoted) in promoted.iter().enumerate() {
            let masked = &mask.blocks.row(row)[..shape.kind.columns_of(row, mask.blocks.columns())];
            let mut cells = masked.to_vec();
            promoted.apply(&mut cells);
            let blocks = Precision::ALL.map(|precision| {
                let start = columns.len();
                let of_precision = cells.iter().enumerate();
                let of_precision = of_precision.filter(|(_, cell)| **cell == Some(precision));
                columns.extend(of_precision.map(|(at, _)| at as u32));
                start..columns.len()
            });
            let first = row * block_size;
            let queries = first..(first + block_size).min(shape.queries as usize);
            let promoted = cells.iter().zip(masked).filter(|(computed, masked)| computed != masked).count();
            rows.push(Row { head, block_size, queries, blocks, promoted });
        }
    }
    (rows, columns)
}

/// Neighbouring rows of one head, of about equal work: at least one band a head, and enough that none is much more than
/// one of `count` equal parts of everything.
pub(crate) fn bands(rows: &[Row], count: usize) -> Vec<Range<usize>> {
    let total: u128 = rows.iter().map(Row::work).sum();
    let mut bands = Vec::new();
    let mut start = 0;
    for of_head in rows.chunk_by(|a, b| a.head == b.head) {
        let work: u128 = of_head.iter().map(Row::work).sum();
        let pieces = (work * count as u128).div_ceil(total.max(1));
        let (mut done, mut ended) = (0, 0);
        let end = start + of_head.len();
        for (at, row) in (start..end).zip(of_head) {
            done += row.work();
            // A band ends when its share of the head is reached.
            if done * pieces >= work * (ended + 1) || at + 1 == end {
                bands.push(start..at + 1);
                (start, ended) = (at + 1, done * pieces / work.max(1));
            }
        }
    }
    bands
}

/// As many runs of neighbouring bands as there are threads, of about equal work.
pub(crate) fn shares(rows: &[Row], bands: &[Range<usize>], threads: usize) -> Vec<Range<usize>> {
    let work = |band: &Range<usize>| rows[band.clone()].iter().map(Row::work).sum::<u128>();
    let mut total = 0;
    let mut before = Vec::with_capacity(bands.len());
    for band in bands {
        before.push(total);
        total += work(band);
    }
    let start = |thread: usize| before.partition_point(|done| done * (threads as u128) < total * thread as u128);
    (0..threads).map(|thread| start(thread)..start(thread + 1)).collect()
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
    use maskwright_blueprint::AttentionKind;

    use super::*;

    fn head(text: &str, kind: AttentionKind, tokens: u32) -> (Vec<Row>, Vec<u32>) {
        let shape = AttentionShape { kind, heads: 1, queries: tokens, keys: tokens, head_dim: 8, windows: 1 };
        let block_size = maskwright_blueprint::BlockSize::B8;
        rows(&[HeadMask { block_size, blocks: text.parse().unwrap() }], &shape, |mask| {
            vec![RowPromotion::NONE; mask.blocks.rows()]
        })
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
    fn a_block_that_moves_alone_is_the_last_of_its_precision() {
        let shape = AttentionShape {
            kind: AttentionKind::CrossAttention,
            heads: 1,
            queries: 8,
            keys: 37,
            head_dim: 8,
            windows: 1,
        };
        let mask = HeadMask { block_size: maskwright_blueprint::BlockSize::B8, blocks: "12141".parse().unwrap() };
        let moved = |way: RowPromotion| rows(std::slice::from_ref(&mask), &shape, |_| vec![way]);
        let to_16_bit = |way: &RowPromotion| way.blocks([3, 1, 1]) == Some([2, 2, 1]);
        let (rows, columns) = moved(*RowPromotion::ways(2).iter().find(|way| to_16_bit(way)).unwrap());
        assert_eq!((&columns[..], &rows[0].blocks), (&[0, 2, 1, 4, 3][..], &[0..2, 2..4, 4..5]));
        assert_eq!(rows[0].promoted, 1);
        assert_eq!(moved(RowPromotion::NONE).1, [0, 2, 4, 1, 3]);
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
        assert_eq!(bands(&of_one, 2), [0..4, 4..5]);
        // The same with the long row in 8 bit, which is worth one block: 1, 1, 1, 1, 1.
        let (of_one, _) = head("4....\n.4...\n..4..\n...4.\n1111.", AttentionKind::SelfAttention, 40);
        assert_eq!(bands(&of_one, 2), [0..3, 3..5]);
    }

    #[test]
    fn bands_cover_every_row_once_and_no_two_heads() {
        let shape = AttentionShape {
            kind: AttentionKind::SelfAttention,
            heads: 2,
            queries: 24,
            keys: 24,
            head_dim: 8,
            windows: 1,
        };
        let block_size = maskwright_blueprint::BlockSize::B8;
        // Work in 8-bit blocks: 4, 4, 12 and 1, 1, 1.
        let masks =
            ["4..\n.4.\n444", "1..\n.1.\n..1"].map(|text| HeadMask { block_size, blocks: text.parse().unwrap() });
        let (of_two, _) = rows(&masks, &shape, |mask| vec![RowPromotion::NONE; mask.blocks.rows()]);
        for count in 1..8 {
            let bands = bands(&of_two, count);
            assert!(bands.iter().all(|band| of_two[band.start].head == of_two[band.end - 1].head), "{count}");
            assert_eq!(bands.iter().cloned().flatten().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5], "{count}");
            for threads in 1..8 {
                let shares = shares(&of_two, &bands, threads);
                assert_eq!(shares.len(), threads);
                assert_eq!(shares.into_iter().flatten().collect::<Vec<_>>(), (0..bands.len()).collect::<Vec<_>>());
            }
        }
        let bands = bands(&of_two, 4);
        assert_eq!(bands, [0..2, 2..3, 3..6]); // 8, 12, 3
        assert_eq!(shares(&of_two, &bands, 2), [0..2, 2..3]);
    }
}
