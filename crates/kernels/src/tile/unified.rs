//! Weights of 16 and 32 bit without a maximum: relative to [`UNIFIED_MAX`], the same for every query (FlashDecoding++,
//! arXiv 2311.01282, section 3). Floats are as exact anywhere in their range, so scores turn into weights while they are still in registers, and
//! nothing that has been summed is ever rescaled. Where a score is too far away for that, the sum of weights tells, and the tile begins
//! anew with [maxima](Tile::attend).

use super::{
    Chunk, Fill, Half, Join, Numbers, Operand, Operands, Seen, Single, Tile, all_empty,
    scores::{Hide, Outcome, Products},
    splat,
    weights::{Int8Scale, MaxInt8, QUAD, is_short, sum_by_query},
};
use crate::{
    lanes::{EXP2_UNIFIED, Lanes, OnLanes, UNIFIED_MAX},
    phases::Stopwatch,
    workspace::Scratch,
};

/// Sums of a query's weights between which every weight is as exact as it matters: from 2^-86 on, so that what is 40 octaves below the sum is
/// still a normal number, and up to less than the one weight that stands for all that are too large at 16 bit.
const LEAST: f32 = 1.3e-26;
const MOST: f32 = 0.25;

impl Tile<'_> {
    /// Adds the blocks `columns` as [`attend`](Self::attend) does, if there are some of 16 or 32 bit. Whether
    /// it did; if not, the tile is as it was, but for its output.
    #[inline(always)]
    pub(super) fn attend_unified<L: Lanes>(
        &mut self,
        lanes: L,
        columns: [&[u32]; 3],
        operands: &[Operands<'_>; 3],
        scratch: &mut Scratch,
        watch: &mut Stopwatch,
    ) -> bool {
        let [_, half, single] = columns;
        if !self.fresh || (half.is_empty() && single.is_empty()) {
            return false;
        }
        let Scratch { scores, chunk, seen, sums, .. } = scratch;
        let [of_int8, of_half, of_single] = operands;
        let mut rest = columns;
        while !all_empty(rest) {
            lanes.run(Fill { chunk, columns: &mut rest, job: self.job });
            watch.lap(|phases| &mut phases.rows);
            let Chunk([int8, half, single]) = &*chunk;
            let [scores_int8, scores_half, scores_single] = chunk.parts::<L>(scores);
            let [seen_int8, seen_half, seen_single] = &mut *seen;
            if !int8.is_empty() {
                self.score_int8(lanes, int8, of_int8, scores_int8, seen_int8);
            }
            (seen_half.fresh, seen_single.fresh) = (true, true);
            self.score::<L, Half, Weights>(lanes, half, of_half, scores_half, seen_half);
            self.score::<L, Single, Weights>(lanes, single, of_single, scores_single, seen_single);
            watch.lap(|phases| &mut phases.scores);
            let last = all_empty(rest);
            let scale = self.int8_scale(of_int8);
            let unified = lanes.run(Unify { tile: self, chunk, seen, scale, scores: scores_int8, last });
            watch.lap(|phases| &mut phases.softmax);
            let Some(Unified { int8_unit, join }) = unified else {
                self.fresh = true;
                self.sum = Numbers::all(0.0);
                return false;
            };
            self.add_values(lanes, chunk, operands, scores, &int8_unit, &join, sums);
            watch.lap(|phases| &mut phases.values);
        }
        true
    }
}

/// Weights relative to [`UNIFIED_MAX`], as [`ToWeights::weigh`](super::weights::ToWeights::weigh) leaves them.
pub(super) struct Weights;

impl<O: Operand> Outcome<O> for Weights {
    const TOGETHER: bool = true;

