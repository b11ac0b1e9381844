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

    /// The first key of each half of vector `at`.
    #[inline(always)]
    pub(super) fn keys<L: Lanes>(&self, at: usize) -> [usize; 2] {
        let groups = self.groups_of::<L>(at);
        [groups[0], groups[L::GROUPS / 2]].map(|group| group as usize * GROUP)
    }

    /// Where the last group of the first `count` vectors ends, and so where all of them have ended, for keys ascend; far away
    /// where groups only fill up a vector.
    #[inline(always)]
    pub(super) fn end_of<L: Lanes>(&self, count: usize) -> usize {
        let groups = count * L::GROUPS;
        if groups <= self.real { (self.groups[groups - 1] as usize + 1) * GROUP } else { usize::MAX }
    }

    /// Takes as many blocks from the front of `columns` as fit; false when none of them has a live key.
    #[inline(always)]
    pub(super) fn fill<L: Lanes, O: Operand>(&mut self, columns: &mut &[u32], job: &Job<'_>) -> bool {
        let size = job.block_size;
        let of_block = size / GROUP;
        let (taken, rest) = columns.split_at(columns.len().min(O::CHUNK / size));
        *columns = rest;
        // All groups of a block, two at a time.
        for (groups, &column) in self.groups.chunks_exact_mut(of_block).zip(taken) {
            for (two, pair) in groups.as_chunks_mut().0.iter_mut().zip(0..) {
                let first = column * of_block as u32 + 2 * pair;
                *two = [first, first + 1];
            }
        }
        // Those without a live key, which come last, are not counted.
        self.real = taken.len() * of_block;
        let live = job.live_keys.div_ceil(GROUP);
        while self.real > 0 && self.groups[self.real - 1] as usize >= live {
            self.real -= 1;
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
