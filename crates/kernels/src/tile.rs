//! Fused attention of one tile: a few queries of one block row against all their key blocks.
//!
//! Keys come in chunks. For each chunk: scores, the new running maximum, weights relative to it, and weighted values
//! added to the output after that has been rescaled (online softmax). Scores are in powers of two, `log2(e)` times the
//! usual ones, and in real units whatever their precision, so rows mix precisions freely.
//!
//! A tile has `A` vectors of queries. Query `A x + a` of it has group `x` of vector `a`: of scores, with four keys in the
//! words of the group; of outputs, with four features there.

#![expect(clippy::needless_range_loop, reason = "a loop over the vectors of a tile says so, whatever it indexes")]

mod chunk;
mod integer;
mod operand;
mod products;

use std::ops::Range;

pub(crate) use chunk::CHUNK;
pub(crate) use operand::{Half, Int8, Operand, Single};

use chunk::{Chunk, GROUP};
use products::{Values, multiply_keys, multiply_values};

use crate::{
    Int8Softmax,
    lanes::{EXP2, Lanes, MAX_WIDTH, transpose_groups},
    packed::{PackedHead, words},
    phases::Stopwatch,
    row::Row,
    workspace::Scratch,
};
use maskwright_blueprint::Precision;

/// The most queries of a tile on any instruction set.
pub(crate) const MAX_QUERIES: usize = 16;

/// A row of blocks and its head; `q` and `v` are `[tokens][head_dim]`.
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
    /// Whether a call's inputs and output are more than caches nearby hold.
    pub output_is_far: bool,
    pub q: &'a [f32],
    pub v: &'a [f32],
    pub packed: &'a PackedHead,
}

impl Job<'_> {
    /// Key block columns of one precision.
    #[inline(always)]
    fn columns_of(&self, precision: Precision) -> &[u32] {
        &self.columns[self.row.blocks[precision.index()].clone()]
    }
}

/// Computes one block row into `out`, `[queries of the row][head_dim]`.
#[inline(always)]
pub(crate) fn attend_row<L: Lanes, const A: usize>(
    lanes: L,
    job: &Job<'_>,
    out: &mut [f32],
    scratch: &mut Scratch,
    watch: &mut impl Stopwatch,
) {
    let head = job.packed;
    let (score_scale, value_scale) = (std::f32::consts::LOG2_E / (job.head_dim as f32).sqrt(), 1.0);
    let integers = Operands {
        queries: &head.int8.queries,
        keys: &head.int8.keys,
        values: Values { words: &head.int8.values, head_dim: job.head_dim, last: (usize::MAX, &[]) },
        offsets: &head.int8_offsets,
        score_scale: head.int8_scales.score,
        value_scale: head.int8_scales.value / 255.0,
    };
    let halves = Operands {
        queries: &head.half.queries,
        keys: &head.half.keys,
        values: Values { words: &head.half.values, head_dim: job.head_dim, last: (usize::MAX, &[]) },
        offsets: &[],
        score_scale,
        value_scale,
    };
    let last = (job.live_keys / GROUP, words(&head.last_values));
    let singles = Operands {
        queries: words(job.q),
        keys: &head.single_keys,
        values: Values { words: words(job.v), head_dim: job.head_dim, last },
        offsets: &[],
        score_scale,
        value_scale,
    };
    let of_int8 = job.columns_of(Precision::Int8);
    let of_half = job.columns_of(Precision::Half);
    let of_single = job.columns_of(Precision::Single);
    let tile = A * L::GROUPS;
    for (at, out) in out.chunks_mut(tile * job.head_dim).enumerate() {
        let first = job.row.queries.start + at * tile;
        let queries = first..(first + tile).min(job.row.queries.end);
        let next_tile = &singles.queries[queries.end * job.head_dim..];
        let next_tile = &next_tile[..next_tile.len().min(tile * job.head_dim)];
        if job.output_is_far {
            lanes.prefetch_to_write(out);
        }
        if !of_single.is_empty() {
            lanes.prefetch(next_tile);
        }
        let mut tile = Tile::<L, A>::start(lanes, job, queries);
        match job.int8_softmax {
            Int8Softmax::Float => tile.attend::<Int8>(of_int8, &integers, scratch, watch),
            Int8Softmax::Integer(normalisation) => {
                tile.start_with_integers(of_int8, &integers, normalisation, scratch, watch)
            }
        }
        tile.attend::<Half>(of_half, &halves, scratch, watch);
        tile.attend::<Single>(of_single, &singles, scratch, watch);
        tile.finish(out, scratch);
        watch.lap(|phases| &mut phases.rows);
    }
}

