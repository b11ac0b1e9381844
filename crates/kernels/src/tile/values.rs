//! The second product: weights with values.

use std::marker::PhantomData;

use super::{
    GROUP, Half, Int8, MAX_QUERIES, Numbers, Operand, Single, Tile, chunk::MOST_ROWS, in_three, splat, vectors_at_once,
};
use crate::{
    lanes::{Lanes, OnLanes},
    packed::words_mut,
};

/// How a chunk's sums join what is there: `keep` times the output so far and `unit` times the sum, for each query.
pub(super) struct Join {
    pub keep: Numbers,
    pub unit: Numbers,
}

/// Sums of weights times values, from feature `at` on, into the output of a tile.
pub(super) struct AddValues<'a, 'b> {
    pub tile: &'a mut Tile<'b>,
    /// Of each precision, as [`Run::rows`](super::Run::rows) has them.
    pub rows: [&'a [u32]; 3],
    /// Of each precision, `[rows][head_dim]`.
    pub values: [&'a [u32]; 3],
    pub at: usize,
    /// As [`Weigh`](super::Weigh) leaves them.
    pub weights: &'a [u32],
    /// What 8-bit sums are multiplied with before others join them.
    pub int8_unit: &'a Numbers,
    pub join: &'a Join,
    /// Sums that a unit for matrices has added up, `[queries][head_dim]`.
    pub sums: &'a [u32],
}

/// Sets of runs, of which a chunk has no others.
pub(super) type Runs = u8;
pub(super) const INT8: Runs = 1;
pub(super) const HALF: Runs = 2;
pub(super) const SINGLE: Runs = 4;
/// Sums that a unit for matrices has added up: integers of 8-bit products alone, or any, in the unit of floats.
pub(super) const INT8_SUMS: Runs = 8;
pub(super) const SUMS: Runs = 16;

/// [`AddValues`] with `R` queries at a time, of which there are enough in a tile, and `C` vectors of features, or the first half
/// of one if `NARROW`, of some `RUNS`.
struct Of<'a, 'b, const R: usize, const C: usize, const NARROW: bool, const RUNS: Runs>(AddValues<'a, 'b>);

impl AddValues<'_, '_> {
    #[inline(always)]
    pub(super) fn of_runs<L: Lanes, const RUNS: Runs>(mut self, lanes: L) {
        let d = self.tile.job.head_dim;
        let registers = RUNS & HALF != 0 && !Half::product_needs_no_registers::<L>();
        while self.at < d {
            let at_once = vectors_at_once::<L>((d - self.at) / L::WIDTH, false);
            macro_rules! add {
                ($r:literal, $c:literal, $narrow:literal) => {
                    lanes.run(Of::<$r, $c, $narrow, RUNS>(self.again()))
                };
            }
            match at_once {
                4 => add!(4, 4, false),
                3 if registers => add!(4, 3, false),
                3 => add!(8, 3, false),
                2 if L::SUMS == 16 => add!(8, 2, false),
                2 => add!(4, 2, false),
                1 if L::SUMS == 16 => add!(8, 1, false),
                1 => add!(4, 1, false),
                _ => add!(8, 1, true),
            }
            self.at += at_once.max(1) * L::WIDTH;
        }
    }
}

impl<'b> AddValues<'_, 'b> {
    #[inline(always)]
    fn again(&mut self) -> AddValues<'_, 'b> {
        let Self { rows, values, at, weights, int8_unit, join, sums, .. } = *self;
        AddValues { tile: &mut *self.tile, rows, values, at, weights, int8_unit, join, sums }
    }
}

impl<const R: usize, const C: usize, const NARROW: bool, const RUNS: Runs> OnLanes for Of<'_, '_, R, C, NARROW, RUNS> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        let AddValues { tile, rows, values, weights, at, int8_unit, join, sums } = self.0;
        let len = if NARROW { L::WIDTH / 2 } else { C * L::WIDTH };
        let (queries, d, fresh) = (tile.queries.len(), tile.job.head_dim, tile.fresh);
        let mut from = [&[][..]; 3];
        for run in 0..3 {
            if RUNS >> run & 1 != 0 {
                from[run] = values[run].get(at..).unwrap_or_default();
                let last = rows[run].iter().fold(0, |last, &row| last.max(row));
                assert!(rows[run].is_empty() || last as usize + len <= from[run].len(), "every key has its values");
            }
        }
        let out = words_mut(tile.out);
        assert!(at + len <= d && queries * d <= out.len(), "every query has its output");
        let known = RUNS & (SUMS | INT8_SUMS) != 0;
        assert!(
            !known || !NARROW && L::WIDTH * d <= sums.len(),
            "every query has its sums, of whole vectors of features"
        );
        let mut parts = Parts { rows, weights, values: from, at, int8_unit, join, fresh, out, head_dim: d, sums };
        let registers = RUNS & HALF != 0 && !Half::product_needs_no_registers::<L>();
        // SAFETY: every key has its values, and every query its output, as has been asserted.
        unsafe {
            if !registers && in_three::<L, Single, R, C>(queries) {
                parts.add::<L, 6, C, NARROW, RUNS, 0>(lanes, 0, 6);
                parts.add::<L, 5, C, NARROW, RUNS, 6>(lanes, 6, 5);
                parts.add::<L, 5, C, NARROW, RUNS, 11>(lanes, 11, 5);
            } else {
                for first in (0..queries).step_by(R) {
                    parts.add::<L, R, C, NARROW, RUNS, 0>(lanes, first, R.min(queries - first));
                }
            }
        }
    }
}

