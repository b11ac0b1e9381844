use std::path::Path;

use crate::provenance::plain;
use crate::{
    AttentionShape, BlockSize, Digest, HeadId, HeadMask, MaskError, ModelShape, Precision, Provenance, RonError,
    read_ron, to_ron,
};

/// What a search hands over: one mask for each head of each attention module of one model.
///
/// Always true: there is a mask for every head of `model`, each fits its head's shape, and every row of every mask
/// keeps a block. `docs/blueprint.md` describes the RON form field by field.
///
/// ```
/// # use maskwright_blueprint::*;
/// # let shape = AttentionShape { kind: AttentionKind::SelfAttention, heads: 1, queries: 20, keys: 20, head_dim: 8, windows: 1 };
/// # let modules = vec![ModuleShape { name: "block.0.attention".into(), shape }];
/// # let model = ModelShape { name: "tiny".into(), digest: Digest::of(["tiny"]), modules, linears: vec![], elementwise: 0 };
/// let mask = HeadMask { block_size: BlockSize::B16, blocks: "1.\n41".parse()? };
/// let blueprint = Blueprint::new(model, vec![vec![mask]], Provenance::default())?;
/// assert_eq!(blueprint.density(), (16.0 * 16.0 + 4.0 * 16.0 + 4.0 * 4.0) / (20.0 * 20.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    model: ModelShape,
    masks: Vec<Vec<HeadMask>>,
    pub provenance: Provenance,
}

/// Why masks and model do not make a blueprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlueprintError {
    #[error("this program reads blueprint version 1, the file says {found}")]
    Version { found: u32 },
    #[error("the model has {modules} attention modules, the blueprint masks for {found}")]
    Modules { modules: usize, found: usize },
    #[error("module {module} has {heads} heads, the blueprint {found} masks for it")]
    Heads { module: usize, heads: u32, found: usize },
    #[error("the model has no attention module, so there is nothing to mask")]
    NoModules,
    #[error(
        "module {module} has {heads} heads, {queries} x {keys} tokens, head width {head_dim} and {windows} windows; each is at \
         least 1"
    )]
    Zero { module: usize, heads: u32, queries: u32, keys: u32, head_dim: u32, windows: u32 },
    #[error("module {module} is self-attention over {queries} query and {keys} key tokens; there they are the same")]
    Tokens { module: usize, queries: u32, keys: u32 },
    #[error(
        "the model takes more than 2^53 multiply-accumulates or elements an example; so large a count is not exact"
    )]
    TooMuchWork,
    #[error("{what}, of the figures and names that it carries, is {found}; {allowed}")]
    Provenance { what: &'static str, found: String, allowed: &'static str },
    #[error("the mask of {head} does not fit: {fault}")]
    Mask { head: HeadId, fault: MaskError },
    #[error("this blueprint is for model `{expected_name}` ({expected}), not for `{found_name}` ({found})")]
    OtherModel { expected_name: String, expected: String, found_name: String, found: String },
}

impl Blueprint {
    /// `masks[module][head]`, checked against `model`.
    pub fn new(model: ModelShape, masks: Vec<Vec<HeadMask>>, provenance: Provenance) -> Result<Self, BlueprintError> {
        model.check()?;
        plain("model.name", &model.name)?;
        for module in &model.modules {
            plain("the name of a module", &module.name)?;
        }
        provenance.check()?;
        if masks.len() != model.modules.len() {
            return Err(BlueprintError::Modules { modules: model.modules.len(), found: masks.len() });
        }
        for (module, heads) in masks.iter().enumerate() {
            let expected = model.modules[module].shape.heads;
            if heads.len() != expected as usize {
                return Err(BlueprintError::Heads { module, heads: expected, found: heads.len() });
            }
            for (head, mask) in heads.iter().enumerate() {
                check_mask(&model, HeadId { module: module as u32, head: head as u32 }, mask)?;
            }
        }
        Ok(Self { model, masks, provenance })
    }

    /// Nothing skipped, one precision throughout.
    pub fn dense(model: ModelShape, block_size: BlockSize, precision: Precision) -> Self {
        let dense = |shape| HeadMask::dense(shape, block_size, precision);
        let masks = model.modules.iter().map(|of| vec![dense(&of.shape); of.shape.heads as usize]).collect();
        Self { model, masks, provenance: Provenance { origin: "dense".into(), ..Provenance::default() } }
    }

    /// Reads and checks a RON file.
    pub fn load(path: &Path) -> Result<Self, RonError> {
        read_ron(path)
    }

    /// The RON form that [`Blueprint::load`] reads.
    pub fn to_ron(&self) -> String {
        to_ron(self)
    }

    /// The model that the masks fit.
    pub fn model(&self) -> &ModelShape {
        &self.model
    }

    /// `[module][head]`.
    pub fn masks(&self) -> &[Vec<HeadMask>] {
        &self.masks
    }

    /// The mask of one head.
    ///
    /// # Panics
    /// When the model has no such head.
    pub fn mask(&self, head: HeadId) -> &HeadMask {
        &self.masks[head.module as usize][head.head as usize]
    }

    /// Share of all scores that is computed, in (0, 1]; ragged edges counted exactly.
    pub fn density(&self) -> f64 {
        let of = |(head, shape): (_, &AttentionShape)| self.mask(head).active_scores(shape) * u64::from(shape.windows);
        let active: u64 = self.model.heads().map(of).sum();
        active as f64 / self.model.scores() as f64
    }

    /// Block sizes in use, smallest first.
    pub fn block_sizes(&self) -> Vec<BlockSize> {
        let mut sizes: Vec<_> = self.masks.iter().flatten().map(|mask| mask.block_size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// Of model, shapes and masks; provenance does not count.
    pub fn digest(&self) -> Digest {
        let mut parts: Vec<Vec<u8>> = vec![b"blueprint 1".to_vec(), self.model.digest.to_string().into_bytes()];
        for (module, heads) in self.model.modules.iter().zip(&self.masks) {
            let shape = &module.shape;
            parts.push(module.name.clone().into_bytes());
            parts.push(
                [shape.kind as u32, shape.heads, shape.queries, shape.keys, shape.head_dim]
                    .into_iter()
                    .chain((shape.windows != 1).then_some(shape.windows)) // digests are older than windows
                    .flat_map(u32::to_le_bytes)
                    .collect(),
            );
            for mask in heads {
                parts.push(mask.block_size.tokens().to_le_bytes().to_vec());
                parts.push(mask.blocks.cells().iter().map(|cell| cell.map_or(0, |p| p.bytes() as u8)).collect());
            }
        }
        Digest::of(parts)
    }

    /// Refuses another model than the one this blueprint was made for.
    pub fn check_model(&self, model: &ModelShape) -> Result<(), BlueprintError> {
        if self.model.digest == model.digest && self.model.modules == model.modules {
            return Ok(());
        }
        Err(BlueprintError::OtherModel {
            expected_name: self.model.name.clone(),
            expected: self.model.digest.short(),
            found_name: model.name.clone(),
            found: model.digest.short(),
        })
    }
}

/// Whether `mask` fits `head` of `model`, which has that head.
pub(crate) fn check_mask(model: &ModelShape, head: HeadId, mask: &HeadMask) -> Result<(), BlueprintError> {
    let shape = &model.modules[head.module as usize].shape;
    mask.check(shape).map_err(|fault| BlueprintError::Mask { head, fault })
}
