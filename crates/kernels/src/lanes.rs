//! The seam between the algorithm and the instruction set.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;
#[cfg(test)]
use portable::bf16_bits;

use crate::IntegerSoftmax;
#[cfg(target_arch = "x86_64")]
use crate::integer_softmax::TIES_UP;

/// The vector operations that fused attention is made of.
///
/// A vector is a row of *groups* of four 32-bit words. Words hold whatever the operation says: floats as bits, two bf16,
/// four 8-bit integers, or one integer.
///
/// A value of the implementing type is the proof that this CPU has the instructions, so its methods are safe. Adding an
/// instruction set is adding one implementation.
pub(crate) trait Lanes: Copy {
    /// Groups of one vector.
    const GROUPS: usize;
    /// Words of one vector.
    const WIDTH: usize = 4 * Self::GROUPS;
    /// Words from the scores of one vector of keys, a vector for each of `WIDTH` queries, to those of the next. With nothing
    /// between, those of four would be 4 KiB, and a core that compares no more than the last 12 bits of addresses would let
    /// the scores that are read wait for weights that are still to be written.
    const OF_VECTOR: usize = (Self::WIDTH + 1) * Self::WIDTH;
    /// Whether [`dot_bf16`](Self::dot_bf16) is one instruction, and not six with results of their own.
    const HAS_BF16: bool;
    /// Whether there is a unit that multiplies matrices of 8- and 16-bit numbers: 16 queries with vectors of 16 keys, and weights of
    /// those with values.
    const MATRICES: bool = false;
    /// Vectors of sums that the innermost loops keep in registers at once, 8 or 16 at least: with 16, there is room for 24.
    const SUMS: usize;

    type Word: Copy;
    type Float: Copy;
    /// Lanes of fewer groups on the same CPU, for what is left.
    type Narrow: Lanes;

    fn narrow(self) -> Self::Narrow;

    /// Does `task` with these instructions, in a function of its own.
    fn run<T: OnLanes>(self, task: T) -> T::Output;

    /// Makes the unit for matrices ready on this thread, for sums of `four` words of each query's weights at a time, or of eight; only with eight, for scores of
    /// words that are no multiple of 16.
    #[inline(always)]
    fn begin_matrices(self, _four: bool) {}
    /// Gives it back.
    #[inline(always)]
    fn end_matrices(self) {}
    /// Products of signed bytes if `BYTES`, else of bf16; with one vector of keys if `ONE`, else with two.
    ///
    /// # Safety
    /// [`MATRICES`](Self::MATRICES), after [`begin_matrices`](Self::begin_matrices): there are `queries` and `keys` to be read, and `to` can be written.
    #[inline(always)]
    unsafe fn score_matrices<const BYTES: bool, const ONE: bool>(self, _: MatrixScores) {
        unreachable!("only where there is a unit for matrices")
    }
    /// Likewise, of weights, which are unsigned, and values.
    ///
    /// # Safety
    /// The same: there are weights, and values of as many words from each vector's first one on, to be read, at least one of them, and `to` can be read and written.
    #[inline(always)]
    unsafe fn sum_matrices<const BYTES: bool>(self, _: MatrixSums<'_>) {
        unreachable!("only where there is a unit for matrices")
    }

    /// The first word of each group, as many zeros, the second of each, and zeros; then the third and the fourth likewise: the rows of 8-bit weights that
    /// [`sum_matrices`](Self::sum_matrices) reads.
    #[inline(always)]
    fn first_words_apart(self, _: Self::Word) -> [Self::Word; 2] {
        unreachable!("only where there is a unit for matrices")
    }

