use maskwright_blueprint::{BlockSize, HeadMask, Precision};
use rand::{Rng, RngExt};

use crate::{
    Space,
    candidate::repaired,
    guide::{HeadGuide, SizeGuide},
};

/// What may happen to one head's mask in one step: the source's "moving a mask window" (HB-BSSA 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edit {
    Keep,
    /// The best skipped blocks become active: one in 24 of all blocks, or one in 6.
    GrowLittle,
    GrowMuch,
    /// The worst active blocks are skipped.
    ShrinkLittle,
    ShrinkMuch,
    /// The worst active block for the best skipped one.
    Swap,
    /// The mask carried over to another block size.
    Resize(BlockSize),
    /// Blocks of little variance get this precision, the others the next finer one (HB-BSSA 3.4).
    Requantise(Precision),
    /// A few blocks by chance change between skipped and active.
    Flip,
}

impl Edit {
    /// Every edit, in the order of a policy's outputs.
    pub(crate) const ALL: [Self; 13] = [
        Self::Keep,
        Self::GrowLittle,
        Self::GrowMuch,
        Self::ShrinkLittle,
        Self::ShrinkMuch,
        Self::Swap,
        Self::Resize(BlockSize::B8),
        Self::Resize(BlockSize::B16),
        Self::Resize(BlockSize::B32),
        Self::Requantise(Precision::Int8),
        Self::Requantise(Precision::Half),
        Self::Requantise(Precision::Single),
        Self::Flip,
    ];

    /// Whether the space allows it at all.
    pub(crate) fn is_legal(self, space: &Space) -> bool {
        match self {
            Self::Resize(size) => space.block_sizes.contains(&size),
            Self::Requantise(precision) => space.precisions.contains(&precision),
            _ => true,
        }
    }

    /// Whether the result depends on how blocks are ranked.
    pub(crate) fn ranks_blocks(self) -> bool {
        !matches!(self, Self::Keep | Self::Requantise(_))
    }

    /// The edited mask. `value` ranks the blocks of a size; the same arguments and draws give the same mask.
    pub(crate) fn apply(
        self,
        mask: &HeadMask,
        head: &HeadGuide,
        space: &Space,
        value: &dyn Fn(&SizeGuide, usize) -> f64,
        generator: &mut impl Rng,
    ) -> HeadMask {
        let guide = head.at(mask.block_size);
        let mut cells = mask.blocks.cells().to_vec();
        let of_value = |block: usize| value(guide, block);
        let part = |one_in: usize| cells.len().div_ceil(one_in);
        let (little, much) = (part(24), part(6));
        match self {
            Self::Keep => return mask.clone(),
            Self::GrowLittle => grow(&mut cells, little, of_value, commonest(mask)),
            Self::GrowMuch => grow(&mut cells, much, of_value, commonest(mask)),
            Self::ShrinkLittle => shrink(&mut cells, little, of_value),
            Self::ShrinkMuch => shrink(&mut cells, much, of_value),
            Self::Swap => {
                shrink(&mut cells, 1, of_value);
                grow(&mut cells, 1, of_value, commonest(mask));
            }
            Self::Resize(size) => return resized(mask, head, size, value),
            Self::Requantise(precision) => {
                let finer = Some(precision.finer()).filter(|finer| space.precisions.contains(finer));
                for (cell, varied) in cells.iter_mut().zip(&guide.varied) {
                    *cell = cell.map(|_| if *varied { finer.unwrap_or(precision) } else { precision });
                }
            }
            Self::Flip => {
                let precision = commonest(mask);
                for _ in 0..generator.random_range(1..=3) {
                    let at = generator.random_range(0..cells.len());
                    cells[at] = if cells[at].is_some() { None } else { Some(precision) };
                }
            }
        }
        repaired(&head.shape, mask.block_size, cells, of_value, commonest(mask))
    }
}

/// The precision of most active blocks; the coarser of two that are equally common.
pub(crate) fn commonest(mask: &HeadMask) -> Precision {
    let count = |precision: Precision| mask.blocks.active().filter(|(_, _, p)| *p == precision).count();
    Precision::ALL.into_iter().rev().max_by_key(|precision| count(*precision)).expect("there are three precisions")
}

fn grow(cells: &mut [Option<Precision>], count: usize, value: impl Fn(usize) -> f64, precision: Precision) {
    let mut skipped: Vec<usize> = (0..cells.len()).filter(|at| cells[*at].is_none()).collect();
    skipped.sort_by(|a, b| value(*b).total_cmp(&value(*a)));
    for at in skipped.into_iter().take(count) {
        cells[at] = Some(precision);
    }
}

fn shrink(cells: &mut [Option<Precision>], count: usize, value: impl Fn(usize) -> f64) {
    let mut active: Vec<usize> = (0..cells.len()).filter(|at| cells[*at].is_some()).collect();
    active.sort_by(|a, b| value(*a).total_cmp(&value(*b)));
    for at in active.into_iter().take(count) {
        cells[at] = None;
    }
}

/// The mask at another block size with about as many active scores: the new blocks that the old ones cover most, ties by
/// value, each in the finest precision that it touches.
fn resized(mask: &HeadMask, head: &HeadGuide, size: BlockSize, value: &dyn Fn(&SizeGuide, usize) -> f64) -> HeadMask {
    if size == mask.block_size {
        return mask.clone();
    }
    let (old, new, guide) = (mask.block_size.tokens(), size.tokens(), head.at(size));
    let blocks = guide.rows * guide.columns;
    let (mut covered, mut finest) = (vec![0.0f64; blocks], vec![None; blocks]);
    for (row, column, precision) in mask.blocks.active() {
        let span = |at: usize, tokens: u32| {
            let start = at as u32 * old;
            (start, (start + old).min(tokens))
        };
        let ((top, bottom), (left, right)) = (span(row, head.shape.queries), span(column, head.shape.keys));
        for r in top / new..bottom.div_ceil(new) {
            for c in left / new..right.div_ceil(new) {
                let overlap = |low: u32, high: u32, at: u32| high.min((at + 1) * new) - low.max(at * new);
                let block = r as usize * guide.columns + c as usize;
                covered[block] += f64::from(overlap(top, bottom, r)) * f64::from(overlap(left, right, c));
                finest[block] = finest[block].max(Some(precision));
            }
        }
    }
    let area = |block: usize| {
        let extent = |at: usize, tokens| f64::from(size.extent(at as u32, tokens));
        extent(block / guide.columns, head.shape.queries) * extent(block % guide.columns, head.shape.keys)
    };
    let mut order: Vec<usize> = (0..blocks).filter(|block| covered[*block] > 0.0).collect();
    let rank = |block: usize| (covered[block] / area(block), value(guide, block));
    order.sort_by(|a, b| {
        let (a, b) = (rank(*a), rank(*b));
        b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1))
    });
    let mut wanted = mask.active_scores(&head.shape) as f64;
    let mut cells = vec![None; blocks];
    for block in order {
        if wanted < 0.5 * area(block) {
            break;
        }
        cells[block] = finest[block];
        wanted -= area(block);
    }
    repaired(&head.shape, size, cells, |block| value(guide, block), commonest(mask))
}
