use crate::lanes::{EXP2, EXP2_UNIFIED, Lanes, UNIFIED_MAX, transpose_groups};

/// How one precision multiplies: words of queries with words of keys, then words of weights with words of values.
pub(crate) trait Operand {
    type Sum<L: Lanes>: Copy;
    /// Numbers in one word.
    const PER_WORD: usize;
    /// What a weight of one is less than: a sum of weights, times this, is real.
    const WEIGHT_UNIT: f32;

    /// Whether products may be infinite or NaN, and weights hide that.
    const HIDES_NAN: bool;
    /// Whether a unit for matrices multiplies them.
    const MATRICES: bool;
    /// Whether a product takes no registers but its operands' and its sum's.
    #[inline(always)]
    fn product_needs_no_registers<L: Lanes>() -> bool {
        true
    }

    fn zero<L: Lanes>(lanes: L) -> Self::Sum<L>;
    /// A sum that a unit for matrices has written.
    fn sum<L: Lanes>(lanes: L, bits: L::Word) -> Self::Sum<L>;
    /// `a` is one word in every lane.
    fn add_product<L: Lanes>(lanes: L, sum: Self::Sum<L>, a: L::Word, b: L::Word) -> Self::Sum<L>;
    fn float<L: Lanes>(lanes: L, sum: Self::Sum<L>) -> L::Float;

    /// What the product with a vector of `span` keys, or with two such halves, starts from.
    #[inline(always)]
    fn start<L: Lanes>(lanes: L, _offsets: &[u32], _keys: [usize; 2], _span: usize) -> Self::Sum<L> {
        Self::zero(lanes)
    }

    /// The weights `2^(score * scale - max)` of four queries, in the first `4 / PER_WORD` vectors. Each has those of as many
    /// queries as there are numbers in a word: in each group, `4 / PER_WORD` words of each of them.
    fn weights<L: Lanes>(lanes: L, scores: [L::Float; 4], scale: L::Float, max: [L::Float; 4]) -> [L::Word; 4];

    /// The same relative to [`UNIFIED_MAX`] for every query.
    #[inline(always)]
    fn unified_weights<L: Lanes>(lanes: L, scores: [L::Float; 4], scale: L::Float) -> [L::Word; 4] {
        Self::weights(lanes, scores, scale, [lanes.floats(lanes.splat(UNIFIED_MAX.to_bits())); 4])
    }

    /// Adds weights, as they have been rounded, so that they add up to one after the division.
    fn add_weights<L: Lanes>(lanes: L, sum: Self::Sum<L>, weights: L::Word) -> Self::Sum<L>;

    /// Puts weights of `query`, and of those that share its vector, where the second product looks for them: where the first one's scores were, or, for a unit
    /// for matrices, in rows of eight words a query, or of `four`.
    ///
    /// # Safety
    /// `to` has a vector for each of as many queries as a vector has lanes, of which `query` is one.
    #[inline(always)]
    unsafe fn keep<L: Lanes>(lanes: L, weights: L::Word, to: &mut [u32], query: usize, four: bool) {
        // SAFETY: the caller's promise, here and below.
        let mut keep =
            |words: L::Word, at: usize| lanes.store(words, unsafe { to.get_unchecked_mut(at..at + L::WIDTH) });
        match (L::MATRICES && Self::MATRICES, Self::PER_WORD) {
            (false, _) => keep(weights, query * L::WIDTH),
            (true, 2) => keep(lanes.first_pairs_first(weights), query * L::WIDTH / 2),
            (true, _) if four => keep(lanes.first_words_first(weights), query * L::WIDTH / 4),
            (true, _) => {
                let [first, second] = lanes.first_words_apart(weights);
                keep(first, query * L::WIDTH / 2);
                keep(second, query * L::WIDTH / 2 + L::WIDTH);
            }
        }
    }

