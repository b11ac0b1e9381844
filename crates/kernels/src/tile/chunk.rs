use super::{Half, Int8, Job, Operand, Single};
use crate::lanes::{Lanes, OnLanes};

/// Keys that go through scores, softmax and values together at most, of each of [`Precision::ALL`](maskwright_blueprint::Precision::ALL), on any
/// instruction set. At 8 bit, values of 64 features are about what the innermost cache holds. At 16 bit they are twice that, for products begin once a
/// cycle at most; at 32 bit see [`most_single`]. 8-bit products of that many keys with weights stay below 2^24, where they are exact as floats.
const MOST: [usize; 3] = [512, 512, 256];

/// At 32 bit: values of 64 features are what the innermost cache holds, or twice that with BF16. The CPU that this was measured on (Zen 4) begins one
/// product a cycle, for which the second cache is near enough.
#[inline(always)]
const fn most_single<L: Lanes>() -> usize {
    if L::HAS_BF16 { MOST[2] } else { 128 }
}

/// Keys whose scores a chunk has room for.
pub(crate) const ROOM: usize = MOST[0] + MOST[1] + MOST[2];

/// Keys of one group.
pub(super) const GROUP: usize = 4;

/// The most rows of values of a run; a row has one key at 32 bit, two at 16, four at 8.
pub(super) const MOST_ROWS: usize = 256;
const _: () = assert!(MOST[0] / 4 <= MOST_ROWS && MOST[1] / 2 <= MOST_ROWS && MOST[2] <= MOST_ROWS);

/// The most groups of a run.
const MOST_GROUPS: usize = MOST[0] / GROUP;
const _: () = assert!(MOST[1] / GROUP <= MOST_GROUPS && MOST[2] / GROUP <= MOST_GROUPS);

/// What goes through scores, softmax and values together: keys of each of [`Precision::ALL`](maskwright_blueprint::Precision::ALL).
#[derive(Debug)]
pub(crate) struct Chunk(pub(super) [Run; 3]);

/// Keys of a chunk that are multiplied at the same precision: groups of four neighbours. Group `n` holds the keys from `4 n`
/// on. All of a vector's groups are of one block, or of two where a block has half as many keys.
#[derive(Debug)]
pub(crate) struct Run {
    groups: [u32; MOST_GROUPS],
    /// How many of them have a live key. Those that follow fill up the last vector.
    real: usize,
    /// For each word of a query's weights, where its values begin.
    rows: [u32; MOST_ROWS],
}

impl Chunk {
    pub(crate) fn new() -> Self {
        Self([const { Run { groups: [0; MOST_GROUPS], real: 0, rows: [0; MOST_ROWS] } }; 3])
    }

    /// The parts of words of scores, or of weights, that are the runs'.
    #[inline(always)]
    pub(super) fn parts<'a, L: Lanes>(&self, words: &'a mut [u32]) -> [&'a mut [u32]; 3] {
        let Self([int8, half, single]) = self;
        let (of_int8, others) = words.split_at_mut(int8.words::<L>());
        let (of_half, others) = others.split_at_mut(half.words::<L>());
        [of_int8, of_half, &mut others[..single.words::<L>()]]
    }
}

/// Takes as many blocks from the front of each of `columns` as fit. All of them have a live key.
pub(super) struct Fill<'a, 'b> {
    pub chunk: &'a mut Chunk,
    pub columns: &'a mut [&'b [u32]; 3],
    pub job: &'a Job<'a>,
}

impl OnLanes for Fill<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, _: L) {
        let Self { chunk: Chunk([int8, half, single]), columns: [of_int8, of_half, of_single], job } = self;
        let [most_int8, most_half, _] = MOST;
        *of_int8 = int8.fill::<L, Int8>(of_int8, most_int8, job);
        *of_half = half.fill::<L, Half>(of_half, most_half, job);
        *of_single = single.fill::<L, Single>(of_single, most_single::<L>(), job);
    }
}

impl Run {
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.real == 0
    }

    /// Vectors of keys.
    #[inline(always)]
    pub(super) fn vectors<L: Lanes>(&self) -> usize {
        self.real.div_ceil(L::GROUPS)
    }

    /// Words of their scores, for as many queries as a vector has lanes.
    #[inline(always)]
    pub(super) fn words<L: Lanes>(&self) -> usize {
        self.vectors::<L>() * L::OF_VECTOR
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

    /// For each word of a query's weights, where its values begin.
    #[inline(always)]
    pub(super) fn rows<O: Operand>(&self) -> &[u32] {
        &self.rows[..self.real * (GROUP / O::PER_WORD)]
    }

    #[inline(always)]
    fn fill<'a, L: Lanes, O: Operand>(&mut self, columns: &'a [u32], most: usize, job: &Job<'_>) -> &'a [u32] {
        self.real = 0;
        if columns.is_empty() {
            return columns;
        }
        let size = job.block_size;
        let of_block = size / GROUP;
        let (taken, rest) = columns.split_at(columns.len().min(most / size));
        let d = job.head_dim as u32;
        // All groups of a block, and their rows.
        match (size, O::PER_WORD) {
            (8, 1) => self.add::<2, 8>(taken, d),
            (8, 2) => self.add::<2, 4>(taken, d),
            (8, _) => self.add::<2, 2>(taken, d),
            (16, 1) => self.add::<4, 16>(taken, d),
            (16, 2) => self.add::<4, 8>(taken, d),
            (16, _) => self.add::<4, 4>(taken, d),
            (_, 1) => self.add::<8, 32>(taken, d),
            (_, 2) => self.add::<8, 16>(taken, d),
            (_, _) => self.add::<8, 8>(taken, d),
        }
        // Those without a live key, which come last, are not counted.
        self.real = taken.len() * of_block;
        let live = job.live_keys.div_ceil(GROUP);
        while self.groups[self.real - 1] as usize >= live {
            self.real -= 1;
        }
        // A block that is half a vector may be the last one: it stands for the one that is not there.
        if size < L::WIDTH {
            let filled = self.real.next_multiple_of(size / GROUP);
            let last = self.groups[filled - size / GROUP];
            self.groups[filled..filled.next_multiple_of(L::GROUPS)].fill(last);
        }
        // A key of the last group that is not there has the values of the last one that is: its weight is next to nothing.
        let last = ((job.live_keys - 1) / O::PER_WORD) as u32 * d;
        let of_group = GROUP / O::PER_WORD;
        for row in &mut self.rows[(self.real - 1) * of_group..self.real * of_group] {
            *row = last.min(*row);
        }
        rest
    }

    /// All `GROUPS` groups of each block of `columns`, and their `ROWS` rows.
    #[inline(always)]
    fn add<const GROUPS: usize, const ROWS: usize>(&mut self, columns: &[u32], head_dim: u32) {
        let (groups, rows) = (self.groups.as_chunks_mut::<GROUPS>().0, self.rows.as_chunks_mut::<ROWS>().0);
        for ((groups, rows), &column) in groups.iter_mut().zip(rows).zip(columns) {
            for n in 0..GROUPS {
                groups[n] = column * GROUPS as u32 + n as u32;
            }
            for n in 0..ROWS {
                rows[n] = (column * ROWS as u32 + n as u32) * head_dim;
            }
        }
    }
}