#[inline(always)]
fn words_mut(floats: &mut [f32]) -> &mut [u32] {
    // SAFETY: as in `words`, in both directions.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), floats.len()) }
}

/// A head as one precision sees it.
struct Operands<'a> {
    /// `[queries][words]`
    queries: &'a [u32],
    /// `[groups][words][4]`
    keys: &'a [u32],
    values: Values<'a>,
    /// What each key's product starts from, where that is not zero.
    offsets: &'a [u32],
    /// From a product to a score in powers of two; above zero.
    score_scale: f32,
    /// From a weighted sum to values.
    value_scale: f32,
}

/// The state of one tile: the running maximum of each query, in every word of its group; the sum of its weights, in
/// four parts. Its weighted values so far are in the scratch.
struct Tile<'a, L: Lanes, const A: usize> {
    lanes: L,
    job: &'a Job<'a>,
    queries: Range<usize>,
    max: [L::Float; A],
    sum: [L::Float; A],
    /// Whether there are no weighted values yet.
    fresh: bool,
}

/// What the scores of a chunk have been, word by word.
struct Seen<L: Lanes, const A: usize> {
    largest: [L::Float; A],
    /// NaN where one of them is.
    total: [L::Float; A],
}

impl<L: Lanes, const A: usize> Seen<L, A> {
    #[inline(always)]
    fn add<O: Operand<L>>(&mut self, lanes: L, a: usize, score: L::Float) {
        self.largest[a] = lanes.max(score, self.largest[a]);
        if O::FLOATS {
            self.total[a] = lanes.add(self.total[a], score);
        }
    }
}

impl<'a, L: Lanes, const A: usize> Tile<'a, L, A> {
    /// Words of scores of one group of keys.
    const SCORES: usize = A * L::WIDTH;

    #[inline(always)]
    fn start(lanes: L, job: &'a Job<'a>, queries: Range<usize>) -> Self {
        // The smallest finite number, not minus infinity: then a difference of maxima is never NaN.
        Self { lanes, job, queries, max: [splat(lanes, f32::MIN); A], sum: [splat(lanes, 0.0); A], fresh: true }
    }

    /// Adds the blocks `columns`, all computed as `O` says.
    #[inline(always)]
    fn attend<O: Operand<L>>(
        &mut self,
        columns: &[u32],
        operands: &Operands<'_>,
        scratch: &mut Scratch,
        watch: &mut impl Stopwatch,
    ) {
        if columns.is_empty() {
            return;
        }
        let Scratch { queries, scores, output, whole, .. } = scratch;
        let (queries, scores, output) = (queries, scores, output);
        self.load_queries::<O>(operands, queries, whole);
        let scale = splat(self.lanes, operands.score_scale);
        let unit = splat(self.lanes, operands.value_scale);
        let (mut chunk, mut rest) = (Chunk::new(), columns);
        while chunk.fill(&mut rest, self.job) {
            watch.lap(|phases| &mut phases.rows);
            let seen = self.score::<O>(&chunk, operands, queries, scores);
            watch.lap(|phases| &mut phases.scores);
            let correction = self.weigh::<O>(&chunk, &seen, scale, scores);
            watch.lap(|phases| &mut phases.softmax);
            self.add_values::<O>(&chunk, &operands.values, scores, [correction, [unit; A]], output);
            watch.lap(|phases| &mut phases.values);
        }
    }