    /// The first `WIDTH` words of `from`.
    fn load(self, from: &[u32]) -> Self::Word;
    /// Into the first `WIDTH` words of `to`.
    fn store(self, words: Self::Word, to: &mut [u32]);
    /// The first half of `low`'s words, then of `high`'s.
    fn load_halves(self, low: &[u32], high: &[u32]) -> Self::Word;
    /// The first four words of each of the first `GROUPS`, a group each.
    fn load_groups(self, from: [&[u32]; 4]) -> Self::Word;
    /// As many words as are half a vector, and zeros.
    fn load_half(self, from: &[u32]) -> Self::Word;
    /// The first half of the words.
    fn store_half(self, words: Self::Word, to: &mut [u32]);
    /// The first word of each group, then the second of each, the third and the fourth.
    fn first_words_first(self, words: Self::Word) -> Self::Word;
    /// The first two words of each group, then the other two of each.
    fn first_pairs_first(self, words: Self::Word) -> Self::Word;
    /// Of the first `GROUPS` vectors, rows for columns: group x of vector n becomes group n of vector x.
    fn turn_groups(self, vectors: [Self::Word; 4]) -> [Self::Word; 4];
    /// In each group `[a.0, b.0, a.1, b.1]` and `[a.2, b.2, a.3, b.3]`.
    fn interleave(self, a: Self::Word, b: Self::Word) -> [Self::Word; 2];
    fn splat(self, word: u32) -> Self::Word;
    fn bits(self, floats: Self::Float) -> Self::Word;
    fn floats(self, bits: Self::Word) -> Self::Float;

    /// Asks for a cache line that will be read or written, but not soon: it need not come nearer than the second cache.
    #[inline(always)]
    fn prefetch_for_later(self, _: *const u32) {}