    #[inline(always)]
    unsafe fn write<L: Lanes, const R: usize, const C: usize>(
        lanes: L,
        sums: [[O::Sum<L>; C]; R],
        first: usize,
        products: &mut Products<'_, L, O, C>,
    ) {
        // A vector of words has weights of as many queries as a word has numbers.
        let (together, of_quad) = (O::PER_WORD, QUAD / O::PER_WORD);
        let divides = R.is_multiple_of(together) && first.is_multiple_of(together) && (R * C).is_multiple_of(QUAD);
        assert!(divides, "no vector of words is only begun");
        if !products.whole {
            for r in 0..R {
                for c in 0..C {
                    // SAFETY: the caller's promise, here and below.
                    lanes.store(lanes.bits(O::float(lanes, sums[r][c])), unsafe { products.at(c, first + r) });
                }
            }
            return;
        }
        let scale = products.scale;
        let mut of_queries = [O::zero(lanes); R];
        for quad in 0..R * C / QUAD {
            let mut scores = [splat(lanes, 0.0); QUAD];
            for n in 0..QUAD {
                let vector = quad * of_quad + n / together;
                scores[n] = O::float(lanes, sums[vector / C * together + n % together][vector % C]);
            }
            let weights = O::unified_weights(lanes, scores, scale);
            for n in 0..of_quad {
                let (query, c) = ((quad * of_quad + n) / C, (quad * of_quad + n) % C);
                of_queries[query] = O::add_weights(lanes, of_queries[query], weights[n]);
                unsafe { products.keep(lanes, weights[n], c, first + query * together) };
            }
        }
        for n in 0..R / together {
            products.seen.add_weights(lanes, first + n * together, O::float(lanes, of_queries[n]), products.first);
        }
    }

    #[inline(always)]
    fn hide<L: Lanes, const C: usize>(lanes: L, hide: Hide<'_, '_, O, Self, C>) {
        let (hides, positions) = (hide.hides::<L>(), hide.positions(lanes));
        let Hide { tile, operands, scores, seen, fresh, .. } = hide;
        let (queries, scale) = (tile.queries.len(), splat(lanes, operands.score_scale));
        for c in 0..C {
            if !hides[c] {
                continue;
            }
            for query in 0..queries {
                let scores = &mut scores[c * L::OF_VECTOR + query * L::WIDTH..][..L::WIDTH];
                let shown = lanes.min(lanes.floats(lanes.load(scores)), tile.limit(lanes, query, positions[c]));
                lanes.store(lanes.bits(lanes.max(shown, splat(lanes, NOTHING))), scores);
            }
        }
        for quad in (0..queries).step_by(QUAD) {
            let mut sums = [O::zero(lanes); QUAD];
            for c in 0..C {
                let scores = &mut scores[c * L::OF_VECTOR..][..L::WIDTH * L::WIDTH];
                let of = |query: usize| lanes.floats(lanes.load(&scores[(quad + query) * L::WIDTH..]));
                let shown = [of(0), of(1), of(2), of(3)];
                let mut weights = O::unified_weights(lanes, shown, scale);
                if O::PER_WORD == 1 && hides[c] {
                    // The least weight of 32 bit is not nothing everywhere, and a value may be huge.
                    for n in 0..QUAD {
                        let above_nothing = lanes.sub(shown[n], splat(lanes, NOTHING));
                        let limit = lanes.mul(above_nothing, splat(lanes, 1e30));
                        weights[n] = lanes.bits(lanes.min(lanes.floats(weights[n]), limit));
                    }
                }
                for n in 0..QUAD / O::PER_WORD {
                    sums[n] = O::add_weights(lanes, sums[n], weights[n]);
                    // SAFETY: a tile has no more queries than a vector has lanes.
                    unsafe { O::keep(lanes, weights[n], scores, quad + n * O::PER_WORD, false) };
                }
            }
            for n in 0..QUAD / O::PER_WORD {
                seen.add_weights(lanes, quad + n * O::PER_WORD, O::float(lanes, sums[n]), fresh);
            }
        }
    }
}

/// A score that leaves no weight, and still can be converted to an integer.
const NOTHING: f32 = -1.0e5;

