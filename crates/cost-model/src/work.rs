use std::sync::Arc;

use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, Blueprint, HeadId, HeadMask, Linear, Precision};
use serde::{Deserialize, Serialize};

use crate::{CostError, HeadWork};

/// How an attention module turns scores into probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Softmax {
    /// In floating point; 8-bit scores are converted there and back.
    #[default]
    Float,
    /// 8-bit scores stay integers: a table look-up instead of an exponential (IntAttention, arXiv 2511.21513).
    /// Scores of 16 and 32 bit are computed in floating point all the same.
    Integer,
}

/// What a model computes under a blueprint: counts only, nothing of a device. For one example (batch 1).
///
/// ```
/// # use maskwright_blueprint::*;
/// # use maskwright_cost_model::*;
/// let shape = AttentionShape { kind: AttentionKind::SelfAttention, heads: 12, queries: 128, keys: 128, head_dim: 64, windows: 1 };
/// let work = Work::bare(&shape, BlockSize::B16, Precision::Single)?;
/// assert_eq!(work.macs(), 2 * 12 * 128 * 128 * 64); // Q K^T and P V
/// # Ok::<(), CostError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    pub modules: Vec<ModuleWork>,
    /// Matrix products outside attention.
    pub linears: Vec<Linear>,
    /// Elements of vector operations outside attention.
    pub elementwise: u64,
}

/// One attention module. Heads with equal masks share one count.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleWork {
    pub name: String,
    pub shape: AttentionShape,
    pub softmax: Softmax,
    /// One for each of `shape.heads`.
    pub heads: Vec<Arc<HeadWork>>,
}

/// Larger shapes are refused, so that nothing a stranger asks for takes unbounded memory or time.
const MOST_TOKENS: u64 = 1 << 22;
const MOST_HEADS: u64 = 1 << 16;
const MOST_HEAD_DIM: u64 = 1 << 16;
const MOST_WINDOWS: u64 = 1 << 16;

/// Masks that are made for a shape, not read from a file, are bounded as well.
const MOST_BLOCKS: u64 = 1 << 24;

/// Refuses a shape whose mask in blocks of this size would be too large to make.
pub(crate) fn check_grid(shape: &AttentionShape, block_size: BlockSize) -> Result<(), CostError> {
    check_shape(shape)?;
    let found = u64::from(block_size.cover(shape.queries)) * u64::from(block_size.cover(shape.keys));
    if found > MOST_BLOCKS {
        return Err(CostError::Shape { what: "the number of blocks of a head", found, limit: MOST_BLOCKS });
    }
    Ok(())
}

impl Work {
    /// Counts a blueprint once; every device prices the same counts.
    pub fn of(blueprint: &Blueprint) -> Self {
        let model = blueprint.model();
        let modules = model
            .modules
            .iter()
            .zip(blueprint.masks())
            .map(|(module, masks)| {
                let mut heads: Vec<Arc<HeadWork>> = Vec::with_capacity(masks.len());
                for (at, mask) in masks.iter().enumerate() {
                    let same = at > 0 && masks[at - 1] == *mask;
                    let head = if same { Arc::clone(&heads[at - 1]) } else { HeadWork::of(mask, &module.shape).into() };
                    heads.push(head);
                }
                ModuleWork { name: module.name.clone(), shape: module.shape, softmax: Softmax::default(), heads }
            })
            .collect();
        Self { modules, linears: model.linears.clone(), elementwise: model.elementwise }
    }

    /// One attention module without a model around it, nothing skipped. Takes no memory for blocks, so that a million
    /// tokens can be priced.
    pub fn bare(shape: &AttentionShape, block_size: BlockSize, precision: Precision) -> Result<Self, CostError> {
        check_shape(shape)?;
        let head = Arc::new(HeadWork::dense(shape, block_size, precision));
        let heads = vec![head; shape.heads as usize];
        let module = ModuleWork { name: "attention".into(), shape: *shape, softmax: Softmax::default(), heads };
        Ok(Self { modules: vec![module], linears: Vec::new(), elementwise: 0 })
    }

    /// The same work with another softmax in every module.
    pub fn with_softmax(mut self, softmax: Softmax) -> Self {
        for module in &mut self.modules {
            module.softmax = softmax;
        }
        self
    }

    /// Puts another mask at one head, counting only that head.
    ///
    /// # Panics
    /// When the model has no such head.
    pub fn set_head(&mut self, at: HeadId, mask: &HeadMask) -> Result<(), CostError> {
        let module = &mut self.modules[at.module as usize];
        mask.check(&module.shape)?;
        module.heads[at.head as usize] = HeadWork::of(mask, &module.shape).into();
        Ok(())
    }

    /// Multiply-accumulates of attention: `Q K^T` and `P V` over the active scores.
    pub fn macs(&self) -> u64 {
        self.macs_by_precision().iter().sum()
    }

    /// As [`Work::macs`], in the order of [`Precision::ALL`].
    pub fn macs_by_precision(&self) -> [u64; 3] {
        let mut macs = [0; 3];
        for module in &self.modules {
            for head in &module.heads {
                for (macs, scores) in macs.iter_mut().zip(head.scores) {
                    *macs += 2 * scores * u64::from(module.shape.head_dim) * u64::from(module.shape.windows);
                }
            }
        }
        macs
    }
}

/// Refuses sizes of zero and sizes beyond what anything here is made for.
pub(crate) fn check_shape(shape: &AttentionShape) -> Result<(), CostError> {
    let limits = [
        ("the number of heads", u64::from(shape.heads), MOST_HEADS),
        ("the number of query tokens", shape.queries.into(), MOST_TOKENS),
        ("the number of key tokens", shape.keys.into(), MOST_TOKENS),
        ("the head dimension", shape.head_dim.into(), MOST_HEAD_DIM),
        ("the number of windows", shape.windows.into(), MOST_WINDOWS),
    ];
    for (what, found, limit) in limits {
        if found == 0 || found > limit {
            return Err(CostError::Shape { what, found, limit });
        }
    }
    match shape.kind {
        AttentionKind::CrossAttention => Ok(()),
        _ if shape.queries == shape.keys => Ok(()),
        _ => Err(CostError::Shape {
            what: "the number of key tokens of self-attention, which is that of its queries,",
            found: shape.keys.into(),
            limit: shape.queries.into(),
        }),
    }
}
