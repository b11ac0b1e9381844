use crate::Precision;

/// A way to compute the blocks of one block row at their precision or a finer one. Kernels choose one where it is faster, and
/// prices take the cheapest (`docs/decisions/207`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPromotion {
    /// What all blocks of each of [`Precision::ALL`] become first.
    all: [Precision; 3],
    /// Then, the last block of the first precision becomes one of the second.
    last: Option<(Precision, Precision)>,
}

impl RowPromotion {
    /// Every block as it is.
    pub const NONE: Self = Self { all: Precision::ALL, last: None };

    /// Every way that can be the cheapest where a coarse block costs no more than a finer one: whole precisions first, then with
    /// one block more.
    ///
    /// One block alone pays where two share a vector, so that an odd one leaves half of it empty. More pay less: two that are
    /// moved to the same precision fill a vector there for the one that they leave, and where two would be moved to two precisions,
    /// each with an odd block, those could join instead.
    const ALL: [Self; 14] = {
        use Precision::{Half, Int8, Single};
        const fn whole(all: [Precision; 3]) -> RowPromotion {
            RowPromotion { all, last: None }
        }
        const fn with(all: [Precision; 3], from: Precision, to: Precision) -> RowPromotion {
            RowPromotion { all, last: Some((from, to)) }
        }
        [
            Self::NONE,
            whole([Half, Half, Single]),
            whole([Int8, Single, Single]),
            whole([Single, Half, Single]),
            whole([Half, Single, Single]),
            whole([Single, Single, Single]),
            with([Int8, Half, Single], Int8, Half),
            with([Int8, Half, Single], Int8, Single),
            with([Int8, Half, Single], Half, Single),
            with([Int8, Single, Single], Int8, Half),
            with([Int8, Single, Single], Int8, Single),
            with([Half, Half, Single], Half, Single),
            with([Single, Half, Single], Half, Single),
            with([Half, Single, Single], Half, Single),
        ]
    };

    /// How many of them, from the first on, move whole precisions.
    const WHOLE: usize = 6;

    /// Every way that can be the cheapest where so many blocks share a vector.
    pub fn ways(of_vector: u32) -> &'static [Self] {
        const ALL: &[RowPromotion] = &RowPromotion::ALL;
        if of_vector > 1 { ALL } else { &ALL[..RowPromotion::WHOLE] }
    }

    /// What a row with so many `blocks` of each of [`Precision::ALL`] has then; none where there is no block to be moved. Where whole
    /// precisions are moved, the numbers may be of keys as well.
    pub fn blocks(&self, blocks: [u32; 3]) -> Option<[u32; 3]> {
        let mut moved = [0; 3];
        for (blocks, to) in blocks.into_iter().zip(self.all) {
            moved[to.index()] += blocks;
        }
        if let Some((from, to)) = self.last {
            moved[from.index()] = moved[from.index()].checked_sub(1)?;
            moved[to.index()] += 1;
        }
        Some(moved)
    }

    /// Moves the blocks of one row, `None` where there is none.
    pub fn apply(&self, row: &mut [Option<Precision>]) {
        for block in row.iter_mut().flatten() {
            *block = self.all[block.index()];
        }
        if let Some((from, to)) = self.last
            && let Some(block) = row.iter_mut().rev().flatten().find(|block| **block == from)
        {
            *block = to;
        }
    }

    /// Whether 8-bit blocks stay what they are.
    pub fn keeps_int8(&self) -> bool {
        self.all[0] == Precision::Int8 && self.last.is_none_or(|(from, _)| from != Precision::Int8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(row: &[Option<Precision>]) -> [u32; 3] {
        Precision::ALL.map(|precision| row.iter().filter(|block| **block == Some(precision)).count() as u32)
    }

    #[test]
    fn rows_and_counts_are_moved_alike_and_nothing_becomes_coarser() {
        // Every row of four places.
        for code in 0..4_usize.pow(4) {
            let row = [0, 1, 2, 3].map(|at| Precision::ALL.get(code / 4_usize.pow(at) % 4).copied());
            for way in RowPromotion::ALL {
                let Some(blocks) = way.blocks(count(&row)) else { continue };
                let mut moved = row;
                way.apply(&mut moved);
                assert_eq!(count(&moved), blocks, "{way:?} {row:?}");
                assert!(
                    row.iter()
                        .zip(&moved)
                        .all(|(before, after)| before <= after && before.is_some() == after.is_some())
                );
                assert!(!way.keeps_int8() || blocks[0] == count(&row)[0], "{way:?} {row:?}");
            }
        }
    }

    #[test]
    fn the_last_block_moves_alone() {
        use Precision::{Half, Int8, Single};
        let mut row = [Some(Int8), None, Some(Int8), Some(Single), Some(Half)];
        let one = RowPromotion { all: Precision::ALL, last: Some((Int8, Half)) };
        one.apply(&mut row);
        assert_eq!(row, [Some(Int8), None, Some(Half), Some(Single), Some(Half)]);
        assert_eq!(one.blocks([0, 3, 1]), None);
    }

    #[test]
    fn ways_of_whole_precisions_come_first() {
        let whole = RowPromotion::ALL.map(|way| way.last.is_none());
        assert_eq!(whole.iter().position(|whole| !whole), Some(RowPromotion::WHOLE));
        assert!(whole[RowPromotion::WHOLE..].iter().all(|whole| !whole));
        assert_eq!(RowPromotion::ALL[0], RowPromotion::NONE);
    }
}