/// What [`AddValues`] has, taken apart.
struct Parts<'a> {
    rows: [&'a [u32]; 3],
    weights: &'a [u32],
    /// From feature `at` on.
    values: [&'a [u32]; 3],
    at: usize,
    int8_unit: &'a Numbers,
    join: &'a Join,
    fresh: bool,
    /// `[queries][head_dim]`
    out: &'a mut [u32],
    head_dim: usize,
    sums: &'a [u32],
}

impl Parts<'_> {
    /// Sums of `count` of `R` queries from `first` on, which is `OFFSET` after one whose words of weights begin a vector.
    ///
    /// # Safety
    /// From every row's beginning on, `values` has as many words as are multiplied; and so has `out` from feature `at` of each
    /// of `first + count` queries on, and `sums`, if there are some, of as many queries as a vector has lanes.
    #[inline(always)]
    unsafe fn add<
        L: Lanes,
        const R: usize,
        const C: usize,
        const NARROW: bool,
        const RUNS: Runs,
        const OFFSET: usize,
    >(
        &mut self,
        lanes: L,
        first: usize,
        count: usize,
    ) {
        let weights = |before: usize| &self.weights[before + (first - OFFSET) * L::WIDTH..];
        let ([int8, half, single], [of_int8, of_half, of_single]) = (self.rows, self.values);
        let mut sums = [[splat(lanes, 0.0); C]; R];
        let mut before = 0;
        if RUNS & (INT8_SUMS | SUMS) != 0 {
            for r in 0..R {
                for c in 0..C {
                    let from = (first + r) % MAX_QUERIES * self.head_dim + self.at + c * L::WIDTH;
                    // SAFETY: there are as many sums as a vector has lanes; the caller's promise.
                    let sum = lanes.load(unsafe { self.sums.get_unchecked(from..from + L::WIDTH) });
                    sums[r][c] = if RUNS & SUMS != 0 { lanes.floats(sum) } else { lanes.convert(sum) };
                }
            }
            // Weights of other runs come first.
            before = words_of::<L, Int8>(int8) + words_of::<L, Half>(half);
        }
        if RUNS & INT8 != 0 && (RUNS == INT8 || !int8.is_empty()) {
            let start = [[Int8::zero(lanes); C]; R];
            // SAFETY: the caller's promise, here and below.
            let products =
                unsafe { multiply::<L, Int8, R, C, NARROW, OFFSET>(lanes, start, int8, weights(before), of_int8) };
            for r in 0..R {
                // Of a query that is not there, anything: its sum goes nowhere.
                let unit = self.int8_unit.splat(lanes, (first + r) % MAX_QUERIES);
                for c in 0..C {
                    sums[r][c] = Int8::float(lanes, products[r][c]);
                    if RUNS != INT8 {
                        sums[r][c] = lanes.mul(sums[r][c], unit);
                    }
                }
            }
            before += words_of::<L, Int8>(int8);
        }
        if RUNS & HALF != 0 && (RUNS == HALF || !half.is_empty()) {
            sums = unsafe { multiply::<L, Half, R, C, NARROW, OFFSET>(lanes, sums, half, weights(before), of_half) };
            before += words_of::<L, Half>(half);
        }
        if RUNS & SINGLE != 0 && (RUNS == SINGLE || !single.is_empty()) {
            sums =
                unsafe { multiply::<L, Single, R, C, NARROW, OFFSET>(lanes, sums, single, weights(before), of_single) };
        }
        let len = if NARROW { L::WIDTH / 2 } else { C * L::WIDTH };
        // A loop for each: one with a condition inside would be compiled to multiply what is not there, too.
        if self.fresh {
            for r in 0..count {
                let unit = self.join.unit.splat(lanes, first + r);
                let from = (first + r) * self.head_dim + self.at;
                // SAFETY: the caller's promise.
                let out = unsafe { self.out.get_unchecked_mut(from..from + len) };
                for c in 0..C {
                    let sum = lanes.mul(sums[r][c], unit);
                    store::<L, NARROW>(lanes, lanes.bits(sum), &mut out[c * L::WIDTH..]);
                }
            }
        } else {
            for r in 0..count {
                let keep = self.join.keep.splat(lanes, first + r);
                let unit = self.join.unit.splat(lanes, first + r);
                let from = (first + r) * self.head_dim + self.at;
                // SAFETY: the caller's promise.
                let out = unsafe { self.out.get_unchecked_mut(from..from + len) };
                for c in 0..C {
                    let before = lanes.floats(load::<L, NARROW>(lanes, &out[c * L::WIDTH..]));
                    let sum = lanes.mul(sums[r][c], unit);
                    store::<L, NARROW>(lanes, lanes.bits(lanes.mul_add(before, keep, sum)), &mut out[c * L::WIDTH..]);
                }
            }
        }
    }
}

