use std::{
    ops::{Deref, DerefMut},
    sync::atomic::AtomicUsize,
};

use crate::{
    packed::PackedHead,
    shared_heads::SharedHeads,
    tile::{Chunk, MAX_QUERIES, ROOM, Seen},
};

/// Memory that [`AttentionPlan::run`](crate::AttentionPlan::run) works in: made once by
/// [`workspace`](crate::AttentionPlan::workspace), then used for call after call, one at a time.
///
/// It fits every plan of the same size, and holds nothing that a later call depends on.
#[derive(Debug)]
pub struct Workspace {
    pub(crate) size: WorkspaceSize,
    pub(crate) heads: SharedHeads,
    /// One a thread.
    pub(crate) scratch: Vec<Scratch>,
    /// For each thread's share of the bands, the next one.
    pub(crate) next: Vec<AtomicUsize>,
}

/// What decides how large a workspace is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkspaceSize {
    pub queries: usize,
    pub keys: usize,
    pub head_dim: usize,
    /// For each head, and each of [`Precision::ALL`](maskwright_blueprint::Precision::ALL): whether it has such blocks.
    pub heads: Vec<[bool; 3]>,
    pub workers: usize,
    /// Keys of the longest row of 8-bit blocks, for integer softmax; else zero.
    pub integer_keys: usize,
}

impl Workspace {
    pub(crate) fn new(size: &WorkspaceSize) -> Self {
        // Heads take turns in a room.
        let uses = size.heads.iter().fold([false; 3], |all, uses| [0, 1, 2].map(|at| all[at] | uses[at]));
        let room = |_| PackedHead::with_room(size.queries, size.keys, size.head_dim, uses);
        Self {
            size: size.clone(),
            heads: SharedHeads::new(size.heads.len(), (0..size.workers.min(size.heads.len())).map(room)),
            scratch: (0..size.workers).map(|_| Scratch::new(size)).collect(),
            next: (0..size.workers).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let scratch =
            self.scratch.iter().flat_map(|scratch| [&scratch.scores, &scratch.integers].map(|words| words.len()));
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
    /// Of 8-bit scores, and of others.
    pub seen: [Seen; 2],
    /// All scores of the 8-bit blocks of a row, for integer softmax.
    pub integers: AlignedWords,
}

impl Scratch {
    fn new(size: &WorkspaceSize) -> Self {
        // As `Lanes::OF_VECTOR` says.
        let keys = |keys: usize| AlignedWords::zeroed(keys * (MAX_QUERIES + 1));
        let (chunk, seen) = (Chunk::new(), [Seen::new(), Seen::new()]);
        Self { scores: keys(ROOM), chunk, seen, integers: keys(size.integer_keys.next_multiple_of(MAX_QUERIES)) }
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
