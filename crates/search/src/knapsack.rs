use maskwright_blueprint::{BlockMask, HeadMask, Precision};

use crate::{
    Candidate, Guide, Space,
    candidate::keepers,
    guide::{HeadGuide, SizeGuide},
};

/// The candidate that minimises `loss + lambda * price` over blocks, sizes and precisions: a knapsack by Lagrange
/// multiplier (MoA, arXiv 2406.14909, with squared influence as the loss).
///
/// Loss and price add over blocks, so each block decides for itself; each head takes the block size with the least sum.
pub(crate) fn knapsack(guide: &Guide, space: &Space, lambda: f64) -> Candidate {
    reweighted(guide, space, || lambda)
}

/// The same where each head, in order, weighs its losses by a multiplier of its own.
pub(crate) fn reweighted(guide: &Guide, space: &Space, mut lambda: impl FnMut() -> f64) -> Candidate {
    Candidate::new(guide.heads().iter().map(|head| best_mask(head, space, lambda())).collect())
}

/// Multipliers from "nearly nothing is skipped" to "only what must stay", evenly over the blocks' own ratios of loss to
/// price.
pub(crate) fn multipliers(guide: &Guide, space: &Space, count: usize) -> Vec<f64> {
    let cheapest = |size: &SizeGuide| size.price.iter().copied().fold(f64::INFINITY, f64::min);
    let of_sizes = guide.heads().iter().flat_map(|head| head.sizes());
    let mut ratios: Vec<f64> = of_sizes
        .filter(|size| size.size == space.block_sizes[0])
        .flat_map(|size| size.skip.iter().map(move |loss| loss / cheapest(size)))
        .filter(|ratio| *ratio > 0.0)
        .collect();
    ratios.sort_by(f64::total_cmp);
    let at =
        |share: f64| ratios.get((share * (ratios.len().saturating_sub(1)) as f64) as usize).copied().unwrap_or(1.0);
    (0..count).map(|step| at((step as f64 + 0.5) / count as f64)).collect()
}

fn best_mask(head: &HeadGuide, space: &Space, lambda: f64) -> HeadMask {
    let masks = head.sizes().iter().map(|size| mask_at(head, size, space, lambda));
    let (_, mask) = masks.min_by(|a, b| a.0.total_cmp(&b.0)).expect("the space has a block size");
    mask
}

/// The best mask of one block size, and its `loss + lambda * price`.
fn mask_at(head: &HeadGuide, size: &SizeGuide, space: &Space, lambda: f64) -> (f64, HeadMask) {
    let value = |block: usize, cell: Option<Precision>| {
        size.loss(block, cell) + lambda * cell.map_or(0.0, |precision| size.price[precision.index()])
    };
    let best_active = |block: usize| {
        let precisions = space.precisions.iter().copied();
        precisions
            .min_by(|a, b| value(block, Some(*a)).total_cmp(&value(block, Some(*b))))
            .expect("the space has a precision")
    };
    let blocks = size.rows * size.columns;
    let mut cells: Vec<Option<Precision>> = (0..blocks)
        .map(|block| Some(best_active(block)).filter(|active| value(block, Some(*active)) < value(block, None)))
        .collect();
    for row in 0..size.rows {
        let start = row * size.columns;
        let kept = start..start + keepers(&head.shape, row, size.columns);
        if cells[kept.clone()].iter().all(Option::is_none) {
            let regret = |block: usize| value(block, Some(best_active(block))) - value(block, None);
            let least = kept.min_by(|a, b| regret(*a).total_cmp(&regret(*b))).expect("a row has blocks");
            cells[least] = Some(best_active(least));
        }
    }
    let total = cells.iter().enumerate().map(|(block, cell)| value(block, *cell)).sum();
    let blocks = BlockMask::new(size.columns, cells).expect("every row was just given a block");
    (total, HeadMask { block_size: size.size, blocks })
}
