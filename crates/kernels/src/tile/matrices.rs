//! Both products by a unit for matrices, which multiplies all queries of a tile with a vector of keys, or of features, by one instruction for each 16 words.
//! What comes of it goes through memory, and on from there as from the [loops](super::scores) of vectors.

use std::marker::PhantomData;

use super::{
    Half, Int8, LINE, Numbers, Operand, Operands, Run, Seen, Tile,
    scores::{Hide, Keys, Outcome, Products},
    values::words_of,
};
use crate::lanes::{Lanes, MatrixScores, MatrixSums, OnLanes};

/// Vectors of keys, or of features, that are multiplied at once.
const AT_ONCE: usize = 2;

/// Queries whose products are looked at at once.
const QUERIES: usize = 4;

/// Lines that are asked for with the products of each vector of keys and of so many queries.
const LINES: usize = 2;

/// As [`Score`](super::Score), of all vectors of a run.
pub(super) struct ScoreMatrices<'a, 'b, O, B> {
    pub tile: &'a mut Tile<'b>,
    pub run: &'a Run,
    pub operands: &'a Operands<'a>,
    pub scores: &'a mut [u32],
    pub seen: &'a mut Seen,
    pub outcome: PhantomData<(O, B)>,
}

impl<O: Operand, B: Outcome<O>> OnLanes for ScoreMatrices<'_, '_, O, B> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(mut self, lanes: L) {
        let Keys { packed, words, span, .. } = self.operands.keys;
        let (first, vectors) = (self.tile.queries.start * words, self.run.vectors::<L>());
        let queries = &self.operands.queries[first..][..L::WIDTH * words];
        assert!(span == L::WIDTH && vectors * L::OF_VECTOR <= self.scores.len() && words.is_multiple_of(8));
        debug_assert!(!self.tile.job.four || words.is_multiple_of(16), "eight words take registers of eight");
        let last = (0..vectors).fold(0, |last, at| last.max(self.run.keys::<L>(at)[0]));
        assert!((last + L::WIDTH) * words <= packed.len(), "keys are packed");
        // The products of the next vectors are begun before those at hand are looked at: they take their time.
        let mut begun = 0;
        for at in (0..vectors).step_by(AT_ONCE) {
            while begun < vectors.min(at + 2 * AT_ONCE) {
                // SAFETY: there are the words of as many queries as a vector has lanes, and those of all keys; `AttendRows` has made the unit ready on this thread.
                unsafe { self.begin(lanes, queries, begun) };
                begun += AT_ONCE;
            }
            match vectors - at {
                1 => self.write::<L, 1>(lanes, at),
                _ => self.write::<L, AT_ONCE>(lanes, at),
            }
        }
    }
}

impl<O: Operand, B: Outcome<O>> ScoreMatrices<'_, '_, O, B> {
    /// Products of vector `at`, and of the next one if there is one.
    ///
    /// # Safety
    /// `queries` has the words of as many queries as a vector has lanes, and those of all keys of the run are packed.
    #[inline(always)]
    unsafe fn begin<L: Lanes>(&mut self, lanes: L, queries: &[u32], at: usize) {
        let Keys { packed, words, .. } = self.operands.keys;
        let second = (at + 1).min(self.run.vectors::<L>() - 1);
        let to = self.scores.as_mut_ptr();
        let products = MatrixScores {
            queries: queries.as_ptr(),
            words,
            keys: [at, second].map(|at| packed[self.run.keys::<L>(at)[0] * words..].as_ptr()),
            to: [at, second].map(|at| to.wrapping_add(at * L::OF_VECTOR)),
        };
        // SAFETY: the caller's promise.
        unsafe {
            match (O::PER_WORD == 4, second == at) {
                (true, true) => lanes.score_matrices::<true, true>(products),
                (true, false) => lanes.score_matrices::<true, false>(products),
                (false, true) => lanes.score_matrices::<false, true>(products),
                (false, false) => lanes.score_matrices::<false, false>(products),
            }
        }
    }

