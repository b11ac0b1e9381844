use crate::lanes::Lanes;

/// How one precision multiplies: a word of numbers a lane (queries, then weights) with a word for all lanes (keys, then
/// values).
pub(super) trait Operand<L: Lanes> {
    /// What queries, keys and values are made of.
    type Element: Copy;
    type Sum: Copy;
    /// Numbers in one word.
    const PER_WORD: usize;
    /// Whether keys and values are padded to whole groups of slots.
    const PADDED: bool;

    fn zero(lanes: L) -> Self::Sum;
    fn add_product(lanes: L, sum: Self::Sum, words: L::Word, element: Self::Element) -> Self::Sum;
    fn float(lanes: L, sum: Self::Sum) -> L::Float;

    /// What the product with key `key` starts from.
    #[inline(always)]
    fn start(lanes: L, _offsets: &[u32], _key: usize) -> Self::Sum {
        Self::zero(lanes)
    }

    /// An element of a query as a word of a vector.
    fn word(element: Self::Element) -> u32;

    /// Writes weights from 0 to 1 of four keys, and returns their sum as written, so that they add up to one after the
    /// division.
    fn pack_weights(lanes: L, weights: [L::Float; 4], to: &mut [u32]) -> L::Float;
}

pub(super) struct Single;

impl<L: Lanes> Operand<L> for Single {
    type Element = f32;
    type Sum = L::Float;
    const PER_WORD: usize = 1;
    const PADDED: bool = false;

    #[inline(always)]
    fn zero(lanes: L) -> L::Float {
        lanes.floats(lanes.splat(0))
    }

    #[inline(always)]
    fn add_product(lanes: L, sum: L::Float, words: L::Word, element: f32) -> L::Float {
        lanes.mul_add(lanes.floats(words), lanes.floats(lanes.splat(element.to_bits())), sum)
    }

    #[inline(always)]
    fn float(_: L, sum: L::Float) -> L::Float {
        sum
    }

    #[inline(always)]
    fn word(element: f32) -> u32 {
        element.to_bits()
    }

    #[inline(always)]
    fn pack_weights(lanes: L, weights: [L::Float; 4], to: &mut [u32]) -> L::Float {
        for (weight, to) in weights.into_iter().zip(to.chunks_exact_mut(L::WIDTH)) {
            lanes.store(lanes.bits(weight), to);
        }
        let [a, b, c, d] = weights;
        lanes.add(lanes.add(a, b), lanes.add(c, d))
    }
}

/// bf16 operands, f32 sums.
pub(super) struct Half;

impl<L: Lanes> Operand<L> for Half {
    type Element = u32;
    type Sum = L::Float;
    const PER_WORD: usize = 2;
    const PADDED: bool = true;

    #[inline(always)]
    fn zero(lanes: L) -> L::Float {
        lanes.floats(lanes.splat(0))
    }

    #[inline(always)]
    fn add_product(lanes: L, sum: L::Float, words: L::Word, element: u32) -> L::Float {
        lanes.dot_bf16(sum, words, lanes.splat(element))
    }

    #[inline(always)]
    fn float(_: L, sum: L::Float) -> L::Float {
        sum
    }

    #[inline(always)]
    fn word(element: u32) -> u32 {
        element
    }

    #[inline(always)]
    fn pack_weights(lanes: L, weights: [L::Float; 4], to: &mut [u32]) -> L::Float {
        let [a, b, c, d] = weights;
        let (low, high) = (lanes.pack_bf16(a, b), lanes.pack_bf16(c, d));
        lanes.store(low, to);
        lanes.store(high, &mut to[L::WIDTH..]);
        // Times two bf16 ones.
        let ones = lanes.splat(0x3f80_3f80);
        lanes.dot_bf16(lanes.dot_bf16(<Self as Operand<L>>::zero(lanes), low, ones), high, ones)
    }
}

/// 8-bit operands, exact 32-bit sums; weights are in units of 1/255.
pub(super) struct Int8;

impl<L: Lanes> Operand<L> for Int8 {
    type Element = u32;
    type Sum = L::Word;
    const PER_WORD: usize = 4;
    const PADDED: bool = true;

    #[inline(always)]
    fn zero(lanes: L) -> L::Word {
        lanes.splat(0)
    }

    #[inline(always)]
    fn add_product(lanes: L, sum: L::Word, words: L::Word, element: u32) -> L::Word {
        lanes.dot_u8_i8(sum, words, lanes.splat(element))
    }

    #[inline(always)]
    fn float(lanes: L, sum: L::Word) -> L::Float {
        lanes.convert(sum)
    }

    #[inline(always)]
    fn start(lanes: L, offsets: &[u32], key: usize) -> L::Word {
        lanes.splat(offsets[key])
    }

    #[inline(always)]
    fn word(element: u32) -> u32 {
        element
    }

    #[inline(always)]
    fn pack_weights(lanes: L, weights: [L::Float; 4], to: &mut [u32]) -> L::Float {
        let full = lanes.floats(lanes.splat(255_f32.to_bits()));
        let share = lanes.floats(lanes.splat((1.0_f32 / 255.0).to_bits()));
        let mut integers = [lanes.splat(0); 4];
        for (integer, weight) in integers.iter_mut().zip(weights) {
            *integer = lanes.round(lanes.mul(weight, full));
        }
        let packed = lanes.pack_u8(integers);
        lanes.store(packed, to);
        lanes.mul(lanes.convert(lanes.dot_u8_i8(lanes.splat(0), packed, lanes.splat(FOUR_ONES))), share)
    }
}

/// Four bytes of one: a product with it is the sum of four bytes.
pub(super) const FOUR_ONES: u32 = 0x0101_0101;