    /// Arranges the queries: `4 / A` words of each in a vector, those of query `A x + a` in the words `n A + a` of group
    /// `x`.
    #[inline(always)]
    fn load_queries<O: Operand<L>>(&self, operands: &Operands<'_>, vectors: &mut [u32], whole: &mut [u32]) {
        let (lanes, words) = (self.lanes, self.job.head_dim / O::PER_WORD);
        let queries = match self.queries.len() == A * L::GROUPS {
            true => &operands.queries[self.queries.start * words..],
            false => {
                // What stands for the missing ones does not matter: their results go nowhere.
                let queries = &operands.queries[self.queries.start * words..self.queries.end * words];
                whole[..queries.len()].copy_from_slice(queries);
                whole
            }
        };
        for (at, vectors) in vectors[..words * A / 4 * L::WIDTH].chunks_mut(A * L::WIDTH).enumerate() {
            let mut rows = [lanes.splat(0); A];
            for (a, row) in rows.iter_mut().enumerate() {
                *row = lanes.gather_groups(&queries[a * words + 4 * at..], A * words);
            }
            let arranged = arrange(lanes, rows);
            for (vector, words) in vectors.chunks_exact_mut(L::WIDTH).zip(arranged) {
                lanes.store(words, vector);
            }
        }
    }

    /// Writes the chunk's products and returns, for each vector, the largest of every word.
    #[inline(always)]
    fn score<O: Operand<L>>(
        &self,
        chunk: &Chunk,
        operands: &Operands<'_>,
        queries: &[u32],
        scores: &mut [u32],
    ) -> Seen<L, A> {
        let mut seen = Seen { largest: [splat(self.lanes, f32::MIN); A], total: [splat(self.lanes, 0.0); A] };
        let groups = chunk.padded();
        let mut at = 0;
        while at < groups.len() {
            if L::SUMS / A == 8 && at + 8 <= groups.len() {
                self.score_groups::<O, 8>(chunk, at, operands, queries, scores, &mut seen);
                at += 8;
            } else if L::SUMS / A >= 4 {
                self.score_groups::<O, 4>(chunk, at, operands, queries, scores, &mut seen);
                at += 4;
            } else {
                self.score_groups::<O, 2>(chunk, at, operands, queries, scores, &mut seen);
                at += 2;
            }
        }
        seen
    }

    #[inline(always)]
    fn score_groups<O: Operand<L>, const B: usize>(
        &self,
        chunk: &Chunk,
        at: usize,
        operands: &Operands<'_>,
        queries: &[u32],
        scores: &mut [u32],
        seen: &mut Seen<L, A>,
    ) {
        let lanes = self.lanes;
        let words = self.job.head_dim / O::PER_WORD;
        let groups: [u32; B] = *chunk.padded()[at..].first_chunk().expect("chunks are padded");
        let sums = multiply_keys::<L, O, A, B>(lanes, queries, words, operands.keys, operands.offsets, groups);
        let (real, visible) = (chunk.real().len(), self.visible_to_all());
        let whole = at + B <= real && (groups[B - 1] as usize + 1) * GROUP <= visible;
        let scores = &mut scores[at * Self::SCORES..][..B * Self::SCORES];
        for (b, scores) in scores.chunks_exact_mut(Self::SCORES).enumerate() {
            for (a, scores) in scores.chunks_exact_mut(L::WIDTH).enumerate() {
                let score = O::float(lanes, sums[a][b]);
                if whole {
                    seen.add::<O>(lanes, a, score);
                }
                lanes.store(lanes.bits(score), scores);
            }
        }
        if !whole {
            for (b, scores) in scores.chunks_exact_mut(Self::SCORES).enumerate() {
                if at + b >= real {
                    scores.fill(f32::NEG_INFINITY.to_bits());
                    continue;
                }
                if (groups[b] as usize + 1) * GROUP > visible {
                    self.hide(groups[b] as usize * GROUP, scores);
                }
                for (a, scores) in scores.chunks_exact(L::WIDTH).enumerate() {
                    seen.add::<O>(lanes, a, lanes.floats(lanes.load(scores)));
                }
            }
        }
    }

    /// Keys before this one are live, and not later than any of the tile's queries under a causal mask.
    #[inline(always)]
    fn visible_to_all(&self) -> usize {
        let past = if self.job.causal { self.queries.start + 1 } else { usize::MAX };
        past.min(self.job.live_keys)
    }

    /// Overwrites the scores of the group of keys from `first_key` on that do not exist: keys that are not live, and
    /// those later than a causal query.
    #[inline(always)]
    fn hide(&self, first_key: usize, scores: &mut [u32]) {
        let live_keys = self.job.live_keys;
        for (a, vector) in scores.chunks_exact_mut(L::WIDTH).enumerate() {
            for (x, group) in vector.chunks_exact_mut(GROUP).enumerate() {
                let query = self.queries.start + x * A + a;
                let visible = if self.job.causal { live_keys.min(query + 1) } else { live_keys };
                let visible = visible.saturating_sub(first_key).min(GROUP);
                group[visible..].fill(f32::NEG_INFINITY.to_bits());
            }
        }
    }