    /// What becomes of the products of `C` vectors from vector `at` on.
    #[inline(always)]
    fn write<L: Lanes, const C: usize>(&mut self, lanes: L, at: usize) {
        let Self { tile, run, operands, scores, seen, .. } = self;
        let scores = &mut scores[at * L::OF_VECTOR..][..C * L::OF_VECTOR];
        let (count, whole) = (tile.queries.len(), tile.all_visible(run.end_of::<L>(at + C)));
        let fresh = std::mem::replace(&mut seen.fresh, false);
        let (mut asked, step) = match tile.ask(count.div_ceil(QUERIES) * C * LINES) {
            Some(lines) => (lines, LINE),
            None => (scores.as_ptr(), 0),
        };
        let mut products = Products::<L, O, C>::known(lanes, operands, scores, seen, [whole, fresh]);
        for first in (0..count).step_by(QUERIES) {
            let mut sums = [[O::zero(lanes); C]; QUERIES];
            for r in 0..QUERIES {
                for c in 0..C {
                    // The last one stands for those that are not there.
                    // SAFETY: a tile has no more queries than a vector has lanes.
                    let of_query = unsafe { products.at(c, (first + r).min(count - 1)) };
                    sums[r][c] = O::sum(lanes, lanes.load(of_query));
                }
            }
            for _ in 0..C * LINES {
                lanes.prefetch_for_later(asked);
                asked = asked.wrapping_add(step);
            }
            // SAFETY: likewise; there are scores of `C` vectors.
            unsafe { B::write(lanes, sums, first, &mut products) };
        }
        products.put_down(lanes);
        if !whole {
            lanes.run(Hide::<O, B, C> { tile, run, at, operands, scores, seen, fresh, outcome: PhantomData });
        }
    }
}

/// Weighted values of a chunk's 8- and 16-bit runs, of all features. They are integers if they are 8-bit ones alone, else in
/// the unit of 16 bit.
pub(super) struct SumMatrices<'a> {
    /// As [`AddValues`](super::AddValues) has them.
    pub rows: [&'a [u32]; 3],
    pub values: [&'a [u32]; 3],
    pub weights: &'a [u32],
    pub int8_unit: &'a Numbers,
    pub head_dim: usize,
    /// Whether there are others than 8-bit ones, here or elsewhere.
    pub joins: bool,
    /// [`Job::four`](super::Job::four)
    pub four: bool,
    /// `[queries][head_dim]`
    pub sums: &'a mut [u32],
}

impl OnLanes for SumMatrices<'_> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        let Self {
            rows: [int8, half, _],
            values: [of_int8, of_half, _],
            weights,
            int8_unit,
            head_dim,
            joins,
            four,
            sums,
        } = self;
        let (weights_int8, weights_half) = weights.split_at(words_of::<L, Int8>(int8));
        if !int8.is_empty() {
            sum::<L, Int8>(lanes, int8, of_int8, weights_int8, head_dim, [false, four], sums);
            if joins {
                for (query, sums) in sums.chunks_exact_mut(head_dim).take(L::WIDTH).enumerate() {
                    let unit = int8_unit.splat(lanes, query);
                    for sums in sums.chunks_exact_mut(L::WIDTH) {
                        let sum = lanes.mul(lanes.convert(lanes.load(sums)), unit);
                        lanes.store(lanes.bits(sum), sums);
                    }
                }
            }
        }
        debug_assert!(!four || half.is_empty(), "16-bit weights are eight words");
        if !half.is_empty() {
            sum::<L, Half>(lanes, half, of_half, weights_half, head_dim, [!int8.is_empty(), false], sums);
        }
    }
}

/// Those of one run, added to what is there or not.
#[inline(always)]
fn sum<L: Lanes, O: Operand>(
    lanes: L,
    rows: &[u32],
    values: &[u32],
    weights: &[u32],
    head_dim: usize,
    [adds, four]: [bool; 2],
    sums: &mut [u32],
) {
    let of_query = if four { 4 } else { 8 };
    let of_vector = L::WIDTH / O::PER_WORD;
    let last = rows.iter().step_by(of_vector).fold(0, |last, &row| last.max(row)) as usize;
    assert!(
        head_dim.is_multiple_of(AT_ONCE * L::WIDTH) && last + of_query * head_dim <= values.len(),
        "every key has its values"
    );
    assert!(words_of::<L, O>(rows) <= weights.len(), "every key has its weights");
    assert!(L::WIDTH * head_dim <= sums.len(), "every query has its sums");
    for at in (0..head_dim).step_by(AT_ONCE * L::WIDTH) {
        let sums = MatrixSums {
            weights: weights.as_ptr(),
            of_query,
            of_vector: L::OF_VECTOR,
            rows,
            values: values[at..].as_ptr(),
            head_dim,
            to: sums[at..].as_mut_ptr(),
            adds,
        };
        // SAFETY: as has been asserted; `AttendRows` has made the unit ready on this thread.
        unsafe {
            match O::PER_WORD == 4 {
                true => lanes.sum_matrices::<true>(sums),
                false => lanes.sum_matrices::<false>(sums),
            }
        }
    }
}
