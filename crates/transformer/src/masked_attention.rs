use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use burn::tensor::{Device, Tensor};
use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, Blueprint, HeadMask, ModuleShape, Precision};
use maskwright_kernels::KernelError;

use crate::{
    attention::{BiasIs, Context},
    backend::is_in_memory,
    block_attention::{BlockAttention, BlockCall, Rooms, block_attention},
    composed_attention::ComposedMask,
};

/// A blueprint's masks, one entry for each attention module; made once, used for every batch, by any number of threads.
///
/// On flex and libtorch, attention runs on `maskwright-kernels` block by block, so that a model is evaluated and trained with
/// the very arithmetic that is deployed. Where scores have a bias of their own, where a head's features are no multiple of 8, and
/// on other devices it is put together from tensor operations, over all scores. `docs/models.md` says what runs where.
#[derive(Debug, Clone)]
pub struct CompiledMasks {
    modules: Arc<[ModuleMask]>,
    rooms: Arc<Rooms>,
    device: Device,
    /// Never block by block.
    composed: bool,
}

#[derive(Debug)]
struct ModuleMask {
    shape: AttentionShape,
    heads: Vec<HeadMask>,
    composed: OnceLock<ComposedMask>,
    /// By number of queries, and how many of them are read.
    blocks: Mutex<BTreeMap<(usize, usize), Arc<BlockAttention>>>,
    /// For one query at a time, by its position in blocks of the smallest size.
    steps: Mutex<BTreeMap<usize, Arc<BlockAttention>>>,
}

/// One more query for each example, where keys and values are kept and earlier queries are not.
pub(crate) struct NextQuery {
    /// The query, and behind it one that nobody asks about: `[batch, heads, 2, head_dim]`.
    pair: Tensor<4>,
    /// Queries before this one.
    position: usize,
}

impl NextQuery {
    /// `q` is `[batch, heads, 1, head_dim]`; `largest` is the largest magnitude in any query so far, `[batch, heads, 1, 1]`,
    /// and is brought up to date.
    ///
    /// All queries of a head share one 8-bit scale. A second query that is as large as the largest so far brings this
    /// one to the scale that it has among all of them, so that it is rounded as in a pass over the whole sequence.
    pub(crate) fn new(q: Tensor<4>, position: usize, largest: &mut Option<Tensor<4>>) -> Self {
        let own = q.clone().abs().max_dim(3);
        let so_far = match largest.take() {
            Some(before) => before.max_pair(own),
            None => own,
        };
        *largest = Some(so_far.clone());
        let [batch, heads, _, head_dim] = q.dims();
        let zeros = Tensor::zeros([batch, heads, 1, head_dim - 1], &q.device());
        let scale = Tensor::cat(vec![so_far, zeros], 3);
        Self { pair: Tensor::cat(vec![q, scale], 2), position }
    }
}

impl CompiledMasks {
    /// On `device`, which must be the device of the model that will use them (with automatic differentiation or not).
    pub fn new(blueprint: &Blueprint, device: &Device) -> Self {
        let modules = blueprint.model().modules.iter().zip(blueprint.masks());
        let modules = modules.map(|(of, heads)| ModuleMask::new(of.shape, heads)).collect();
        Self { modules, rooms: Arc::default(), device: device.clone(), composed: false }
    }

    /// Every score of a model with these modules, in single precision.
    pub fn dense(modules: &[ModuleShape], device: &Device) -> Self {
        let dense = |shape| vec![HeadMask::dense(shape, BlockSize::B32, Precision::Single); shape.heads as usize];
        let modules = modules.iter().map(|ModuleShape { shape, .. }| ModuleMask::new(*shape, &dense(shape))).collect();
        Self { modules, rooms: Arc::default(), device: device.clone(), composed: false }
    }

    /// The same as [`CompiledMasks::new`], but always put together from tensor operations: what block by block is compared with.
    pub fn composed(blueprint: &Blueprint, device: &Device) -> Self {
        Self { composed: true, ..Self::new(blueprint, device) }
    }

    /// Where they compute, with automatic differentiation or not.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Attention of module `module`: q `[batch, heads, queries, head_dim]`, k and v `[batch, heads, keys, head_dim]`.
    /// A batch whose sequences are shorter than the blueprint's uses the masks' first rows and columns. Where the context says
    /// that only the first queries are read, there are no more in what it gives.
    ///
    /// # Panics
    /// When the batch has more queries or keys than the blueprint.
    pub(crate) fn attend(
        &self,
        module: usize,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
        context: &Context,
    ) -> Tensor<4> {
        let module = &self.modules[module];
        let (queries, keys) = (q.dims()[2], k.dims()[2]);
        let AttentionShape { queries: all_queries, keys: all_keys, .. } = module.shape;
        assert!(
            queries <= all_queries as usize && keys <= all_keys as usize,
            "{queries} x {keys} tokens under masks for {all_queries} x {all_keys}"
        );
        let blocks =
            (!self.composed && is_in_memory(&self.device)).then(|| module.block_call(queries, context, &self.rooms));
        match blocks.flatten() {
            Some(call) => block_attention(q, k, v, call),
            None => context.read_of(module.composed(&self.device).first(queries, keys).attend(q, k, v, context)),
        }
    }

