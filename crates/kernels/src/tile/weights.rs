//! From scores to weights.

use super::{Ahead, Chunk, Half, Int8, NO_SCORE, Numbers, Operand, Seen, Single, Tile, splat};
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
    /// From a product to a score in powers of two, at 8 bit and else.
    pub scales: [f32; 2],
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
    type Output = Weighed;

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) -> Weighed {
        let Self { tile, chunk, seen: [seen_int8, seen_others, _], scales: [scale_int8, scale], scores } = self;
        let Chunk([int8, half, single]) = chunk;
        let [of_int8, of_half, of_single] = chunk.parts::<L>(scores);
        let before = tile.max.load(lanes);
        let (mut max, mut max_int8) = (before, splat(lanes, f32::MIN));
        if !int8.is_empty() {
            max_int8 = seen_int8.max_in_real_units(lanes, scale_int8);
            max = lanes.max(max_int8, max);
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
        if !int8.is_empty() {
            let of_run = weigh_int8(lanes, tile, max_int8, scale_int8, of_int8, asks);
            // Exactly one where no other score is larger, and so where there are none.
            let alone = tile.fresh && half.is_empty() && single.is_empty();
            let share = match alone {
                true => splat(lanes, 1.0),
                false => lanes.exp2([lanes.sub(max_int8, max)], &EXP2)[0],
            };
            sum = lanes.mul(of_run, share);
            int8_unit = Numbers::of(lanes, lanes.mul(share, splat(lanes, tile.job.int8_unit())));
        }
        let quads = Quads { maxima, queries, asks };
        if !half.is_empty() {
            sum = lanes.add(sum, quads.weigh::<L, Half>(lanes, scale, of_half, &mut tile.ahead));
        }
        if !single.is_empty() {
            sum = lanes.add(sum, quads.weigh::<L, Single>(lanes, scale, of_single, &mut tile.ahead));
        }
        let sum = lanes.mul_add(tile.sum.load(lanes), correction, lanes.add(sum, poison));
        tile.sum = Numbers::of(lanes, sum);
        Weighed { correction: Numbers::of(lanes, correction), int8_unit }
    }
}

/// Turns scores of a chunk's 8-bit run into weights relative to `max`, their largest ones, in place. Gives the sum of each query's.
#[inline(always)]
pub(super) fn weigh_int8<L: Lanes>(
    lanes: L,
    tile: &mut Tile<'_>,
    max: L::Float,
    scale: f32,
    scores: &mut [u32],
    asks: bool,
) -> L::Float {
    let (mut maxima, queries) = (Numbers::of(lanes, max), tile.queries.len());
    if !lanes.all_within(max, LARGE) {
        let maxima = &mut maxima.0[..queries];
        subtract::<L>(scale, maxima, scores);
        maxima.iter_mut().filter(|max| is_large(max)).for_each(|max| *max = 0);
    }
    Quads { maxima, queries, asks }.weigh::<L, Int8>(lanes, scale, scores, &mut tile.ahead)
}

/// Whether the next head's lines are asked for while scores of a chunk become weights: loops of products ask for a line with each word of
/// keys, which are too few where chunks are short.
#[inline(always)]
pub(super) fn is_short<L: Lanes>(Chunk([int8, half, single]): &Chunk) -> bool {
    int8.words::<L>() + half.words::<L>() + 2 * single.words::<L>() < SHORT * L::OF_VECTOR / L::WIDTH
}

/// All queries of a tile, four at a time.
struct Quads {
    /// What is taken from scores.
    maxima: Numbers,
    queries: usize,
    /// Whether the next head's lines are asked for meanwhile.
    asks: bool,
}

impl Quads {
    /// The scores of a run. Gives the sum of each query's weights.
    ///
    /// The weights of as many queries as there are numbers in a word share vectors, which lie where the scores of the first
    /// of them were: see [`Operand::weights`].
    #[inline(always)]
    fn weigh<L: Lanes, O: Operand>(&self, lanes: L, scale: f32, scores: &mut [u32], ahead: &mut Ahead<'_>) -> L::Float {
        let vectors = scores.len() / L::OF_VECTOR;
        assert!(self.queries <= L::WIDTH, "a tile has no more queries than a vector has lanes");
        let quads = self.queries.div_ceil(QUAD);
        let scale = splat(lanes, scale);
        let ahead = if self.asks { ahead.take(quads * vectors * QUAD) } else { &[] };
        // A line that is near, anyway, where nothing is to be asked for.
        let (mut asked, step) = match ahead {
            [] => (scores.as_ptr(), 0),
            [first, ..] => (first.as_ptr().cast(), first.len()),
        };
        let mut sums = [lanes.splat(0); QUAD];
        for quad in 0..quads {
            let of = |query| self.maxima.splat(lanes, QUAD * quad + query);
            let max = [of(0), of(1), of(2), of(3)];
            let mut of_quad = [O::zero(lanes); QUAD];
            for at in 0..vectors {
                // SAFETY: every vector of keys has a vector of scores of each of as many queries as a vector has lanes.
                let scores = unsafe {
                    let from = at * L::OF_VECTOR + quad * QUAD * L::WIDTH;
                    scores.get_unchecked_mut(from..from + QUAD * L::WIDTH)
                };
                for _ in 0..QUAD {
                    lanes.prefetch_for_later(asked);
                    asked = asked.wrapping_add(step);
                }
                let of = |query| lanes.floats(lanes.load(&scores[query * L::WIDTH..]));
                let weights = O::weights(lanes, [of(0), of(1), of(2), of(3)], scale, max);
                for n in 0..QUAD / O::PER_WORD {
                    of_quad[n] = O::add_weights(lanes, of_quad[n], weights[n]);
                    lanes.store(weights[n], &mut scores[n * O::PER_WORD * L::WIDTH..]);
                }
            }
            let mut floats = [splat(lanes, 0.0); QUAD];
            for n in 0..QUAD {
                floats[n] = O::float(lanes, of_quad[n]);
            }
            sums[quad % QUAD] = lanes.bits(O::sums_of_four(lanes, floats));
        }
        lanes.mul(sum_by_query(lanes, sums), splat(lanes, O::WEIGHT_UNIT))
    }
}

/// Numbers of a chunk's scores for each query, those of 32-bit keys counted twice, below which it is short.
const SHORT: usize = 128;

/// Octaves up to which a fused multiply-subtract in units of 2^-12 of them is exact enough.
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
