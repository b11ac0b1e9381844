use std::{
    ops::{Deref, DerefMut},
    sync::atomic::AtomicUsize,
};

use crate::{
    AttentionPlan,
    packed::PackedHead,
    shared_heads::SharedHeads,
    tile::{Chunk, MAX_QUERIES, ROOM, Seen},
};

/// Memory that [`AttentionPlan::run`] works in: made once by [`workspace`](AttentionPlan::workspace), then used for call after
/// call, one at a time.
///
/// It fits every plan that needs no more, and holds nothing that a later call depends on. Layers that run one after the other
/// share one, which is in the caches then:
///
/// ```
/// # use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, HeadMask, Precision};
/// # use maskwright_kernels::{AttentionPlan, Inputs};
/// # let shape = AttentionShape { kind: AttentionKind::SelfAttention, heads: 1, queries: 16, keys: 16, head_dim: 8, windows: 1 };
/// # let plan = |precision| AttentionPlan::new(&[HeadMask::dense(&shape, BlockSize::B8, precision)], shape);
/// let layers = [plan(Precision::Single)?, plan(Precision::Int8)?];
/// let mut workspace = layers[0].workspace();
/// layers.iter().for_each(|plan| workspace.reserve(plan));
/// # let (numbers, mut out) = ([1.0; 128], [0.0; 128]);
/// # let inputs = Inputs::new(&numbers, &numbers, &numbers);
/// for plan in &layers {
///     plan.run(inputs, &mut out, &mut workspace)?;
/// }
/// # Ok::<(), maskwright_kernels::KernelError>(())
/// ```
#[derive(Debug)]
pub struct Workspace {
    size: WorkspaceSize,
    pub(crate) heads: SharedHeads,
    /// One a thread.
    pub(crate) scratch: Vec<Scratch>,
    /// For each thread's share of the bands, the next one.
    pub(crate) next: Vec<AtomicUsize>,
}

/// What decides how large a workspace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkspaceSize {
    pub queries: usize,
    pub keys: usize,
    pub head_dim: usize,
    pub heads: usize,
    /// For each of [`Precision::ALL`](maskwright_blueprint::Precision::ALL): whether a head has such blocks.
    pub uses: [bool; 3],
    pub workers: usize,
    /// Keys of the longest row of 8-bit blocks, for integer softmax; else zero.
    pub integer_keys: usize,
}

impl WorkspaceSize {
    /// What is as large as both.
    fn max(&self, other: &Self) -> Self {
        Self {
            queries: self.queries.max(other.queries),
            keys: self.keys.max(other.keys),
            head_dim: self.head_dim.max(other.head_dim),
            heads: self.heads.max(other.heads),
            uses: [0, 1, 2].map(|at| self.uses[at] | other.uses[at]),
            workers: self.workers.max(other.workers),
            integer_keys: self.integer_keys.max(other.integer_keys),
        }
    }
}

impl Workspace {
    pub(crate) fn new(size: WorkspaceSize) -> Self {
        // Heads take turns in a room.
        let room = |_| PackedHead::with_room(size.queries, size.keys, size.head_dim, size.uses);
        Self {
            size,
            heads: SharedHeads::new(size.heads, (0..size.workers.min(size.heads)).map(room)),
            scratch: (0..size.workers).map(|_| Scratch::new(&size)).collect(),
            next: (0..size.workers).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    /// Makes room for calls of `plan`, too. Allocates where there is not enough yet, which [`run`](AttentionPlan::run) never does. There is room
    /// for the most of everything then: for plans of many keys and of many features, for many keys of many features.
    pub fn reserve(&mut self, plan: &AttentionPlan) {
        if !self.fits(plan.needs()) {
            *self = Self::new(self.size.max(plan.needs()));
        }
    }

    /// Whether it is as large as `size`.
    pub(crate) fn fits(&self, size: &WorkspaceSize) -> bool {
        self.size.max(size) == self.size
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let scratch = self
            .scratch
            .iter()
            .flat_map(|scratch| [&scratch.scores, &scratch.sums, &scratch.integers].map(|words| words.len()));
        4 * (self.heads.words() + scratch.sum::<usize>()) + size_of_val(&*self.scratch)
    }
}

/// What one tile of queries needs, on pages like [`AlignedWords`].
#[derive(Debug)]
#[repr(align(4096))]
pub(crate) struct Scratch {
    /// Scores, then weights, of the keys at hand, for each query.
    pub scores: AlignedWords,
    /// What those keys are.
    pub chunk: Chunk,
    /// Of scores of each of [`Precision::ALL`](maskwright_blueprint::Precision::ALL); the second one of 16 and 32 bit, as long as
    /// those are scores.
    pub seen: [Seen; 3],
    /// What a unit for matrices adds up, `[queries][head_dim]`.
    pub sums: AlignedWords,
    /// All scores of the 8-bit blocks of a row, for integer softmax.
    pub integers: AlignedWords,
}

impl Scratch {
    fn new(size: &WorkspaceSize) -> Self {
        // As `Lanes::OF_VECTOR` says.
        let keys = |keys: usize| AlignedWords::zeroed(keys * (MAX_QUERIES + 1));
        let (chunk, seen) = (Chunk::new(), [const { Seen::new() }; 3]);
        let sums = AlignedWords::zeroed(MAX_QUERIES * size.head_dim);
        let integers = keys(size.integer_keys.next_multiple_of(MAX_QUERIES));
        Self { scores: keys(ROOM), chunk, seen, sums, integers }
    }
}

/// Words that start on a page: no vector straddles two cache lines, and how long a call takes does not depend on where the heap
/// puts them, which caches and what compares parts of addresses would tell.
#[derive(Debug)]
pub(crate) struct AlignedWords {
    words: Vec<u32>,
    start: usize,
    len: usize,
}

impl AlignedWords {
    pub(crate) const LINE: usize = 64;
    const PAGE: usize = 4096;

    pub(crate) fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self { words: Vec::new(), start: 0, len };
        }
        let words = vec![0; len + Self::PAGE / size_of::<u32>()];
        // The heap block stays where it is when this struct moves. `align_offset` may decline to answer: no harm done.
        let start = words.as_ptr().align_offset(Self::PAGE).min(Self::PAGE / size_of::<u32>());
        Self { words, start, len }
    }
}

impl Deref for AlignedWords {
    type Target = [u32];

    #[inline(always)]
    fn deref(&self) -> &[u32] {
        &self.words[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedWords {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u32] {
        &mut self.words[self.start..self.start + self.len]
    }
}
