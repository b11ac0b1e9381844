//! From scores to weights.

use std::marker::PhantomData;

use super::{
    Chunk, Half, Int8, NO_SCORE, Numbers, Operand, Seen, Single, Tile,
    pairs::{OfPairs, PairScale},
    splat,
};
use crate::lanes::{EXP2, Lanes, MAX_WIDTH, OnLanes};

/// Queries whose weights are computed together. A tile has at most as many quads, too: a vector has [`MAX_WIDTH`] lanes.
pub(super) const QUAD: usize = 4;
const _: () = assert!(QUAD * QUAD == MAX_WIDTH);

/// Turns a chunk's scores into weights, in place, and moves maxima and sums on: a step of the online softmax.
///
/// Weights at 16 and 32 bit are relative to the running maximum, as floats can be as small as that takes. 8-bit ones, which cannot, are
/// relative to the largest 8-bit score of the chunk: keys that are computed at 8 bit because they matter little would else be lost beside
/// one that matters much.
pub(super) struct Weigh<'a, 'b> {
    pub tile: &'a mut Tile<'b>,
    pub chunk: &'a Chunk,
    /// Of 8-bit scores, and of others.
    pub seen: &'a [Seen; 3],
    pub scale_int8: Int8Scale,
    /// From a product at 16 or 32 bit to a score in powers of two.
    pub scale: f32,
    /// Of all runs of the chunk.
    pub scores: &'a mut [u32],
}

/// For each query.
pub(super) struct Weighed {
    /// What the output so far has to be multiplied by.
    pub correction: Numbers,
    /// From a sum of 8-bit weights times values to one of others.
    pub int8_unit: Numbers,
}

impl OnLanes for Weigh<'_, '_> {
    /// Nothing where 8-bit scores are pairs, but should be floats.
    type Output = Option<Weighed>;

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) -> Option<Weighed> {
        let Self { tile, chunk, seen: [seen_int8, seen_others, _], scale_int8, scale, scores } = self;
        let Chunk([int8, half, single]) = chunk;
        let [of_int8, of_half, of_single] = chunk.parts::<L>(scores);
        let before = tile.max.load(lanes);
        let (mut max, mut max_int8) = (before, None);
        if !int8.is_empty() {
            let of_int8 = MaxInt8::of(lanes, seen_int8, scale_int8)?;
            max = lanes.max(of_int8.real, max);
            max_int8 = Some(of_int8);
        }
        if !(half.is_empty() && single.is_empty()) {
            max = lanes.max(lanes.mul(seen_others.max(lanes), splat(lanes, scale)), max);
        }
        // Exactly zero where nothing has been summed: the least power of two over a sum is a denormal number, which slows
        // every product that it meets.
        let correction = match tile.fresh {
            true => splat(lanes, 0.0),
            false => lanes.exp2([lanes.sub(before, max)], &EXP2)[0],
        };
        tile.max = Numbers::of(lanes, max);
        // Where weights hide what is NaN, their sum must not. A difference of infinities is NaN, too.
        let mut poison = splat(lanes, 0.0);
        if !half.is_empty() {
            poison = lanes.sub(max, max);
            if seen_others.any_nan(lanes) {
                poison = lanes.add(poison, nan_by_query::<L>(tile.queries.len(), of_half).load(lanes));
            }
        }
        let queries = tile.queries.len();
        let mut maxima = tile.max;
        if !lanes.all_within(max, LARGE) {
            // Only of queries that are there: what stands for others may be anything.
            let maxima = &mut maxima.0[..queries];
            subtract::<L>(scale, maxima, of_half);
            subtract::<L>(scale, maxima, of_single);
            maxima.iter_mut().filter(|max| is_large(max)).for_each(|max| *max = 0);
        }
        let asks = is_short::<L>(chunk);
        let (mut sum, mut int8_unit) = (splat(lanes, 0.0), Numbers::all(0.0));
        if let Some(max_int8) = max_int8 {
            let of_run = max_int8.weigh(lanes, tile, of_int8, asks);
            // Exactly one where no other score is larger, and so where there are none.
            let alone = tile.fresh && half.is_empty() && single.is_empty();
            let share = match alone {
                true => splat(lanes, 1.0),
                false => lanes.exp2([lanes.sub(max_int8.real, max)], &EXP2)[0],
            };
            sum = lanes.mul(of_run, share);
            int8_unit = Numbers::of(lanes, lanes.mul(share, splat(lanes, tile.job.int8_unit())));
        }
        let scale = splat(lanes, scale);
        if !half.is_empty() {
            sum = lanes.add(sum, OfFloats::<L, Half>::new(scale, maxima).weigh(lanes, tile, of_half, asks));
        }
        if !single.is_empty() {
            sum = lanes.add(sum, OfFloats::<L, Single>::new(scale, maxima).weigh(lanes, tile, of_single, asks));
        }
        let sum = lanes.mul_add(tile.sum.load(lanes), correction, lanes.add(sum, poison));
        tile.sum = Numbers::of(lanes, sum);
        Some(Weighed { correction: Numbers::of(lanes, correction), int8_unit })
    }
}

