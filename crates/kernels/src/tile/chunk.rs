use super::Job;

/// Keys that one step of the online softmax takes at most. Their scores, for 16 queries, fill 16 KiB of the L1 cache;
/// the 8-bit products of that many keys cannot overflow 32 bits.
pub(crate) const CHUNK: usize = 256;

/// Keys of one group.
pub(super) const GROUP: usize = 4;

/// A chunk is padded to whole multiples of this many groups: as many keys as a word of 8-bit weights a word of a group
/// takes.
pub(super) const GROUPS_AT_ONCE: usize = 4;

/// Groups of four neighbouring keys that go through one step of the online softmax. Group `n` holds the keys from `4 n`
/// on; a word of scores or weights per key and query is a *slot*.
pub(super) struct Chunk {
    groups: [u32; CHUNK / GROUP],
    /// How many of them there are; those that pad repeat the last one.
    real: usize,
    padded: usize,
}

impl Chunk {
    pub(super) fn new() -> Self {
        Self { groups: [0; CHUNK / GROUP], real: 0, padded: 0 }
    }

    /// Groups with a live key, in the order of their keys.
    #[inline(always)]
    pub(super) fn real(&self) -> &[u32] {
        &self.groups[..self.real]
    }

    /// The same, and then some of them again up to a multiple of [`GROUPS_AT_ONCE`].
    #[inline(always)]
    pub(super) fn padded(&self) -> &[u32] {
        &self.groups[..self.padded]
    }

    /// Takes as many live blocks from the front of `columns` as fit; false when there are none.
    #[inline(always)]
    pub(super) fn fill(&mut self, columns: &mut &[u32], job: &Job<'_>) -> bool {
        let size = job.row.block_size;
        self.real = 0;
        while let Some((&column, rest)) = columns.split_first() {
            if self.real + size / GROUP > self.groups.len() {
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
        let Some(&last) = self.real().last() else {
            return false;
        };
        self.padded = self.real.next_multiple_of(GROUPS_AT_ONCE);
        self.groups[self.real..self.padded].fill(last);
        true
    }
}
