use crate::lanes::{EXP2, Lanes};

/// How one precision multiplies: words of queries with words of keys, then words of weights with words of values.
pub(crate) trait Operand<L: Lanes> {
    type Sum: Copy;
    /// Numbers in one word.
    const PER_WORD: usize;
    /// Whether values are padded to whole groups of keys.
    const PADDED: bool;
    /// What a weight of one is less than: a sum of weights, times this, is real.
    const WEIGHT_UNIT: f32;

    /// Whether products may be infinite or NaN.
    const FLOATS: bool;

    fn zero(lanes: L) -> Self::Sum;
    fn add_product(lanes: L, sum: Self::Sum, a: L::Word, b: L::Word) -> Self::Sum;
    fn float(lanes: L, sum: Self::Sum) -> L::Float;

    /// What the product with the keys of `group` starts from.
    #[inline(always)]
    fn start(lanes: L, _offsets: &[u32], _group: usize) -> Self::Sum {
        Self::zero(lanes)
    }

    /// The weights `2^(score * scale - max)` of as many groups as there are numbers in a word, whose scores are `next`
    /// words apart.
    fn weights(lanes: L, scores: &[u32], next: usize, scale: L::Float, max: L::Float) -> L::Word;

    /// Adds weights, as they have been rounded, so that they add up to one after the division.
    fn add_weights(lanes: L, sum: Self::Sum, weights: L::Word) -> Self::Sum;
}

pub(crate) struct Single;

impl<L: Lanes> Operand<L> for Single {
    type Sum = L::Float;
    const PER_WORD: usize = 1;
    const PADDED: bool = false;
    const WEIGHT_UNIT: f32 = 1.0;
    const FLOATS: bool = true;

    #[inline(always)]
    fn zero(lanes: L) -> L::Float {
        lanes.floats(lanes.splat(0))
    }

    #[inline(always)]
    fn add_product(lanes: L, sum: L::Float, a: L::Word, b: L::Word) -> L::Float {
        lanes.mul_add(lanes.floats(a), lanes.floats(b), sum)
    }

    #[inline(always)]
    fn float(_: L, sum: L::Float) -> L::Float {
        sum
    }

    #[inline(always)]
    fn weights(lanes: L, scores: &[u32], _: usize, scale: L::Float, max: L::Float) -> L::Word {
        lanes.bits(lanes.exp2(lanes.mul_sub(load(lanes, scores, 0), scale, max), &EXP2))
    }

    #[inline(always)]
    fn add_weights(lanes: L, sum: L::Float, weights: L::Word) -> L::Float {
        lanes.add(sum, lanes.floats(weights))
    }
}

/// bf16 operands, f32 sums.
pub(crate) struct Half;

impl<L: Lanes> Operand<L> for Half {
    type Sum = L::Float;
    const PER_WORD: usize = 2;
    const PADDED: bool = true;
    const WEIGHT_UNIT: f32 = 1.0;
    const FLOATS: bool = true;

    #[inline(always)]
    fn zero(lanes: L) -> L::Float {
        lanes.floats(lanes.splat(0))
    }

    #[inline(always)]
    fn add_product(lanes: L, sum: L::Float, a: L::Word, b: L::Word) -> L::Float {
        lanes.dot_bf16(sum, a, b)
    }

    #[inline(always)]
    fn float(_: L, sum: L::Float) -> L::Float {
        sum
    }

    #[inline(always)]
    fn weights(lanes: L, scores: &[u32], next: usize, scale: L::Float, max: L::Float) -> L::Word {
        lanes.weights_bf16([load(lanes, scores, 0), load(lanes, scores, next)], scale, max)
    }

    #[inline(always)]
    fn add_weights(lanes: L, sum: L::Float, weights: L::Word) -> L::Float {
        // Times two bf16 ones.
        lanes.dot_bf16(sum, weights, lanes.splat(0x3f80_3f80))
    }
}

/// 8-bit operands, exact 32-bit sums; weights are in units of 1/255.
pub(crate) struct Int8;

impl<L: Lanes> Operand<L> for Int8 {
    type Sum = L::Word;
    const PER_WORD: usize = 4;
    const PADDED: bool = true;
    const WEIGHT_UNIT: f32 = 1.0 / 255.0;
    const FLOATS: bool = false;

    #[inline(always)]
    fn zero(lanes: L) -> L::Word {
        lanes.splat(0)
    }

    #[inline(always)]
    fn add_product(lanes: L, sum: L::Word, a: L::Word, b: L::Word) -> L::Word {
        lanes.dot_u8_i8(sum, a, b)
    }

    #[inline(always)]
    fn float(lanes: L, sum: L::Word) -> L::Float {
        lanes.convert(sum)
    }

    #[inline(always)]
    fn start(lanes: L, offsets: &[u32], group: usize) -> L::Word {
        lanes.load_group(&offsets[4 * group..])
    }

    #[inline(always)]
    fn weights(lanes: L, scores: &[u32], next: usize, scale: L::Float, max: L::Float) -> L::Word {
        let [a, b] = [load(lanes, scores, 0), load(lanes, scores, next)];
        let [c, d] = [load(lanes, scores, 2 * next), load(lanes, scores, 3 * next)];
        lanes.weights_u8([a, b, c, d], scale, max)
    }

    #[inline(always)]
    fn add_weights(lanes: L, sum: L::Word, weights: L::Word) -> L::Word {
        lanes.dot_u8_i8(sum, weights, lanes.splat(FOUR_ONES))
    }
}

/// Four bytes of one: a product with it is the sum of four bytes.
const FOUR_ONES: u32 = 0x0101_0101;

/// The vector of scores from word `at` on.
#[inline(always)]
fn load<L: Lanes>(lanes: L, scores: &[u32], at: usize) -> L::Float {
    lanes.floats(lanes.load(&scores[at..]))
}
