//! Fused attention of one tile: as many queries of one block row as there are lanes, against all their key blocks.
//!
//! Keys come in chunks. For each chunk: scores, the new running maximum, weights relative to it, and weighted values
//! added to the output after that has been rescaled (online softmax). Scores are in powers of two, `log2(e)` times the
//! usual ones, and in real units whatever their precision, so rows mix precisions freely.

mod integer;
mod operand;

use std::ops::Range;

use operand::{Half, Int8, Operand, Single};

use crate::{Int8Softmax, lanes::Lanes, packed::PackedHead, row::Row, workspace::Scratch};
use maskwright_blueprint::Precision;

/// Keys that one step of the online softmax takes at most. Their scores, for 16 queries, fill 16 KiB of the L1 cache;
/// the 8-bit products of that many keys cannot overflow 32 bits.
pub(crate) const CHUNK: usize = 256;

/// Every block takes a multiple of this many slots of a chunk, also a ragged one.
const SLOTS: usize = 8;

/// A row of blocks and its head; `q`, `k` and `v` are `[tokens][head_dim]`.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub row: &'a Row,
    /// Key block columns that the row's ranges point into.
    pub columns: &'a [u32],
    pub head_dim: usize,
    /// Keys from this one on do not exist.
    pub live_keys: usize,
    pub causal: bool,
    pub int8_softmax: Int8Softmax,
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub packed: &'a PackedHead,
}

/// Computes one block row into `out`, `[queries of the row][head_dim]`.
#[inline(always)]
pub(crate) fn attend_row<L: Lanes>(lanes: L, job: &Job<'_>, out: &mut [f32], scratch: &mut Scratch) {
    let head = job.packed;
    let integers = Operands {
        queries: &head.int8.queries[..],
        keys: &head.int8.keys[..],
        values: &head.int8.values[..],
        offsets: &head.int8_offsets,
        score_scale: head.int8_scales.score,
        value_scale: head.int8_scales.value / 255.0,
    };
    let (score_scale, value_scale) = (std::f32::consts::LOG2_E / (job.head_dim as f32).sqrt(), 1.0);
    let halves = Operands {
        queries: &head.half.queries[..],
        keys: &head.half.keys[..],
        values: &head.half.values[..],
        offsets: &[],
        score_scale,
        value_scale,
    };
    let singles = Operands { queries: job.q, keys: job.k, values: job.v, offsets: &[], score_scale, value_scale };
    let [of_int8, of_half, of_single] =
        Precision::ALL.map(|precision| &job.columns[job.row.blocks[precision.index()].clone()]);
    for (at, out) in out.chunks_mut(L::WIDTH * job.head_dim).enumerate() {
        let first = job.row.queries.start + at * L::WIDTH;
        let queries = first..(first + L::WIDTH).min(job.row.queries.end);
        let mut tile = Tile::start(lanes, job, queries, scratch);
        match job.int8_softmax {
            Int8Softmax::Float => tile.attend::<Int8>(of_int8, &integers),
            Int8Softmax::Integer(normalisation) => tile.start_with_integers(of_int8, &integers, normalisation),
        }
        tile.attend::<Half>(of_half, &halves);
        tile.attend::<Single>(of_single, &singles);
        tile.finish(out);
    }
}

/// A head as one precision sees it.
struct Operands<'a, Element> {
    queries: &'a [Element],
    keys: &'a [Element],
    values: &'a [Element],
    /// What each key's product starts from, where that is not zero.
    offsets: &'a [u32],
    /// From a product to a score in powers of two.
    score_scale: f32,
    /// From a weighted sum to values.
    value_scale: f32,
}

/// The state of one tile: the running maximum and sum of each query, and in `scratch` its weighted values so far.
struct Tile<'a, L: Lanes> {
    lanes: L,
    job: &'a Job<'a>,
    queries: Range<usize>,
    max: L::Float,
    sum: L::Float,
    scratch: &'a mut Scratch,
}

impl<'a, L: Lanes> Tile<'a, L> {
    #[inline(always)]
    fn start(lanes: L, job: &'a Job<'a>, queries: Range<usize>, scratch: &'a mut Scratch) -> Self {
        scratch.output.get()[..job.head_dim * L::WIDTH].fill(0);
        // The smallest finite number, not minus infinity: then a difference of maxima is never NaN.
        let max = lanes.floats(lanes.splat(f32::MIN.to_bits()));
        let sum = lanes.floats(lanes.splat(0));
        Self { lanes, job, queries, max, sum, scratch }
    }

