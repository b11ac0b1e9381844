//! The second product: weights with values.

use std::marker::PhantomData;

use super::{CHUNK, GROUP, Numbers, Operand, Tile, in_three};
use crate::{
    lanes::{Lanes, OnLanes},
    packed::words_mut,
};

/// Values of one head in one precision: `[rows][head_dim]`, words of as many keys as a word has numbers.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub words: &'a [u32],
    pub head_dim: usize,
}

impl Values<'_> {
    /// For each word of a query's weights, where its values begin. A key of the last group that is not there has those of
    /// the last one that is: its weight is next to nothing.
    #[inline(always)]
    pub(super) fn rows<'a, O: Operand>(
        &self,
        groups: &[u32],
        live_keys: usize,
        rows: &'a mut [u32; CHUNK],
    ) -> &'a [u32] {
        let (of_group, last) = ((GROUP / O::PER_WORD) as u32, ((live_keys - 1) / O::PER_WORD) as u32);
        for (rows, &group) in rows.chunks_exact_mut(of_group as usize).zip(groups) {
            for (row, n) in rows.iter_mut().zip(0..) {
                *row = (group * of_group + n).min(last) * self.head_dim as u32;
            }
        }
        &rows[..groups.len() * of_group as usize]
    }
}

/// How a chunk's sums join what is there: `keep` times the output so far and `unit` times the sum, for each query.
pub(super) struct Join {
    pub keep: Numbers,
    pub unit: Numbers,
}

/// Sums of weights times values, from feature `at` on, into the output of a tile.
pub(super) struct AddValues<'a, 'b> {
    pub tile: &'a mut Tile<'b>,
    /// As [`Values::rows`] has them.
    pub rows: &'a [u32],
    pub values: &'a Values<'a>,
    pub at: usize,
    /// As [`Weigh`](super::Weigh) leaves them.
    pub weights: &'a [u32],
    pub join: &'a Join,
}

/// The same with `R` queries at a time, of which there are enough in a tile, and `C` vectors of features, or the first half
/// of one.
pub(super) struct Of<'a, 'b, O, const R: usize, const C: usize, const HALF: bool> {
    sums: AddValues<'a, 'b>,
    operand: PhantomData<O>,
}

impl<'a, 'b> AddValues<'a, 'b> {
    #[inline(always)]
    pub(super) fn of<O: Operand, const R: usize, const C: usize>(self) -> Of<'a, 'b, O, R, C, false> {
        Of { sums: self, operand: PhantomData }
    }

    #[inline(always)]
    pub(super) fn of_half<O: Operand, const R: usize>(self) -> Of<'a, 'b, O, R, 1, true> {
        Of { sums: self, operand: PhantomData }
    }
}

impl<O: Operand, const R: usize, const C: usize, const HALF: bool> OnLanes for Of<'_, '_, O, R, C, HALF> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        let AddValues { tile, rows, values, at, weights, join } = self.sums;
        let len = if HALF { L::WIDTH / 2 } else { C * L::WIDTH };
        let (queries, d, fresh) = (tile.queries.len(), values.head_dim, tile.fresh);
        let values = &values.words[at..];
        let last = rows.iter().fold(0, |last, &row| last.max(row));
        assert!(last as usize + len <= values.len(), "every key has its values");
        let out = words_mut(tile.out);
        assert!(at + len <= d && queries * d <= out.len(), "every query has its output");
        let mut parts = Parts { rows, weights, values, at, join, fresh, out, head_dim: d };
        // SAFETY: every key has its values, and every query its output, as has been asserted.
        unsafe {
            if in_three::<L, O, R, C>(queries) {
                parts.add::<L, O, 6, C, HALF, 0>(lanes, 0, 6);
                parts.add::<L, O, 5, C, HALF, 6>(lanes, 6, 5);
                parts.add::<L, O, 5, C, HALF, 11>(lanes, 11, 5);
            } else {
                for first in (0..queries).step_by(R) {
                    parts.add::<L, O, R, C, HALF, 0>(lanes, first, R.min(queries - first));
                }
            }
        }
    }
}

/// What [`AddValues`] has, taken apart.
struct Parts<'a> {
    rows: &'a [u32],
    weights: &'a [u32],
    /// From feature `at` on.
    values: &'a [u32],
    at: usize,
    join: &'a Join,
    fresh: bool,
    /// `[queries][head_dim]`
    out: &'a mut [u32],
    head_dim: usize,
}