#[inline(always)]
fn load<L: Lanes, const NARROW: bool>(lanes: L, from: &[u32]) -> L::Word {
    if NARROW { lanes.load_half(from) } else { lanes.load(from) }
}

#[inline(always)]
fn store<L: Lanes, const NARROW: bool>(lanes: L, words: L::Word, to: &mut [u32]) {
    if NARROW { lanes.store_half(words, to) } else { lanes.store(words, to) }
}

/// A table for each vector width and precision; small numbers, so that it takes a quarter of a kilobyte of the innermost cache.
struct WordsOf<L, O>(PhantomData<(L, O)>);

impl<L: Lanes, O: Operand> WordsOf<L, O> {
    /// Where, in weights of all queries, word n of one query's stands: a vector of keys has those of every query.
    const OF_QUERY: &[u16; MOST_ROWS] = &{
        let (of_group, of_vector) = (GROUP / O::PER_WORD, L::WIDTH / O::PER_WORD);
        let (mut words, mut n) = ([0; MOST_ROWS], 0);
        while n < MOST_ROWS {
            words[n] = (n / of_vector * L::OF_VECTOR + n % of_vector / of_group * GROUP + n % of_group) as u16;
            n += 1;
        }
        words
    };
}

/// Words from the weights of a run to those of the next.
#[inline(always)]
pub(super) fn words_of<L: Lanes, O: Operand>(rows: &[u32]) -> usize {
    rows.len().div_ceil(L::WIDTH / O::PER_WORD) * L::OF_VECTOR
}