    /// Word n of each group is what `sums`, of weights of four queries and as floats, have in that group for query n.
    fn sums_of_four<L: Lanes>(lanes: L, sums: [L::Float; 4]) -> L::Float;
}

pub(crate) struct Single;

impl Operand for Single {
    type Sum<L: Lanes> = L::Float;
    const PER_WORD: usize = 1;
    const WEIGHT_UNIT: f32 = 1.0;
    const HIDES_NAN: bool = false;
    const MATRICES: bool = false;

    #[inline(always)]
    fn zero<L: Lanes>(lanes: L) -> L::Float {
        lanes.floats(lanes.splat(0))
    }

    #[inline(always)]
    fn sum<L: Lanes>(lanes: L, bits: L::Word) -> L::Float {
        lanes.floats(bits)
    }

    #[inline(always)]
    fn add_product<L: Lanes>(lanes: L, sum: L::Float, a: L::Word, b: L::Word) -> L::Float {
        lanes.mul_add(lanes.floats(a), lanes.floats(b), sum)
    }

    #[inline(always)]
    fn float<L: Lanes>(_: L, sum: L::Float) -> L::Float {
        sum
    }

    #[inline(always)]
    fn weights<L: Lanes>(lanes: L, scores: [L::Float; 4], scale: L::Float, max: [L::Float; 4]) -> [L::Word; 4] {
        let [a, b, c, d] = lanes.exp2(lanes.below(scores, scale, max), &EXP2);
        [lanes.bits(a), lanes.bits(b), lanes.bits(c), lanes.bits(d)]
    }

    #[inline(always)]
    fn unified_weights<L: Lanes>(lanes: L, [a, b, c, d]: [L::Float; 4], scale: L::Float) -> [L::Word; 4] {
        let scaled = [lanes.mul(a, scale), lanes.mul(b, scale), lanes.mul(c, scale), lanes.mul(d, scale)];
        let [a, b, c, d] = lanes.exp2(scaled, &EXP2_UNIFIED);
        [lanes.bits(a), lanes.bits(b), lanes.bits(c), lanes.bits(d)]
    }

    #[inline(always)]
    fn add_weights<L: Lanes>(lanes: L, sum: L::Float, weights: L::Word) -> L::Float {
        lanes.add(sum, lanes.floats(weights))
    }

    #[inline(always)]
    fn sums_of_four<L: Lanes>(lanes: L, [a, b, c, d]: [L::Float; 4]) -> L::Float {
        let [a, b, c, d] = transpose_groups(lanes, [lanes.bits(a), lanes.bits(b), lanes.bits(c), lanes.bits(d)]);
        let (ab, cd) = (lanes.add(lanes.floats(a), lanes.floats(b)), lanes.add(lanes.floats(c), lanes.floats(d)));
        lanes.add(ab, cd)
    }
}

/// bf16 operands, f32 sums.
pub(crate) struct Half;

impl Operand for Half {
    type Sum<L: Lanes> = L::Float;
    const PER_WORD: usize = 2;
    const WEIGHT_UNIT: f32 = 1.0;
    const HIDES_NAN: bool = true;
    const MATRICES: bool = true;

    #[inline(always)]
    fn sum<L: Lanes>(lanes: L, bits: L::Word) -> L::Float {
        lanes.floats(bits)
    }

    #[inline(always)]
    fn product_needs_no_registers<L: Lanes>() -> bool {
        L::HAS_BF16
    }

    #[inline(always)]
    fn zero<L: Lanes>(lanes: L) -> L::Float {
        lanes.floats(lanes.splat(0))
    }

    #[inline(always)]
    fn add_product<L: Lanes>(lanes: L, sum: L::Float, a: L::Word, b: L::Word) -> L::Float {
        // A word that is repeated in every lane, if it is needed once, comes from memory as the last operand.
        lanes.dot_bf16(sum, b, a)
    }

    #[inline(always)]
    fn float<L: Lanes>(_: L, sum: L::Float) -> L::Float {
        sum
    }