    fn add(self, a: Self::Float, b: Self::Float) -> Self::Float;
    fn sub(self, a: Self::Float, b: Self::Float) -> Self::Float;
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a * b + c`, rounded once where the instruction set fuses them.
    fn mul_add(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    /// `a * b - c`, likewise.
    fn mul_sub(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    /// The larger one; `running` where `new` is NaN.
    fn max(self, new: Self::Float, running: Self::Float) -> Self::Float;
    /// The smaller one; `limit` where `new` is NaN.
    fn min(self, new: Self::Float, limit: Self::Float) -> Self::Float;
    /// Whether every number is at most `limit` in size, which NaN is not.
    fn all_within(self, x: Self::Float, limit: f32) -> bool;
    /// `2^x` in units of `exp2.unit`, right from `exp2.least` to `exp2.most` and exactly the unit at 0; what is less gives at most what the
    /// least does, what is more at least what the most does; NaN for NaN. Of several vectors step by step: one waits for its own last
    /// step, and a core sees only so many steps of the next.
    fn exp2<const M: usize, const N: usize>(self, x: [Self::Float; M], exp2: &Exp2<N>) -> [Self::Float; M];

    /// `sum + a.0 * b.0 + a.1 * b.1` for pairs of bf16, summed in f32.
    fn dot_bf16(self, sum: Self::Float, a: Self::Word, b: Self::Word) -> Self::Float;
    /// Two bf16 a word, rounded to nearest even; NaN stays NaN. In each group: the four of `first`, then the four of
    /// `second`.
    fn pack_bf16(self, first: Self::Float, second: Self::Float) -> Self::Word;
    /// `sum + a.0 * b.0 + .. + a.3 * b.3` for unsigned bytes `a` and signed bytes `b`, exact in wrapping i32.
    fn dot_u8_i8(self, sum: Self::Word, a: Self::Word, b: Self::Word) -> Self::Word;
    /// As [`pack_bf16`](Self::pack_bf16) rounds, but with that of `low` in the low half of a word and that of `high` in
    /// the high half.
    fn zip_bf16(self, low: Self::Float, high: Self::Float) -> Self::Word;
    /// Four unsigned bytes a word, the first in the lowest byte: word n of a group is that group of `parts[n]`, which
    /// holds integers from 0 to 255.
    fn pack_u8(self, parts: [Self::Word; 4]) -> Self::Word;
    /// The same for integers from -128 to 127.
    fn pack_i8(self, parts: [Self::Word; 4]) -> Self::Word;
    /// The 4 by 4 bytes of each group, rows for columns.
    fn transpose_bytes(self, words: Self::Word) -> Self::Word;
    fn xor(self, a: Self::Word, b: Self::Word) -> Self::Word;
    /// Signed integers divided by two to the power of `bits`, each below 32, rounded down.
    fn shift_right(self, integers: Self::Word, bits: Self::Word) -> Self::Word;
    /// Two signed 16-bit integers a word, the nearest where one is beyond. In each group: the four of `first`, then the four of `second`.
    fn pack_i16(self, first: Self::Word, second: Self::Word) -> Self::Word;
    /// The words that [`pack_i16`](Self::pack_i16) has packed.
    fn unpack_i16(self, packed: Self::Word) -> [Self::Word; 2];
    /// The larger of each two signed 16-bit integers.
    fn max_i16(self, a: Self::Word, b: Self::Word) -> Self::Word;
    /// The smaller one.
    fn min_i16(self, a: Self::Word, b: Self::Word) -> Self::Word;
    /// The nearest signed 16-bit integer to each difference.
    fn sub_i16(self, a: Self::Word, b: Self::Word) -> Self::Word;
    /// The larger of `largest` and the bits of a number without its sign.
    fn larger_bits(self, largest: Self::Word, number: Self::Word) -> Self::Word;
    /// To the nearest integer, ties to even, for |`x`| < 2^22; some integer for NaN.
    fn round(self, x: Self::Float) -> Self::Word;
    /// From i32 to the nearest float.
    fn convert(self, integers: Self::Word) -> Self::Float;

    /// `2^(score * scale - max)` as bf16, packed as by [`pack_bf16`](Self::pack_bf16), within half a bit more than
    /// rounding takes; each `score * scale` is at most its `max`, but for rounding. At most 2^-126 for minus infinity, anything
    /// for NaN.
    #[inline(always)]
    fn weights_bf16(self, scores: [Self::Float; 2], scale: Self::Float, max: [Self::Float; 2]) -> Self::Word {
        let [first, second] = self.exp2(self.below(scores, scale, max), &EXP2_COARSE);
        self.pack_bf16(first, second)
    }

    /// `2^(score * scale - UNIFIED_MAX)` likewise, up to 1. NaN or at least 1.9 where that would be 2 or more, and for NaN; for what is below minus
    /// 2^21 in powers of two that or nothing.
    #[inline(always)]
    fn unified_weights_bf16(self, [first, second]: [Self::Float; 2], scale: Self::Float) -> Self::Word {
        let [first, second] = self.exp2([self.mul(first, scale), self.mul(second, scale)], &EXP2_COARSE_UNIFIED);
        self.pack_bf16(first, second)
    }

    /// `255 * 2^(score * scale - max)` to the nearest integer or one beside it, packed as by [`pack_u8`](Self::pack_u8);
    /// each `score * scale` is at most its `max`, but for rounding. Exactly 0 for minus infinity, anything for NaN.
    #[inline(always)]
    fn weights_u8(self, scores: [Self::Float; 4], scale: Self::Float, max: [Self::Float; 4]) -> Self::Word {
        let full = self.floats(self.splat(255_f32.to_bits()));
        let weights = self.exp2(self.below(scores, scale, max), &EXP2_COARSE);
        let mut integers = [self.splat(0); 4];
        for n in 0..4 {
            integers[n] = self.round(self.mul(weights[n], full));
        }
        self.pack_u8(integers)
    }

    /// `255 * 2^(-distance * unit)` to the nearest integer, as if the distance were off by half a 64th of an octave at most, packed as by
    /// [`pack_u8`](Self::pack_u8). Distances are those of four queries as [`pack_i16`](Self::pack_i16) has them, not below 0; `unit` is
    /// from 2^-8 to less than 2^-6. Exactly 255 for 0, and 0 for 2^15 - 1.
    #[inline(always)]
    fn weights_u8_of_distances(self, [ab, cd]: [Self::Word; 2], unit: f32) -> Self::Word {
        let ([a, b], [c, d]) = (self.unpack_i16(ab), self.unpack_i16(cd));
        let zero = self.floats(self.splat(0));
        let unit = self.floats(self.splat((-unit).to_bits()));
        self.weights_u8([self.convert(a), self.convert(b), self.convert(c), self.convert(d)], unit, [zero; 4])
    }

    /// `score * scale - max`.
    #[inline(always)]
    fn below<const M: usize>(
        self,
        mut scores: [Self::Float; M],
        scale: Self::Float,
        max: [Self::Float; M],
    ) -> [Self::Float; M] {
        for m in 0..M {
            scores[m] = self.mul_sub(scores[m], scale, max[m]);
        }
        scores
    }

    /// [`IntegerSoftmax::exponential`] of distances that are whole numbers below 2^24, or infinite; of anything else, that of
    /// some distance.
    fn integer_exponentials(self, distance: Self::Float, softmax: &IntegerSoftmax) -> Self::Word;
}

/// Products of 16 queries with one or two vectors of 16 keys.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no other CPU has a unit for matrices"))]
pub(crate) struct MatrixScores {
    /// Words of the first query, then of the next, each `words` of them, a multiple of eight.
    pub queries: *const u32,
    pub words: usize,
    /// Of each vector: for each word, that of each key.
    pub keys: [*const u32; 2],
    /// Of each vector, for each query, that with each key.
    pub to: [*mut u32; 2],
}

/// Sums of 16 queries' weights times values, for 32 features.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no other CPU has a unit for matrices"))]
pub(crate) struct MatrixSums<'a> {
    /// For each vector of keys, which are `of_vector` words apart, `of_query` words of each query: four or eight, as the unit has been made ready for.
    pub weights: *const u32,
    pub of_query: usize,
    pub of_vector: usize,
    /// Where the values of each word begin, in words. Of a vector's, the first counts; the others are `head_dim` words apart. Where a vector of keys has four words and
    /// `of_query` is eight, the next four are multiplied with weights that are zero.
    pub rows: &'a [u32],
    pub values: *const u32,
    pub head_dim: usize,
    /// For each query, `head_dim` words apart, a sum for each feature.
    pub to: *mut u32,
    /// Whether it begins with what is there.
    pub adds: bool,
}

/// What is written once for every instruction set, and compiled for each.
///
/// `on` is to be `#[inline(always)]`: then it is compiled with the instructions of its lanes.
pub(crate) trait OnLanes {
    type Output;

