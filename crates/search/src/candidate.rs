use maskwright_blueprint::{
    AttentionKind, AttentionShape, BlockMask, BlockSize, Blueprint, Digest, HeadMask, ModelShape, Precision, Provenance,
};
use serde::{Deserialize, Serialize};

/// One mask for each head of a model, modules after one another: a blueprint in the making.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Candidate {
    masks: Vec<HeadMask>,
}

impl Candidate {
    pub(crate) fn new(masks: Vec<HeadMask>) -> Self {
        Self { masks }
    }

    /// Every head with the mask that `mask` gives for its number and shape.
    pub(crate) fn from_fn(shape: &ModelShape, mut mask: impl FnMut(usize, &AttentionShape) -> HeadMask) -> Self {
        Self { masks: shape.heads().enumerate().map(|(head, (_, of))| mask(head, of)).collect() }
    }

    /// In the order of [`ModelShape::heads`].
    pub fn masks(&self) -> &[HeadMask] {
        &self.masks
    }

    pub(crate) fn set(&mut self, head: usize, mask: HeadMask) {
        self.masks[head] = mask;
    }

    /// As a blueprint for `shape`.
    ///
    /// # Panics
    /// When the candidate was made for another shape, or the provenance is none that a file may hold.
    pub fn blueprint(&self, shape: &ModelShape, provenance: Provenance) -> Blueprint {
        let mut masks = self.masks.iter().cloned();
        let modules = shape.modules.iter().map(|of| masks.by_ref().take(of.shape.heads as usize).collect()).collect();
        Blueprint::new(shape.clone(), modules, provenance).expect("masks fit their model, and names were checked")
    }

    /// Of the masks alone: enough to tell candidates of one search apart.
    pub fn digest(&self) -> Digest {
        Digest::of(self.masks.iter().map(|mask| {
            let cells = mask.blocks.cells().iter().map(|cell| cell.map_or(0, |precision| precision.bytes() as u8));
            std::iter::once(mask.block_size.tokens() as u8).chain(cells).collect::<Vec<u8>>()
        }))
    }

    /// Share of all scores that is computed.
    pub fn density(&self, shape: &ModelShape) -> f64 {
        let active =
            |((_, of), mask): ((_, &AttentionShape), &HeadMask)| mask.active_scores(of) * u64::from(of.windows);
        let active: u64 = shape.heads().zip(&self.masks).map(active).sum();
        active as f64 / shape.scores() as f64
    }
}

/// A mask from cells that may lack blocks: a row without a block that it must keep gets its most valued one back.
///
/// For self-attention a row must keep a block at or left of the diagonal; `value` ranks blocks.
pub(crate) fn repaired(
    of: &AttentionShape,
    block_size: BlockSize,
    mut cells: Vec<Option<Precision>>,
    value: impl Fn(usize) -> f64,
    fallback: Precision,
) -> HeadMask {
    let columns = block_size.cover(of.keys) as usize;
    for row in 0..block_size.cover(of.queries) as usize {
        let allowed = row * columns..row * columns + keepers(of, row, columns);
        if cells[allowed.clone()].iter().all(Option::is_none) {
            let best = allowed.max_by(|a, b| value(*a).total_cmp(&value(*b))).expect("a row has blocks");
            cells[best] = Some(fallback);
        }
    }
    let blocks = BlockMask::new(columns, cells).expect("every row was just given a block");
    HeadMask { block_size, blocks }
}

/// How many blocks from the left count for "this row keeps a block".
pub(crate) fn keepers(of: &AttentionShape, row: usize, columns: usize) -> usize {
    match of.kind {
        AttentionKind::SelfAttention | AttentionKind::CausalSelfAttention => (row + 1).min(columns),
        AttentionKind::CrossAttention => columns,
    }
}