/// Finishes a chunk: weights of 8 bit, which have a maximum of their own, and sums of all weights.
struct Unify<'a, 'b> {
    tile: &'a mut Tile<'b>,
    chunk: &'a Chunk,
    /// Of each precision.
    seen: &'a [Seen; 3],
    /// Of 8-bit scores.
    scale: Int8Scale,
    /// Of the 8-bit run.
    scores: &'a mut [u32],
    last: bool,
}

struct Unified {
    /// For each query, from a sum of 8-bit weights times values to one of others.
    int8_unit: Numbers,
    join: Join,
}

impl OnLanes for Unify<'_, '_> {
    /// Nothing where maxima are needed.
    type Output = Option<Unified>;

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) -> Option<Unified> {
        let Self { tile, chunk, seen: [seen_int8, seen_half, seen_single], scale, scores, last } = self;
        let Chunk([int8, half, single]) = chunk;
        let queries = tile.queries.len();
        let one = Numbers::all(1.0);
        let (mut int8_unit, mut unit) = (one, one);
        if !int8.is_empty() {
            let max = MaxInt8::of(lanes, seen_int8, scale)?;
            let share = lanes.exp2([max.real], &EXP2_UNIFIED)[0];
            if !lanes.all_within(max.real, UNIFIED_MAX) {
                return None;
            }
            let sum = max.weigh(lanes, tile, scores, is_short::<L>(chunk));
            tile.sum = Numbers::of(lanes, lanes.mul_add(sum, share, tile.sum.load(lanes)));
            int8_unit = Numbers::of(lanes, lanes.mul(share, splat(lanes, tile.job.int8_unit())));
            if half.is_empty() && single.is_empty() {
                unit = int8_unit;
            }
        }
        let mut sum = tile.sum.load(lanes);
        sum = lanes.add(sum, seen_half.sum_by_query::<L, Half>(lanes, queries));
        sum = lanes.add(sum, seen_single.sum_by_query::<L, Single>(lanes, queries));
        tile.sum = Numbers::of(lanes, sum);
        // Of queries that are not there, the sum may be anything.
        let fits = |sum: &u32| (0.0..=MOST).contains(&f32::from_bits(*sum));
        if !lanes.all_within(sum, MOST) && !tile.sum.0[..queries].iter().all(fits) {
            return None;
        }
        if !last {
            return Some(Unified { int8_unit, join: Join { keep: one, unit } });
        }
        let (mut inverse, mut enough) = (Numbers::all(0.0), 0);
        for n in 0..L::WIDTH {
            let sum = f32::from_bits(tile.sum.0[n]);
            inverse.0[n] = (1.0 / sum).to_bits();
            enough |= u32::from(sum >= LEAST) << n;
        }
        let all = (1 << queries) - 1;
        if enough & all != all {
            return None;
        }
        let unit = Numbers::of(lanes, lanes.mul(unit.load(lanes), inverse.load(lanes)));
        Some(Unified { int8_unit, join: Join { keep: inverse, unit } })
    }
}

impl Seen {
    /// Adds a sum of weights of one query, or of as many as a word has numbers.
    #[inline(always)]
    fn add_weights<L: Lanes>(&mut self, lanes: L, query: usize, sum: L::Float, first: bool) {
        let sums = self.of_query(query);
        let sum = if first { sum } else { lanes.add(lanes.floats(lanes.load(sums)), sum) };
        lanes.store(lanes.bits(sum), sums);
    }

    /// That of each query's weights.
    #[inline(always)]
    fn sum_by_query<L: Lanes, O: Operand>(&self, lanes: L, queries: usize) -> L::Float {
        let mut sums = [lanes.splat(0); QUAD];
        if self.fresh {
            return splat(lanes, 0.0);
        }
        for quad in 0..queries.div_ceil(QUAD) {
            let mut of_quad = [splat(lanes, 0.0); QUAD];
            for n in 0..QUAD / O::PER_WORD {
                of_quad[n] = lanes.floats(lanes.load(self.words_of(quad * QUAD + n * O::PER_WORD)));
            }
            sums[quad % QUAD] = lanes.bits(O::sums_of_four(lanes, of_quad));
        }
        sum_by_query(lanes, sums)
    }
}