impl Parts<'_> {
    /// Sums of `count` of `R` queries from `first` on, which is `OFFSET` after one whose words of weights begin a vector.
    ///
    /// # Safety
    /// From every row's beginning on, `values` has as many words as are multiplied; and so has `out` from feature `at` of each
    /// of `first + count` queries on.
    #[inline(always)]
    unsafe fn add<L: Lanes, O: Operand, const R: usize, const C: usize, const HALF: bool, const OFFSET: usize>(
        &mut self,
        lanes: L,
        first: usize,
        count: usize,
    ) {
        let weights = &self.weights[(first - OFFSET) * L::WIDTH..];
        // SAFETY: the caller's promise.
        let sums = unsafe { multiply::<L, O, R, C, HALF, OFFSET>(lanes, self.rows, weights, self.values) };
        let len = if HALF { L::WIDTH / 2 } else { C * L::WIDTH };
        // A loop for each: one with a condition inside would be compiled to multiply what is not there, too.
        if self.fresh {
            for r in 0..count {
                let unit = self.join.unit.splat(lanes, first + r);
                let from = (first + r) * self.head_dim + self.at;
                // SAFETY: the caller's promise.
                let out = unsafe { self.out.get_unchecked_mut(from..from + len) };
                for c in 0..C {
                    let sum = lanes.mul(O::float(lanes, sums[r][c]), unit);
                    store::<L, HALF>(lanes, lanes.bits(sum), &mut out[c * L::WIDTH..]);
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
                    let before = lanes.floats(load::<L, HALF>(lanes, &out[c * L::WIDTH..]));
                    let sum = lanes.mul(O::float(lanes, sums[r][c]), unit);
                    store::<L, HALF>(lanes, lanes.bits(lanes.mul_add(before, keep, sum)), &mut out[c * L::WIDTH..]);
                }
            }
        }
    }
}

#[inline(always)]
fn load<L: Lanes, const HALF: bool>(lanes: L, from: &[u32]) -> L::Word {
    if HALF { lanes.load_half(from) } else { lanes.load(from) }
}

#[inline(always)]
fn store<L: Lanes, const HALF: bool>(lanes: L, words: L::Word, to: &mut [u32]) {
    if HALF { lanes.store_half(words, to) } else { lanes.store(words, to) }
}

/// A table for each vector width and precision; small numbers, so that it takes half a kilobyte of the innermost cache.
struct WordsOf<L, O>(PhantomData<(L, O)>);

impl<L: Lanes, O: Operand> WordsOf<L, O> {
    /// Where, in weights of all queries, word n of one query's stands: a vector of keys has those of every query.
    const OF_QUERY: &[u16; CHUNK] = &{
        let (of_group, of_vector) = (GROUP / O::PER_WORD, L::WIDTH / O::PER_WORD);
        let (mut words, mut n) = ([0; CHUNK], 0);
        while n < CHUNK / O::PER_WORD {
            words[n] = (n / of_vector * L::OF_VECTOR + n % of_vector / of_group * GROUP + n % of_group) as u16;
            n += 1;
        }
        words
    };
}

/// Sums over words of weights times values, for `R` queries and `C` vectors of features: `[query][vector]`.
///
/// `values` begin at the first of the features, and word n of a query's weights belongs to the row from `rows[n]` on;
/// `weights` begin `OFFSET` queries before the first of them.
///
/// # Safety
/// From every row's beginning on, `values` has as many words as are multiplied.
#[inline(always)]
unsafe fn multiply<L: Lanes, O: Operand, const R: usize, const C: usize, const HALF: bool, const OFFSET: usize>(
    lanes: L,
    rows: &[u32],
    weights: &[u32],
    values: &[u32],
) -> [[O::Sum<L>; C]; R] {
    // Words of one query's weights of a group, and of a vector, of keys.
    let (of_group, of_vector) = (GROUP / O::PER_WORD, L::WIDTH / O::PER_WORD);
    let vectors = rows.len().div_ceil(of_vector);
    assert!(rows.len() <= CHUNK / O::PER_WORD, "no chunk has more words");
    assert!(
        vectors * L::OF_VECTOR <= weights.len() + (L::WIDTH - (OFFSET + R)) * L::WIDTH,
        "every key has its weights"
    );
    let len = if HALF { L::WIDTH / 2 } else { C * L::WIDTH };
    let mut sums = [[O::zero(lanes); C]; R];
    // Indices, not iterators: an adapter that is not inlined leaves no sum in a register. One loop, not one for the rows of
    // a group in another: unrolled, it would load all weights first, for which there are not enough registers.
    for n in 0..rows.len() {
        let word = WordsOf::<L, O>::OF_QUERY[n] as usize;
        // SAFETY: the caller's promise.
        let row = unsafe { values.get_unchecked(rows[n] as usize..rows[n] as usize + len) };
        let mut vector = [lanes.splat(0); C];
        for c in 0..C {
            vector[c] = load::<L, HALF>(lanes, &row[c * L::WIDTH..]);
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
        let sums = unsafe { multiply::<L, O, R, 4, false, OFFSET>(lanes, &case.rows, weights, &case.values) };
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