    /// The row of attention of module `module` that belongs to the next query: `[batch, heads, 1, head_dim]`. k and v
    /// `[batch, heads, keys, head_dim]` hold, for causal self-attention, nothing beyond that query's own token.
    ///
    /// # Panics
    /// When the blueprint has no such query, or fewer keys.
    pub(crate) fn attend_next(
        &self,
        module: usize,
        next: NextQuery,
        k: Tensor<4>,
        v: Tensor<4>,
        context: &Context,
    ) -> Tensor<4> {
        let module = &self.modules[module];
        let NextQuery { pair: q, position } = next;
        let keys = k.dims()[2];
        let AttentionShape { queries: all_queries, keys: all_keys, .. } = module.shape;
        assert!(
            position < all_queries as usize && keys <= all_keys as usize,
            "query {position} of {keys} keys under masks for {all_queries} x {all_keys}"
        );
        let blocks = (!self.composed && is_in_memory(&self.device))
            .then(|| module.step_call(position, &k, context, &self.rooms));
        let attended = match blocks.flatten() {
            Some(call) => block_attention(q, k, v, call),
            None => module.composed(&self.device).row(position, keys).attend(q, k, v, context),
        };
        attended.slice_dim(2, 0..1)
    }
}

impl ModuleMask {
    fn new(shape: AttentionShape, heads: &[HeadMask]) -> Self {
        Self {
            shape,
            heads: heads.to_vec(),
            composed: OnceLock::new(),
            blocks: Mutex::default(),
            steps: Mutex::default(),
        }
    }

    fn composed(&self, device: &Device) -> &ComposedMask {
        self.composed.get_or_init(|| ComposedMask::new(&self.shape, &self.heads, device))
    }

    /// How to attend block by block; none where that is not possible.
    fn block_call(&self, queries: usize, context: &Context, rooms: &Arc<Rooms>) -> Option<BlockCall> {
        let live_keys = match (&context.bias, &context.bias_is) {
            (None, _) => None,
            (_, BiasIs::RightPadding(live)) => Some(live.clone()),
            (_, BiasIs::Causality(live)) if self.shape.kind == AttentionKind::CausalSelfAttention => live.clone(),
            (_, BiasIs::Causality(_) | BiasIs::Numbers) => return None,
        };
        let live_queries = context.live_queries.clone();
        let read = context.read.map_or(queries, |read| read.min(queries));
        assert!(
            read == queries || self.shape.kind == AttentionKind::SelfAttention,
            "some queries alone are read of self-attention without causality only"
        );
        Some(BlockCall { attention: self.blocks(queries, read, rooms).ok()?, live_keys, live_queries })
    }

    /// The same for the query at `position` alone.
    fn step_call(&self, position: usize, k: &Tensor<4>, context: &Context, rooms: &Arc<Rooms>) -> Option<BlockCall> {
        let [batch, _, keys, _] = k.dims();
        let live_keys = match (&context.bias, &context.bias_is) {
            (None, _) => vec![keys; batch].into(),
            (_, BiasIs::RightPadding(live)) => live.clone(),
            (_, BiasIs::Causality(_) | BiasIs::Numbers) => return None,
        };
        Some(BlockCall { attention: self.step(position, rooms).ok()?, live_keys: Some(live_keys), live_queries: None })
    }

    fn blocks(&self, queries: usize, read: usize, rooms: &Arc<Rooms>) -> Result<Arc<BlockAttention>, KernelError> {
        made(&self.blocks, (queries, read), || match read < queries {
            true => BlockAttention::first_queries(&self.shape, &self.heads, (read, queries), rooms.clone()),
            false => BlockAttention::new(&self.shape, &self.heads, queries, rooms.clone()),
        })
    }

    fn step(&self, position: usize, rooms: &Arc<Rooms>) -> Result<Arc<BlockAttention>, KernelError> {
        let smallest = BlockSize::B8.tokens() as usize;
        let make = || BlockAttention::next_query(&self.shape, &self.heads, position, rooms.clone());
        made(&self.steps, position / smallest, make)
    }
}

/// What is known under `key`, made if need be.
fn made<K: Ord>(
    known: &Mutex<BTreeMap<K, Arc<BlockAttention>>>,
    key: K,
    make: impl FnOnce() -> Result<BlockAttention, KernelError>,
) -> Result<Arc<BlockAttention>, KernelError> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.get(&key) {
        return Ok(known.clone());
    }
    let new = Arc::new(make()?);
    known.insert(key, new.clone());
    Ok(new)
}