/// Adds to `sums` those over words of weights times values, for `R` queries and `C` vectors of features: `[query][vector]`.
///
/// `values` begin at the first of the features, and word n of a query's weights belongs to the row from `rows[n]` on;
/// `weights` begin `OFFSET` queries before the first of them.
///
/// # Safety
/// From every row's beginning on, `values` has as many words as are multiplied.
#[inline(always)]
unsafe fn multiply<L: Lanes, O: Operand, const R: usize, const C: usize, const NARROW: bool, const OFFSET: usize>(
    lanes: L,
    mut sums: [[O::Sum<L>; C]; R],
    rows: &[u32],
    weights: &[u32],
    values: &[u32],
) -> [[O::Sum<L>; C]; R] {
    // Words of one query's weights of a group, and of a vector, of keys.
    let (of_group, of_vector) = (GROUP / O::PER_WORD, L::WIDTH / O::PER_WORD);
    let vectors = rows.len().div_ceil(of_vector);
    assert!(rows.len() <= MOST_ROWS, "no chunk has more words");
    assert!(
        vectors * L::OF_VECTOR + (OFFSET + R) * L::WIDTH <= weights.len() + L::WIDTH * L::WIDTH,
        "every key has its weights"
    );
    let len = if NARROW { L::WIDTH / 2 } else { C * L::WIDTH };
    // Indices, not iterators: an adapter that is not inlined leaves no sum in a register. One loop, not one for the rows of
    // a group in another: unrolled, it would load all weights first, for which there are not enough registers.
    for n in 0..rows.len() {
        let word = WordsOf::<L, O>::OF_QUERY[n] as usize;
        // SAFETY: the caller's promise.
        let row = unsafe { values.get_unchecked(rows[n] as usize..rows[n] as usize + len) };
        let mut vector = [lanes.splat(0); C];
        for c in 0..C {
            vector[c] = load::<L, NARROW>(lanes, &row[c * L::WIDTH..]);
        }
        for r in 0..R {
            let query = OFFSET + r;
            let of_query = query / O::PER_WORD * O::PER_WORD * L::WIDTH + query % O::PER_WORD * of_group;
            // SAFETY: at most word WIDTH - 1 of the last query of a vector of keys, and those are all there.
            let weight = lanes.splat(unsafe { *weights.get_unchecked(word + of_query) });
            for c in 0..C {
                sums[r][c] = O::add_product(lanes, sums[r][c], weight, vector[c]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

    use super::*;
    use crate::{
        lanes::MAX_WIDTH,
        tile::{Half, Int8, Single},
    };

    /// What each of sixteen queries gets.
    type Sums = [[[u32; MAX_WIDTH]; 4]; 16];

    struct Case {
        rows: Vec<u32>,
        weights: Vec<u32>,
        values: Vec<u32>,
    }

    fn add<L: Lanes, O: Operand, const R: usize, const OFFSET: usize>(
        lanes: L,
        case: &Case,
        first: usize,
        to: &mut Sums,
    ) {
        let weights = &case.weights[(first - OFFSET) * L::WIDTH..];
        // SAFETY: every row begins four vectors before the end of the values, or earlier.
        let sums = unsafe {
            multiply::<L, O, R, 4, false, OFFSET>(lanes, [[O::zero(lanes); 4]; R], &case.rows, weights, &case.values)
        };
        for (to, of_query) in to[first..].iter_mut().zip(sums) {
            for (to, sum) in to.iter_mut().zip(of_query) {
                lanes.store(lanes.bits(O::float(lanes, sum)), to);
            }
        }
    }

    /// At every precision and on every set of instructions, also where no call divides queries so: with BF16, and of 16-bit products.
    fn six_five_and_five_are_four_times_four<L: Lanes, O: Operand>(lanes: L, number: impl Fn(&mut ChaCha8Rng) -> u32) {
        let mut rng = ChaCha8Rng::seed_from_u64(O::PER_WORD as u64);
        // Two and a half vectors of keys.
        let count = 40 / O::PER_WORD;
        let mut draw = |len: usize| (0..len).map(|_| number(&mut rng)).collect::<Vec<_>>();
        let (weights, values) = (draw(3 * L::OF_VECTOR), draw(8 * MAX_WIDTH));
        let rows = (0..count as u32).map(|n| n * 7 % (4 * MAX_WIDTH as u32)).collect();
        let case = Case { rows, weights, values };
        let (mut fours, mut others): (Sums, Sums) = Default::default();
        for first in [0, 4, 8, 12] {
            add::<L, O, 4, 0>(lanes, &case, first, &mut fours);
        }
        add::<L, O, 6, 0>(lanes, &case, 0, &mut others);
        add::<L, O, 5, 6>(lanes, &case, 6, &mut others);
        add::<L, O, 5, 11>(lanes, &case, 11, &mut others);
        assert_eq!(fours, others);
        assert!(fours.iter().zip(&fours[1..]).all(|(one, next)| one != next), "queries differ");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn sixteen_queries_are_the_same_in_three_loops_and_in_four() {
        fn check<L: Lanes>(lanes: L) {
            let single = |rng: &mut ChaCha8Rng| rng.random_range(-1.0_f32..1.0).to_bits();
            six_five_and_five_are_four_times_four::<L, Single>(lanes, single);
            six_five_and_five_are_four_times_four::<L, Half>(lanes, |rng| {
                single(rng) & 0xffff_0000 | single(rng) >> 16
            });
            six_five_and_five_are_four_times_four::<L, Int8>(lanes, |rng| rng.random());
        }
        use crate::lanes::Avx512;
        Avx512::<false>::detect().into_iter().for_each(check);
        Avx512::<true>::detect().into_iter().for_each(check);
    }
}