    /// Adds the blocks `columns`, all computed as `O` says.
    #[inline(always)]
    fn attend<O: Operand<L>>(&mut self, columns: &[u32], operands: &Operands<'_, O::Element>) {
        if columns.is_empty() {
            return;
        }
        self.load_queries::<O>(operands);
        let mut chunk = Chunk::new();
        let mut rest = columns;
        while chunk.fill(&mut rest, self.job) {
            let words = self.job.head_dim / O::PER_WORD;
            let scores = &mut self.scratch.scores.get()[..chunk.slots * L::WIDTH];
            let scale = splat(self.lanes, operands.score_scale);
            for segment in chunk.segments() {
                let scores = &mut scores[segment.slot * L::WIDTH..][..segment.slots() * L::WIDTH];
                let queries = &self.scratch.queries.get()[..words * L::WIDTH];
                score_segment::<L, O>(self.lanes, queries, segment, operands, |slot, product| {
                    let score = self.lanes.mul(O::float(self.lanes, product), scale);
                    self.lanes.store(self.lanes.bits(score), &mut scores[slot * L::WIDTH..]);
                });
                hide::<L>(self.queries.start, segment, scores, f32::NEG_INFINITY.to_bits());
            }
            let correction = self.weigh::<O>(&chunk);
            self.add_values::<O>(&chunk, operands, correction);
        }
    }

    /// Transposes the queries: vector `t` holds word `t` of every query. Lanes beyond the last query keep what they
    /// have; their results go nowhere.
    #[inline(always)]
    fn load_queries<O: Operand<L>>(&mut self, operands: &Operands<'_, O::Element>) {
        let words = self.job.head_dim / O::PER_WORD;
        let queries = &operands.queries[self.queries.start * words..self.queries.end * words];
        let vectors = self.scratch.queries.get();
        for (lane, query) in queries.chunks_exact(words).enumerate() {
            for (vector, &element) in vectors.chunks_exact_mut(L::WIDTH).zip(query) {
                vector[lane] = O::word(element);
            }
        }
    }

    /// Turns the chunk's scores into weights, in place, and moves maximum and sum on. Returns what the output so far
    /// has to be multiplied by.
    #[inline(always)]
    fn weigh<O: Operand<L>>(&mut self, chunk: &Chunk) -> L::Float {
        let lanes = self.lanes;
        let scores = &mut self.scratch.scores.get()[..chunk.slots * L::WIDTH];
        let before = self.max;
        for score in scores.chunks_exact(L::WIDTH) {
            self.max = lanes.max(lanes.floats(lanes.load(score)), self.max);
        }
        let mut sum = splat(lanes, 0.0);
        for four in 0..chunk.slots / 4 {
            let mut weights = [sum; 4];
            for (weight, score) in weights.iter_mut().zip(scores[4 * four * L::WIDTH..].chunks_exact(L::WIDTH)) {
                *weight = lanes.exp2(lanes.sub(lanes.floats(lanes.load(score)), self.max));
            }
            // Packed weights take no more room than their scores did, so they never overtake them.
            let packed = &mut scores[4 * four / O::PER_WORD * L::WIDTH..][..4 / O::PER_WORD * L::WIDTH];
            sum = lanes.add(sum, O::pack_weights(lanes, weights, packed));
        }
        let correction = lanes.exp2(lanes.sub(before, self.max));
        self.sum = lanes.mul_add(self.sum, correction, sum);
        correction
    }

    /// `output = output * correction + weights * values`.
    #[inline(always)]
    fn add_values<O: Operand<L>>(&mut self, chunk: &Chunk, operands: &Operands<'_, O::Element>, correction: L::Float) {
        let lanes = self.lanes;
        let scale = splat(lanes, operands.value_scale);
        let weights = self.scratch.scores.get();
        let output = &mut self.scratch.output.get()[..self.job.head_dim * L::WIDTH];
        weighted_values::<L, O>(lanes, chunk, weights, operands.values, self.job.head_dim, |at, sum| {
            let output = &mut output[at * L::WIDTH..][..L::WIDTH];
            let corrected = lanes.mul(lanes.floats(lanes.load(output)), correction);
            let sum = lanes.mul_add(O::float(lanes, sum), scale, corrected);
            lanes.store(lanes.bits(sum), output);
        });
    }