    fn on<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// Words of the widest vector.
pub(crate) const MAX_WIDTH: usize = 16;

/// The 4 by 4 words of group `x` of four vectors, rows for columns.
#[inline(always)]
pub(crate) fn transpose_groups<L: Lanes>(lanes: L, [a, b, c, d]: [L::Word; 4]) -> [L::Word; 4] {
    let ([ac_low, ac_high], [bd_low, bd_high]) = (lanes.interleave(a, c), lanes.interleave(b, d));
    let ([first, second], [third, fourth]) = (lanes.interleave(ac_low, bd_low), lanes.interleave(ac_high, bd_high));
    [first, second, third, fourth]
}

/// What float weights are relative to, in powers of two, as long as that does: [`Tile::attend_unified`](crate::tile).
pub(crate) const UNIFIED_MAX: f32 = 48.0;

/// `2^f = 1 + f q(f)` for |f| <= 1/2, in units of a power of two.
pub(crate) struct Exp2<const N: usize> {
    /// Coefficients of q, lowest power first, in that unit.
    polynomial: [f32; N],
    unit: f32,
    least: f32,
    /// Infinite where nothing above zero comes, for which it would not be right.
    most: f32,
}

impl<const N: usize> Exp2<N> {
    /// Down to 2^-126, the smallest number that is normal.
    const fn up_to_one(polynomial: [f32; N]) -> Self {
        Self { polynomial, unit: 1.0, least: -126.0, most: f32::INFINITY }
    }

    /// The same in units of 2^[`UNIFIED_MAX`], which takes nothing from the precision of small exponents.
    const fn unified(mut self) -> Self {
        self.unit = f32::from_bits((127 - UNIFIED_MAX as u32) << 23);
        let mut n = 0;
        while n < N {
            self.polynomial[n] *= self.unit;
            n += 1;
        }
        Self { least: UNIFIED_MAX - 126.0, most: 127.0, ..self }
    }
}

/// For weights in f32: interpolated at the six Chebyshev nodes of the interval in 40 digits. The relative error before
/// rounding is 9.2e-9, a sixth of f32's unit roundoff; after it, 2e-7.
pub(crate) const EXP2: Exp2<6> = Exp2::up_to_one([
    std::f32::consts::LN_2,
    0.240_226_5,
    0.055_503_57,
    0.009_618_083,
    0.001_339_086_3,
    0.000_154_531_63,
]);

/// For weights that are rounded to 16 or 8 bit: the same at three nodes, 2.0e-4 off at most.
pub(crate) const EXP2_COARSE: Exp2<3> = Exp2::up_to_one([std::f32::consts::LN_2, 0.242_035_33, 0.055_754_65]);

pub(crate) const EXP2_UNIFIED: Exp2<6> = EXP2.unified();
pub(crate) const EXP2_COARSE_UNIFIED: Exp2<3> = EXP2_COARSE.unified();

/// 1.5 * 2^23: adding it to a small float leaves the nearest integer in the low bits of the sum.
pub(crate) const ROUNDER: f32 = 12_582_912.0;

#[cfg(test)]
mod tests;