/// What 8-bit scores are.
#[derive(Clone, Copy)]
pub(super) enum Int8Scale {
    Pairs(PairScale),
    /// From a product to a score in powers of two.
    Floats(f32),
}

/// The largest 8-bit score of each query.
pub(super) struct MaxInt8<L: Lanes> {
    /// In powers of two.
    pub real: L::Float,
    scores: Int8Scores,
}

enum Int8Scores {
    Pairs(OfPairs),
    Floats(f32),
}

impl<L: Lanes> MaxInt8<L> {
    /// Nothing where scores are pairs, but should be floats.
    #[inline(always)]
    pub(super) fn of(lanes: L, seen: &Seen, scale: Int8Scale) -> Option<Self> {
        let (real, scores) = match scale {
            Int8Scale::Pairs(scale) => {
                let (real, maxima) = scale.max(lanes, seen)?;
                (real, Int8Scores::Pairs(OfPairs { scale, maxima }))
            }
            Int8Scale::Floats(scale) => (seen.max_in_real_units(lanes, scale), Int8Scores::Floats(scale)),
        };
        Some(Self { real, scores })
    }

    /// Turns scores of a chunk's 8-bit run into weights relative to these, in place. Gives the sum of each query's.
    #[inline(always)]
    pub(super) fn weigh(&self, lanes: L, tile: &mut Tile<'_>, scores: &mut [u32], asks: bool) -> L::Float {
        match &self.scores {
            Int8Scores::Pairs(of_pairs) => of_pairs.weigh(lanes, tile, scores, asks),
            &Int8Scores::Floats(scale) => {
                let max = Numbers::of(lanes, self.real);
                lanes.run(WeighFloats { tile, max, scale, scores, asks }).load(lanes)
            }
        }
    }
}

/// [`MaxInt8::weigh`] of floats, in a function of its own: they are rare, and their registers should not be others'.
struct WeighFloats<'a, 'b> {
    tile: &'a mut Tile<'b>,
    max: Numbers,
    scale: f32,
    scores: &'a mut [u32],
    asks: bool,
}

impl OnLanes for WeighFloats<'_, '_> {
    type Output = Numbers;

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) -> Numbers {
        let Self { tile, mut max, scale, scores, asks } = self;
        if !lanes.all_within(max.load(lanes), LARGE) {
            let maxima = &mut max.0[..tile.queries.len()];
            subtract::<L>(scale, maxima, scores);
            maxima.iter_mut().filter(|max| is_large(max)).for_each(|max| *max = 0);
        }
        let weights = OfFloats::<L, Int8>::new(splat(lanes, scale), max);
        Numbers::of(lanes, weights.weigh(lanes, tile, scores, asks))
    }
}

/// Whether the next head's lines are asked for while scores of a chunk become weights: loops of products ask for a line with each word of
/// keys, which are too few where chunks are short.
#[inline(always)]
pub(super) fn is_short<L: Lanes>(Chunk([int8, half, single]): &Chunk) -> bool {
    int8.words::<L>() + half.words::<L>() + 2 * single.words::<L>() < SHORT * L::OF_VECTOR / L::WIDTH
}

/// How scores become weights, of four queries at a time.
pub(super) trait ToWeights<L: Lanes>: Sized {
    type Operand: Operand;
    /// The largest scores of four queries.
    type Max: Copy;

    fn max(&self, lanes: L, first: usize) -> Self::Max;
    /// As [`Operand::weights`] has them, of a vector of keys.
    fn weights(&self, lanes: L, scores: &[u32], max: Self::Max) -> [L::Word; QUAD];