    /// Turns the chunk's scores into weights, in place, and moves maxima and sums on. Returns what the output so far has
    /// to be multiplied by.
    #[inline(always)]
    fn weigh<O: Operand<L>>(
        &mut self,
        chunk: &Chunk,
        seen: &Seen<L, A>,
        scale: L::Float,
        scores: &mut [u32],
    ) -> [L::Float; A] {
        let lanes = self.lanes;
        let mut correction = self.max;
        for a in 0..A {
            let max = lanes.max(lanes.mul(max_of_group(lanes, seen.largest[a]), scale), self.max[a]);
            correction[a] = lanes.exp2(lanes.sub(self.max[a], max), &EXP2);
            self.max[a] = max;
        }
        let max = self.max;
        let mut sums = [O::zero(lanes); A];
        let steps = chunk.padded().len() / O::PER_WORD;
        assert!(steps * O::PER_WORD * Self::SCORES <= scores.len(), "a chunk fits its buffer");
        for at in 0..steps {
            for a in 0..A {
                // SAFETY: every group of the chunk has `SCORES` words in the buffer, as has been asserted.
                let of_vector = unsafe {
                    let first = at * O::PER_WORD * Self::SCORES + a * L::WIDTH;
                    scores.get_unchecked(first..first + (O::PER_WORD - 1) * Self::SCORES + L::WIDTH)
                };
                let weights = O::weights(lanes, of_vector, Self::SCORES, scale, max[a]);
                sums[a] = O::add_weights(lanes, sums[a], weights);
                // SAFETY: weights take no more room than their scores did, so they never overtake them.
                let to = at * Self::SCORES + a * L::WIDTH;
                lanes.store(weights, unsafe { scores.get_unchecked_mut(to..to + L::WIDTH) });
            }
        }
        for a in 0..A {
            let mut sum = lanes.mul(O::float(lanes, sums[a]), splat(lanes, O::WEIGHT_UNIT));
            if O::FLOATS {
                // Weights may hide what is NaN, but not their sum. A difference of infinities is NaN, too.
                let poison = lanes.add(lanes.nan_or_zero(seen.total[a]), lanes.sub(max[a], max[a]));
                sum = lanes.add(sum, poison);
            }
            self.sum[a] = lanes.mul_add(self.sum[a], correction[a], sum);
        }
        correction
    }

    /// `output = output * correction + unit * (weights * values)`.
    #[inline(always)]
    fn add_values<O: Operand<L>>(
        &mut self,
        chunk: &Chunk,
        values: &Values<'_>,
        weights: &[u32],
        [correction, unit]: [[L::Float; A]; 2],
        output: &mut [u32],
    ) {
        let mut at = 0;
        while at < values.head_dim {
            let output = &mut output[at / GROUP * Self::SCORES..];
            let left = values.head_dim - at;
            if L::SUMS / A == 8 && left >= 32 {
                let sums = multiply_values::<L, O, A, 8>(self.lanes, chunk, weights, values, at);
                self.add_sums::<O, 8>(sums, correction, unit, output);
                at += 32;
            } else if L::SUMS / A >= 4 && left >= 16 {
                let sums = multiply_values::<L, O, A, 4>(self.lanes, chunk, weights, values, at);
                self.add_sums::<O, 4>(sums, correction, unit, output);
                at += 16;
            } else {
                let sums = multiply_values::<L, O, A, 2>(self.lanes, chunk, weights, values, at);
                self.add_sums::<O, 2>(sums, correction, unit, output);
                at += 8;
            }
        }
        self.fresh = false;
    }

    #[inline(always)]
    fn add_sums<O: Operand<L>, const C: usize>(
        &self,
        sums: [[O::Sum; C]; A],
        correction: [L::Float; A],
        unit: [L::Float; A],
        output: &mut [u32],
    ) {
        let lanes = self.lanes;
        let output = &mut output[..C * Self::SCORES];
        for c in 0..C {
            for a in 0..A {
                let output = &mut output[c * Self::SCORES + a * L::WIDTH..][..L::WIDTH];
                let mut sum = lanes.mul(O::float(lanes, sums[a][c]), unit[a]);
                if !self.fresh {
                    sum = lanes.mul_add(lanes.floats(lanes.load(output)), correction[a], sum);
                }
                lanes.store(lanes.bits(sum), output);
            }
        }
    }

