//! The seam between the algorithm and the instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::{Avx2, EightLanes};
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::{Portable, bf16_bits};

use crate::IntegerSoftmax;
#[cfg(target_arch = "x86_64")]
use crate::integer_softmax::TIES_UP;

/// The vector operations that fused attention is made of; one lane is one query.
///
/// A value of the implementing type is the proof that this CPU has the instructions, so its methods are safe. Vectors
/// of 32-bit words hold whatever the operation says: floats as bits, two bf16, four 8-bit integers, or one integer.
/// Adding an instruction set is adding one implementation.
pub(crate) trait Lanes: Copy {
    /// Queries of one vector.
    const WIDTH: usize;
    /// Sums that the innermost loop keeps in registers at once: 4 or 8.
    const SUMS: usize;

    type Word: Copy;
    type Float: Copy;

    /// The first `WIDTH` words of `from`.
    fn load(self, from: &[u32]) -> Self::Word;
    /// Into the first `WIDTH` words of `to`.
    fn store(self, words: Self::Word, to: &mut [u32]);
    fn splat(self, word: u32) -> Self::Word;
    fn bits(self, floats: Self::Float) -> Self::Word;
    fn floats(self, bits: Self::Word) -> Self::Float;

    fn add(self, a: Self::Float, b: Self::Float) -> Self::Float;
    fn sub(self, a: Self::Float, b: Self::Float) -> Self::Float;
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a * b + c`, rounded once where the instruction set fuses them.
    fn mul_add(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    /// The larger one; `running` where `new` is NaN.
    fn max(self, new: Self::Float, running: Self::Float) -> Self::Float;
    /// `2^x` for `x <= 0`: exactly 1 at 0, NaN for NaN, within 2e-7 of the value down to -126, then at most
    /// 2^-126, and exactly 0 below -150.
    fn exp2(self, x: Self::Float) -> Self::Float;

    /// `sum + a.0 * b.0 + a.1 * b.1` for pairs of bf16, summed in f32.
    fn dot_bf16(self, sum: Self::Float, a: Self::Word, b: Self::Word) -> Self::Float;
    /// Two bf16 a word, `low` in the low half, rounded to nearest even; NaN stays NaN.
    fn pack_bf16(self, low: Self::Float, high: Self::Float) -> Self::Word;
    /// `sum + a.0 * b.0 + .. + a.3 * b.3` for unsigned bytes `a` and signed bytes `b`, exact in wrapping i32.
    fn dot_u8_i8(self, sum: Self::Word, a: Self::Word, b: Self::Word) -> Self::Word;
    /// Four unsigned bytes a word, the first in the lowest byte; each of `parts` holds integers from 0 to 255.
    fn pack_u8(self, parts: [Self::Word; 4]) -> Self::Word;
    /// To the nearest integer, ties to even, for 0 <= `x` < 2^22; some integer for NaN.
    fn round(self, x: Self::Float) -> Self::Word;
    /// From i32 to the nearest float.
    fn convert(self, integers: Self::Word) -> Self::Float;

    /// [`IntegerSoftmax::exponential`] of distances that are whole numbers below 2^24, or infinite.
    fn integer_exponentials(self, distance: Self::Float, softmax: &IntegerSoftmax) -> Self::Word;
}

/// `2^f = 1 + f q(f)` for |f| <= 1/2: coefficients of q, lowest power first, interpolated at the six Chebyshev nodes of
/// that interval in 40 digits. The relative error before rounding is 9.2e-9, a sixth of f32's unit roundoff.
const EXP2: [f32; 6] =
    [std::f32::consts::LN_2, 0.240_226_5, 0.055_503_57, 0.009_618_083, 0.001_339_086_3, 0.000_154_531_63];

/// 1.5 * 2^23: adding it to a small float leaves the nearest integer in the low bits of the sum.
pub(crate) const ROUNDER: f32 = 12_582_912.0;

#[cfg(test)]
mod tests;