    #[inline(always)]
    fn weights<L: Lanes>(lanes: L, [a, b, c, d]: [L::Float; 4], scale: L::Float, max: [L::Float; 4]) -> [L::Word; 4] {
        let first = lanes.weights_bf16([a, b], scale, [max[0], max[1]]);
        let second = lanes.weights_bf16([c, d], scale, [max[2], max[3]]);
        [first, second, lanes.splat(0), lanes.splat(0)]
    }

    #[inline(always)]
    fn unified_weights<L: Lanes>(lanes: L, [a, b, c, d]: [L::Float; 4], scale: L::Float) -> [L::Word; 4] {
        let (first, second) = (lanes.unified_weights_bf16([a, b], scale), lanes.unified_weights_bf16([c, d], scale));
        [first, second, lanes.splat(0), lanes.splat(0)]
    }

    #[inline(always)]
    fn add_weights<L: Lanes>(lanes: L, sum: L::Float, weights: L::Word) -> L::Float {
        // Times two bf16 ones.
        lanes.dot_bf16(sum, weights, lanes.splat(0x3f80_3f80))
    }

    #[inline(always)]
    fn sums_of_four<L: Lanes>(lanes: L, [first, second, ..]: [L::Float; 4]) -> L::Float {
        // Two words of each query, [a0, a1, b0, b1] and [c0, c1, d0, d1]: first [a0, c0, a1, c1] and [b0, d0, b1, d1].
        let [first, second] = lanes.interleave(lanes.bits(first), lanes.bits(second));
        let [low, high] = lanes.interleave(first, second);
        lanes.add(lanes.floats(low), lanes.floats(high))
    }
}

/// 8-bit operands, exact 32-bit sums; weights are in units of 1/255.
pub(crate) struct Int8;

impl Operand for Int8 {
    type Sum<L: Lanes> = L::Word;
    const PER_WORD: usize = 4;
    const WEIGHT_UNIT: f32 = 1.0 / 255.0;
    const HIDES_NAN: bool = false;
    const MATRICES: bool = true;

    #[inline(always)]
    fn sum<L: Lanes>(_: L, bits: L::Word) -> L::Word {
        bits
    }

    #[inline(always)]
    fn zero<L: Lanes>(lanes: L) -> L::Word {
        lanes.splat(0)
    }

    #[inline(always)]
    fn add_product<L: Lanes>(lanes: L, sum: L::Word, a: L::Word, b: L::Word) -> L::Word {
        lanes.dot_u8_i8(sum, a, b)
    }

    #[inline(always)]
    fn float<L: Lanes>(lanes: L, sum: L::Word) -> L::Float {
        lanes.convert(sum)
    }

    #[inline(always)]
    fn start<L: Lanes>(lanes: L, offsets: &[u32], [first, second]: [usize; 2], span: usize) -> L::Word {
        match span == L::WIDTH {
            true => lanes.load(&offsets[first..]),
            false => lanes.load_halves(&offsets[first..], &offsets[second..]),
        }
    }

    #[inline(always)]
    fn weights<L: Lanes>(lanes: L, scores: [L::Float; 4], scale: L::Float, max: [L::Float; 4]) -> [L::Word; 4] {
        [lanes.weights_u8(scores, scale, max), lanes.splat(0), lanes.splat(0), lanes.splat(0)]
    }

    #[inline(always)]
    fn add_weights<L: Lanes>(lanes: L, sum: L::Word, weights: L::Word) -> L::Word {
        lanes.dot_u8_i8(sum, weights, lanes.splat(FOUR_ONES))
    }

    #[inline(always)]
    fn sums_of_four<L: Lanes>(_: L, [sums, ..]: [L::Float; 4]) -> L::Float {
        sums
    }
}

/// Four bytes of one: a product with it is the sum of four bytes.
const FOUR_ONES: u32 = 0x0101_0101;