    /// Divides by the sum. Queries without a live key have sum zero and get zeros.
    #[inline(always)]
    fn finish(self, out: &mut [f32], scratch: &mut Scratch) {
        let (lanes, d) = (self.lanes, self.job.head_dim);
        if self.fresh {
            out.fill(0.0);
            return;
        }
        let mut inverse = self.sum;
        for inverse in &mut inverse {
            let mut sums = [0; MAX_WIDTH];
            lanes.store(lanes.bits(sum_of_group(lanes, *inverse)), &mut sums);
            for sum in &mut sums {
                let real = f32::from_bits(*sum);
                *sum = if real == 0.0 { 0.0_f32 } else { 1.0 / real }.to_bits();
            }
            *inverse = lanes.floats(lanes.load(&sums));
        }
        let whole = self.queries.len() == A * L::GROUPS;
        let to = if whole { words_mut(out) } else { &mut scratch.whole };
        let output = &scratch.output[..d / GROUP * Self::SCORES];
        let (steps, mut step) = (d / GROUP, 0);
        // Whole vectors of one query's features; of the last ones, too few for a vector, four at a time.
        while step + L::GROUPS <= steps {
            for a in 0..A {
                let mut vectors = [lanes.splat(0); 4];
                for n in 0..L::GROUPS {
                    let vector = lanes.floats(lanes.load(&output[(step + n) * Self::SCORES + a * L::WIDTH..]));
                    vectors[n] = lanes.bits(lanes.mul(vector, inverse[a]));
                }
                let turned = lanes.turn_groups(vectors);
                for x in 0..L::GROUPS {
                    lanes.store(turned[x], &mut to[(x * A + a) * d + step * GROUP..]);
                }
            }
            step += L::GROUPS;
        }
        for (c, vectors) in output.chunks_exact(Self::SCORES).enumerate().skip(step) {
            for (a, vector) in vectors.chunks_exact(L::WIDTH).enumerate() {
                let words = lanes.bits(lanes.mul(lanes.floats(lanes.load(vector)), inverse[a]));
                lanes.scatter_groups(words, &mut to[a * d + c * GROUP..], A * d);
            }
        }
        if !whole {
            let (out, len) = (words_mut(out), self.queries.len() * d);
            out[..len].copy_from_slice(&scratch.whole[..len]);
        }
    }
}

/// The vectors of [`Tile::load_queries`] from four words of each query.
#[inline(always)]
fn arrange<L: Lanes, const A: usize>(lanes: L, rows: [L::Word; A]) -> [L::Word; A] {
    let mut arranged = rows;
    if A == 2 {
        [arranged[0], arranged[1]] = lanes.interleave(rows[0], rows[1]);
    } else {
        let four = transpose_groups(lanes, [rows[0], rows[1], rows[2], rows[3]]);
        arranged.copy_from_slice(&four);
    }
    arranged
}

/// The largest word of each group, in all its words.
#[inline(always)]
fn max_of_group<L: Lanes>(lanes: L, x: L::Float) -> L::Float {
    let word = lanes.bits(x);
    let (a, b) = (lanes.floats(lanes.spread::<0>(word)), lanes.floats(lanes.spread::<1>(word)));
    let (c, d) = (lanes.floats(lanes.spread::<2>(word)), lanes.floats(lanes.spread::<3>(word)));
    lanes.max(lanes.max(a, b), lanes.max(c, d))
}

/// The sum of each group's words, in all of them.
#[inline(always)]
fn sum_of_group<L: Lanes>(lanes: L, x: L::Float) -> L::Float {
    let word = lanes.bits(x);
    let (a, b) = (lanes.floats(lanes.spread::<0>(word)), lanes.floats(lanes.spread::<1>(word)));
    let (c, d) = (lanes.floats(lanes.spread::<2>(word)), lanes.floats(lanes.spread::<3>(word)));
    lanes.add(lanes.add(a, b), lanes.add(c, d))
}

#[inline(always)]
fn splat<L: Lanes>(lanes: L, x: f32) -> L::Float {
    lanes.floats(lanes.splat(x.to_bits()))
}