    /// Divides by the sum and transposes back. Queries without a live key have sum zero and get zeros.
    #[inline(always)]
    fn finish(self, out: &mut [f32]) {
        let mut sums = [0; MAX_WIDTH];
        self.lanes.store(self.lanes.bits(self.sum), &mut sums);
        let output = self.scratch.output.get();
        for (lane, out) in out.chunks_exact_mut(self.job.head_dim).enumerate() {
            let sum = f32::from_bits(sums[lane]);
            let inverse = if sum == 0.0 { 0.0 } else { 1.0 / sum };
            for (at, out) in out.iter_mut().enumerate() {
                *out = f32::from_bits(output[at * L::WIDTH + lane]) * inverse;
            }
        }
    }
}

/// The most lanes of any instruction set.
pub(crate) const MAX_WIDTH: usize = 16;

#[inline(always)]
fn splat<L: Lanes>(lanes: L, x: f32) -> L::Float {
    lanes.floats(lanes.splat(x.to_bits()))
}

/// Overwrites the scores that do not exist: slots beyond a ragged end, and keys later than a causal query.
#[inline(always)]
fn hide<L: Lanes>(first_query: usize, segment: &Segment, scores: &mut [u32], nothing: u32) {
    scores[segment.len * L::WIDTH..].fill(nothing);
    if segment.diagonal {
        for (slot, scores) in scores.chunks_exact_mut(L::WIDTH).enumerate().take(segment.len) {
            let later = (segment.key + slot).saturating_sub(first_query).min(L::WIDTH);
            scores[..later].fill(nothing);
        }
    }
}

/// Products of the tile's queries with the keys of one segment; `put(slot, product)` takes each.
#[inline(always)]
fn score_segment<L: Lanes, O: Operand<L>>(
    lanes: L,
    queries: &[u32],
    segment: &Segment,
    operands: &Operands<'_, O::Element>,
    mut put: impl FnMut(usize, O::Sum),
) {
    let words = queries.len() / L::WIDTH;
    // Packed keys are padded to whole groups; others end where the caller's slice does.
    let whole = if O::PADDED { segment.slots() } else { segment.len };
    let mut slot = 0;
    while slot < whole {
        let key = segment.key + slot;
        let keys = &operands.keys[key * words..];
        if L::SUMS == 8 && slot + 8 <= whole {
            let sums = starts::<L, O, 8>(lanes, operands.offsets, key);
            let sums = multiply::<L, O, 8>(lanes, sums, queries, keys, 1, words);
            put_all(&sums, slot, &mut put);
            slot += 8;
        } else if slot + 4 <= whole {
            let sums = starts::<L, O, 4>(lanes, operands.offsets, key);
            let sums = multiply::<L, O, 4>(lanes, sums, queries, keys, 1, words);
            put_all(&sums, slot, &mut put);
            slot += 4;
        } else {
            let sums = starts::<L, O, 1>(lanes, operands.offsets, key);
            let [sum] = multiply::<L, O, 1>(lanes, sums, queries, keys, 1, words);
            put(slot, sum);
            slot += 1;
        }
    }
}

/// What the products with `N` keys from `key` on start from.
#[inline(always)]
fn starts<L: Lanes, O: Operand<L>, const N: usize>(lanes: L, offsets: &[u32], key: usize) -> [O::Sum; N] {
    let mut sums = [O::zero(lanes); N];
    for (at, sum) in sums.iter_mut().enumerate() {
        *sum = O::start(lanes, offsets, key + at);
    }
    sums
}

/// `put` of every sum, the first of which has number `first`.
#[inline(always)]
fn put_all<S: Copy>(sums: &[S], first: usize, put: &mut impl FnMut(usize, S)) {
    for (at, &sum) in sums.iter().enumerate() {
        put(first + at, sum);
    }
}