    /// Turns the scores of a run into weights, in place. Gives the sum of each query's.
    ///
    /// The weights of as many queries as there are numbers in a word share vectors, which lie where [`Operand::keep`] says. The next head's lines are asked for meanwhile, or not.
    #[inline(always)]
    fn weigh(&self, lanes: L, tile: &mut Tile<'_>, scores: &mut [u32], asks: bool) -> L::Float {
        let (vectors, queries) = (scores.len() / L::OF_VECTOR, tile.queries.len());
        let (of_word, four) = (Self::Operand::PER_WORD, tile.job.four);
        assert!(queries <= L::WIDTH, "a tile has no more queries than a vector has lanes");
        let quads = queries.div_ceil(QUAD);
        let ahead = if asks { tile.ahead.take(quads * vectors * QUAD) } else { &[] };
        // A line that is near, anyway, where nothing is to be asked for.
        let (mut asked, step) = match ahead {
            [] => (scores.as_ptr(), 0),
            [first, ..] => (first.as_ptr().cast(), first.len()),
        };
        let mut sums = [lanes.splat(0); QUAD];
        for quad in 0..quads {
            let max = self.max(lanes, QUAD * quad);
            let mut of_quad = [Self::Operand::zero(lanes); QUAD];
            for at in 0..vectors {
                // SAFETY: every vector of keys has a vector of scores of each of as many queries as a vector has lanes.
                let scores =
                    unsafe { scores.get_unchecked_mut(at * L::OF_VECTOR..at * L::OF_VECTOR + L::WIDTH * L::WIDTH) };
                for _ in 0..QUAD {
                    lanes.prefetch_for_later(asked);
                    asked = asked.wrapping_add(step);
                }
                // SAFETY: likewise.
                let of_quad_scores =
                    unsafe { scores.get_unchecked(quad * QUAD * L::WIDTH..(quad + 1) * QUAD * L::WIDTH) };
                let weights = self.weights(lanes, of_quad_scores, max);
                for n in 0..QUAD / of_word {
                    of_quad[n] = Self::Operand::add_weights(lanes, of_quad[n], weights[n]);
                    // SAFETY: likewise.
                    unsafe { Self::Operand::keep(lanes, weights[n], scores, quad * QUAD + n * of_word, four) };
                }
            }
            let mut floats = [splat(lanes, 0.0); QUAD];
            for n in 0..QUAD {
                floats[n] = Self::Operand::float(lanes, of_quad[n]);
            }
            sums[quad % QUAD] = lanes.bits(Self::Operand::sums_of_four(lanes, floats));
        }
        lanes.mul(sum_by_query(lanes, sums), splat(lanes, Self::Operand::WEIGHT_UNIT))
    }
}

/// Of scores that are floats.
struct OfFloats<L: Lanes, O> {
    scale: L::Float,
    /// What is taken from scores.
    maxima: Numbers,
    operand: PhantomData<O>,
}

impl<L: Lanes, O: Operand> OfFloats<L, O> {
    #[inline(always)]
    fn new(scale: L::Float, maxima: Numbers) -> Self {
        Self { scale, maxima, operand: PhantomData }
    }
}

impl<L: Lanes, O: Operand> ToWeights<L> for OfFloats<L, O> {
    type Operand = O;
    type Max = [L::Float; QUAD];

    #[inline(always)]
    fn max(&self, lanes: L, first: usize) -> [L::Float; QUAD] {
        let of = |query| self.maxima.splat(lanes, first + query);
        [of(0), of(1), of(2), of(3)]
    }

    #[inline(always)]
    fn weights(&self, lanes: L, scores: &[u32], max: [L::Float; QUAD]) -> [L::Word; QUAD] {
        let of = |query| lanes.floats(lanes.load(&scores[query * L::WIDTH..]));
        O::weights(lanes, [of(0), of(1), of(2), of(3)], self.scale, max)
    }
}

/// Numbers of a chunk's scores for each query, those of 32-bit keys counted twice, below which it is short.
const SHORT: usize = 128;

/// Octaves up to which a fused multiply-subtract in units of 2^-9 of them is exact enough.
const LARGE: f32 = 1024.0;

fn is_large(max: &u32) -> bool {
    let max = f32::from_bits(*max);
    max.abs() > LARGE && max >= NO_SCORE && max.is_finite()
}

/// Takes the maximum of each query that has a large one from its scores, which are rounded as that was, so that the largest
/// of them keeps its weight of one; what is left to be taken away is nothing.
#[cold]
fn subtract<L: Lanes>(scale: f32, maxima: &[u32], scores: &mut [u32]) {
    for of_vector in scores.chunks_exact_mut(L::OF_VECTOR) {
        for (of_query, max) in of_vector.chunks_exact_mut(L::WIDTH).zip(maxima).filter(|(_, max)| is_large(max)) {
            for score in of_query {
                *score = ((f32::from_bits(*score) * scale - f32::from_bits(*max)) / scale).to_bits();
            }
        }
    }
}

/// NaN for each query that has a score that is NaN, else 0.
#[cold]
fn nan_by_query<L: Lanes>(queries: usize, scores: &[u32]) -> Numbers {
    let mut numbers = Numbers::all(0.0);
    for of_vector in scores.chunks_exact(L::OF_VECTOR) {
        for (number, of_query) in numbers.0.iter_mut().zip(of_vector.chunks_exact(L::WIDTH)).take(queries) {
            if of_query.iter().any(|&bits| f32::from_bits(bits).is_nan()) {
                *number = f32::NAN.to_bits();
            }
        }
    }
    numbers
}

/// The sum of each query's weights: of quad n of queries, word m of each group of `sums[n]` is a part of that of query m.
#[inline(always)]
pub(super) fn sum_by_query<L: Lanes>(lanes: L, sums: [L::Word; QUAD]) -> L::Float {
    let turned = lanes.turn_groups(sums);
    let mut sum = lanes.floats(turned[0]);
    for group in 1..L::GROUPS {
        sum = lanes.add(sum, lanes.floats(turned[group]));
    }
    sum
}
