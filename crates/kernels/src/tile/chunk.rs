use super::{Job, Operand};
use crate::lanes::Lanes;

/// Keys that one step of the online softmax takes at most, at any precision: see [`Operand::CHUNK`]. The 8-bit products of
/// that many keys cannot overflow 32 bits.
pub(crate) const CHUNK: usize = 256;

/// Keys of one group.
pub(super) const GROUP: usize = 4;

/// Groups of four neighbouring keys that go through one step of the online softmax. Group `n` holds the keys from `4 n`
/// on. All of a vector's groups are of one block, or of two where a block has half as many keys.
pub(super) struct Chunk {
    groups: [u32; CHUNK / GROUP],
    /// How many of them have a live key. Those that follow fill up the last vector.
    real: usize,
}

impl Chunk {
    pub(super) fn new() -> Self {
        Self { groups: [0; CHUNK / GROUP], real: 0 }
    }

    /// Groups with a live key, in the order of their keys.
    #[inline(always)]
    pub(super) fn real(&self) -> &[u32] {
        &self.groups[..self.real]
    }

    /// Vectors of keys.
    #[inline(always)]
    pub(super) fn vectors<L: Lanes>(&self) -> usize {
        self.real.div_ceil(L::GROUPS)
    }

    /// The groups of vector `at`, those without a live key too.
    #[inline(always)]
    pub(super) fn groups_of<L: Lanes>(&self, at: usize) -> &[u32] {
        &self.groups[at * L::GROUPS..][..L::GROUPS]
    }

    /// How many of them have a live key.
    #[inline(always)]
    pub(super) fn real_of<L: Lanes>(&self, at: usize) -> usize {
        (self.real - at * L::GROUPS).min(L::GROUPS)
    }

    /// The first key of each half of vector `at`, where packed ones have `span` side by side: the same twice where that is
    /// a whole vector.
    #[inline(always)]
    pub(super) fn keys<L: Lanes>(&self, at: usize, span: usize) -> [usize; 2] {
        let groups = self.groups_of::<L>(at);
        let [first, second] = [groups[0], groups[L::GROUPS / 2]].map(|group| group as usize * GROUP);
        if span == L::WIDTH { [first; 2] } else { [first, second] }
    }

    /// Takes as many live blocks from the front of `columns` as fit; false when there are none.
    #[inline(always)]
    pub(super) fn fill<L: Lanes, O: Operand>(&mut self, columns: &mut &[u32], job: &Job<'_>) -> bool {
        let size = job.row.block_size;
        self.real = 0;
        while let Some((&column, rest)) = columns.split_first() {
            if self.real + size / GROUP > O::CHUNK / GROUP {
                break;
            }
            let key = column as usize * size;
            let live = job.live_keys.saturating_sub(key).min(size).div_ceil(GROUP);
            // All groups of the block, two at a time; those without a live key are not counted.
            for (pair, two) in self.groups[self.real..][..size / GROUP].as_chunks_mut().0.iter_mut().enumerate() {
                let first = (key / GROUP + 2 * pair) as u32;
                *two = [first, first + 1];
            }
            self.real += live;
            *columns = rest;
        }
        // A block that is half a vector may be the last one: it stands for the one that is not there.
        if size < L::WIDTH && self.real > 0 {
            let filled = self.real.next_multiple_of(size / GROUP);
            let last = self.groups[filled - size / GROUP];
            self.groups[filled..filled.next_multiple_of(L::GROUPS)].fill(last);
        }
        self.real > 0
    }
}