/// Sums over the chunk's keys of weight times value; `put(feature, sum)` takes each of `head_dim`.
#[inline(always)]
fn weighted_values<L: Lanes, O: Operand<L>>(
    lanes: L,
    chunk: &Chunk,
    weights: &[u32],
    values: &[O::Element],
    head_dim: usize,
    mut put: impl FnMut(usize, O::Sum),
) {
    let mut at = 0;
    while at < head_dim {
        if L::SUMS == 8 {
            let sums: [_; 8] = weighted_features::<L, O, 8>(lanes, chunk, weights, values, head_dim, at);
            put_all(&sums, at, &mut put);
        } else {
            let sums: [_; 4] = weighted_features::<L, O, 4>(lanes, chunk, weights, values, head_dim, at);
            put_all(&sums, at, &mut put);
        }
        at += L::SUMS;
    }
}

/// `N` neighbouring features of [`weighted_values`], from feature `at` on.
#[inline(always)]
fn weighted_features<L: Lanes, O: Operand<L>, const N: usize>(
    lanes: L,
    chunk: &Chunk,
    weights: &[u32],
    values: &[O::Element],
    head_dim: usize,
    at: usize,
) -> [O::Sum; N] {
    let mut sums = [O::zero(lanes); N];
    for segment in chunk.segments() {
        let words = segment.len.div_ceil(O::PER_WORD);
        let weights = &weights[segment.slot / O::PER_WORD * L::WIDTH..][..words * L::WIDTH];
        let values = &values[segment.key / O::PER_WORD * head_dim + at..];
        sums = multiply::<L, O, N>(lanes, sums, weights, values, head_dim, 1);
    }
    sums
}

/// The innermost loop: `sums[n] += sum over t of vectors[t] * numbers[t * step + n * next]`, one vector a lane, one
/// number for all lanes.
#[inline(always)]
fn multiply<L: Lanes, O: Operand<L>, const N: usize>(
    lanes: L,
    mut sums: [O::Sum; N],
    vectors: &[u32],
    numbers: &[O::Element],
    step: usize,
    next: usize,
) -> [O::Sum; N] {
    let steps = vectors.len() / L::WIDTH;
    assert!(steps == 0 || (steps - 1) * step + (N - 1) * next < numbers.len(), "operands hold every key of a block");
    for (t, vector) in vectors.chunks_exact(L::WIDTH).enumerate() {
        let vector = lanes.load(vector);
        for (n, sum) in sums.iter_mut().enumerate() {
            // SAFETY: t < steps and n < N, so the index is at most the one that was compared with the length above.
            let number = unsafe { *numbers.get_unchecked(t * step + n * next) };
            *sum = O::add_product(lanes, *sum, vector, number);
        }
    }
    sums
}

/// Neighbouring keys of one block, and the slots of the chunk that their scores go to.
#[derive(Clone, Copy, Default)]
struct Segment {
    key: usize,
    len: usize,
    slot: usize,
    /// Whether some of these keys are later than some of the row's queries, under a causal mask.
    diagonal: bool,
}

impl Segment {
    #[inline(always)]
    fn slots(&self) -> usize {
        self.len.next_multiple_of(SLOTS)
    }
}

/// Blocks whose keys go through one step of the online softmax.
struct Chunk {
    all: [Segment; CHUNK / SLOTS],
    count: usize,
    slots: usize,
}

impl Chunk {
    fn new() -> Self {
        Self { all: [Segment::default(); CHUNK / SLOTS], count: 0, slots: 0 }
    }

    #[inline(always)]
    fn segments(&self) -> &[Segment] {
        &self.all[..self.count]
    }

    /// Takes as many live blocks from the front of `columns` as fit; false when there are none.
    #[inline(always)]
    fn fill(&mut self, columns: &mut &[u32], job: &Job<'_>) -> bool {
        let size = job.row.block_size;
        (self.count, self.slots) = (0, 0);
        while let Some((&column, rest)) = columns.split_first() {
            let key = column as usize * size;
            let len = job.live_keys.saturating_sub(key).min(size);
            if self.slots + size > CHUNK {
                break;
            }
            if len > 0 {
                let diagonal = job.causal && key == job.row.queries.start;
                let segment = Segment { key, len, slot: self.slots, diagonal };
                self.all[self.count] = segment;
                self.count += 1;
                self.slots += segment.slots();
            }
            *columns = rest;
        }
        self.count > 0
    }
}
