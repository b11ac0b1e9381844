use super::{Exp2, Lanes, OnLanes, ROUNDER};
use crate::IntegerSoftmax;

const WIDTH: usize = 4;

/// Arrays of four, in loops that the compiler turns into whatever vectors the target has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

impl Lanes for Portable {
    const GROUPS: usize = 1;
    const HAS_BF16: bool = false;
    const SUMS: usize = 8;

    type Word = [u32; WIDTH];
    type Float = [f32; WIDTH];
    type Narrow = Self;

    #[inline(always)]
    fn narrow(self) -> Self {
        self
    }

    fn run<T: OnLanes>(self, task: T) -> T::Output {
        task.on(self)
    }

    #[inline(always)]
    fn load(self, from: &[u32]) -> Self::Word {
        *from.first_chunk().expect("buffers hold whole vectors")
    }

    #[inline(always)]
    fn store(self, words: Self::Word, to: &mut [u32]) {
        *to.first_chunk_mut().expect("buffers hold whole vectors") = words;
    }

    #[inline(always)]
    fn load_halves(self, low: &[u32], high: &[u32]) -> Self::Word {
        [low[0], low[1], high[0], high[1]]
    }

    #[inline(always)]
    fn load_groups(self, [only, ..]: [&[u32]; 4]) -> Self::Word {
        self.load(only)
    }

    #[inline(always)]
    fn load_half(self, from: &[u32]) -> Self::Word {
        [from[0], from[1], 0, 0]
    }

    #[inline(always)]
    fn store_half(self, words: Self::Word, to: &mut [u32]) {
        to[..2].copy_from_slice(&words[..2]);
    }

    #[inline(always)]
    fn first_words_first(self, words: Self::Word) -> Self::Word {
        words
    }

    #[inline(always)]
    fn first_pairs_first(self, words: Self::Word) -> Self::Word {
        words
    }

    #[inline(always)]
    fn turn_groups(self, vectors: [Self::Word; 4]) -> [Self::Word; 4] {
        vectors
    }

    #[inline(always)]
    fn interleave(self, a: Self::Word, b: Self::Word) -> [Self::Word; 2] {
        [[a[0], b[0], a[1], b[1]], [a[2], b[2], a[3], b[3]]]
    }

    #[inline(always)]
    fn splat(self, word: u32) -> Self::Word {
        [word; WIDTH]
    }

    #[inline(always)]
    fn bits(self, floats: Self::Float) -> Self::Word {
        each(|lane| floats[lane].to_bits())
    }

    #[inline(always)]
    fn floats(self, bits: Self::Word) -> Self::Float {
        each(|lane| f32::from_bits(bits[lane]))
    }

    #[inline(always)]
    fn add(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each(|lane| a[lane] * b[lane])
    }

    /// Two roundings: without the instruction, a fused one is a library call.
    #[inline(always)]
    fn mul_add(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
        each(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn mul_sub(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
        each(|lane| a[lane] * b[lane] - c[lane])
    }

    #[inline(always)]
    fn max(self, new: Self::Float, running: Self::Float) -> Self::Float {
        each(|lane| if new[lane] > running[lane] { new[lane] } else { running[lane] })
    }

    #[inline(always)]
    fn min(self, new: Self::Float, limit: Self::Float) -> Self::Float {
        each(|lane| if new[lane] < limit[lane] { new[lane] } else { limit[lane] })
    }

    #[inline(always)]
    fn all_within(self, x: Self::Float, limit: f32) -> bool {
        x.iter().all(|x| x.abs() <= limit)
    }

    #[inline(always)]
    fn exp2<const M: usize, const N: usize>(self, mut vectors: [Self::Float; M], exp2: &Exp2<N>) -> [Self::Float; M] {
        for x in &mut vectors {
            // Step by step for all lanes, and without branches: whole polynomials a lane are not vectorised.
            let below = each(|lane| if x[lane] > exp2.most { exp2.most } else { x[lane] });
            let shifted = each(|lane| below[lane] + ROUNDER);
            let f = each(|lane| below[lane] - (shifted[lane] - ROUNDER));
            let mut q = [0.0; WIDTH];
            for &c in exp2.polynomial.iter().rev() {
                q = each(|lane| q[lane] * f[lane] + c);
            }
            let power = each(|lane| q[lane] * f[lane] + exp2.unit);
            let exponent = each(|lane| (shifted[lane].to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
            let scaled = each(|lane| power[lane] * f32::from_bits(exponent[lane]));
            *x = each(|lane| if x[lane] < exp2.least { 0.0 } else { scaled[lane] });
        }
        vectors
    }

    #[inline(always)]
    fn dot_bf16(self, sum: Self::Float, a: Self::Word, b: Self::Word) -> Self::Float {
        let low = |word: u32| f32::from_bits(word << 16);
        let high = |word: u32| f32::from_bits(word & 0xffff_0000);
        each(|lane| sum[lane] + low(a[lane]) * low(b[lane]) + high(a[lane]) * high(b[lane]))
    }

    #[inline(always)]
    fn pack_bf16(self, first: Self::Float, second: Self::Float) -> Self::Word {
        let pair = |low: f32, high: f32| bf16_bits(low) | bf16_bits(high) << 16;
        let ([a, b, c, d], [e, f, g, h]) = (first, second);
        [pair(a, b), pair(c, d), pair(e, f), pair(g, h)]
    }

    #[inline(always)]
    fn dot_u8_i8(self, sum: Self::Word, a: Self::Word, b: Self::Word) -> Self::Word {
        let product = |a: u32, b: u32, byte: u32| {
            let (a, b) = (a >> (8 * byte) & 0xff, (b << (24 - 8 * byte)) as i32 >> 24);
            (a as i32 * b) as u32
        };
        let of_lane = |a: u32, b: u32| {
            let low = product(a, b, 0).wrapping_add(product(a, b, 1));
            low.wrapping_add(product(a, b, 2)).wrapping_add(product(a, b, 3))
        };
        each(|lane| sum[lane].wrapping_add(of_lane(a[lane], b[lane])))
    }

    #[inline(always)]
    fn pack_u8(self, parts: [Self::Word; 4]) -> Self::Word {
        each(|word| {
            let [a, b, c, d] = parts[word];
            a | b << 8 | c << 16 | d << 24
        })
    }

    #[inline(always)]
    fn zip_bf16(self, low: Self::Float, high: Self::Float) -> Self::Word {
        each(|word| bf16_bits(low[word]) | bf16_bits(high[word]) << 16)
    }

    #[inline(always)]
    fn pack_i8(self, parts: [Self::Word; 4]) -> Self::Word {
        let low_byte = |word: u32| word & 0xff;
        each(|word| {
            let [a, b, c, d] = parts[word];
            low_byte(a) | low_byte(b) << 8 | low_byte(c) << 16 | d << 24
        })
    }

    #[inline(always)]
    fn transpose_bytes(self, words: Self::Word) -> Self::Word {
        each(|word| {
            let byte = |row: usize| (words[row] >> (8 * word) & 0xff) << (8 * row);
            byte(0) | byte(1) | byte(2) | byte(3)
        })
    }

    #[inline(always)]
    fn xor(self, a: Self::Word, b: Self::Word) -> Self::Word {
        each(|lane| a[lane] ^ b[lane])
    }

    #[inline(always)]
    fn shift_right(self, integers: Self::Word, bits: Self::Word) -> Self::Word {
        each(|lane| (integers[lane] as i32 >> bits[lane]) as u32)
    }

    #[inline(always)]
    fn pack_i16(self, first: Self::Word, second: Self::Word) -> Self::Word {
        let low = |word: u32| (word as i32).clamp(i16::MIN.into(), i16::MAX.into()) as u32 & 0xffff;
        let pair = |a: u32, b: u32| low(a) | low(b) << 16;
        let ([a, b, c, d], [e, f, g, h]) = (first, second);
        [pair(a, b), pair(c, d), pair(e, f), pair(g, h)]
    }

    #[inline(always)]
    fn unpack_i16(self, packed: Self::Word) -> [Self::Word; 2] {
        let halves = |word: u32| [(word << 16) as i32 >> 16, word as i32 >> 16].map(|half| half as u32);
        let [[a, b], [c, d], [e, f], [g, h]] = packed.map(halves);
        [[a, b, c, d], [e, f, g, h]]
    }

    #[inline(always)]
    fn max_i16(self, a: Self::Word, b: Self::Word) -> Self::Word {
        each(|lane| of_halves(a[lane], b[lane], i16::max))
    }

    #[inline(always)]
    fn min_i16(self, a: Self::Word, b: Self::Word) -> Self::Word {
        each(|lane| of_halves(a[lane], b[lane], i16::min))
    }

    #[inline(always)]
    fn sub_i16(self, a: Self::Word, b: Self::Word) -> Self::Word {
        each(|lane| of_halves(a[lane], b[lane], i16::saturating_sub))
    }

    #[inline(always)]
    fn larger_bits(self, largest: Self::Word, number: Self::Word) -> Self::Word {
        each(|lane| largest[lane].max(number[lane] & i32::MAX as u32))
    }

    #[inline(always)]
    fn round(self, x: Self::Float) -> Self::Word {
        each(|lane| (x[lane] + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits()))
    }

    #[inline(always)]
    fn convert(self, integers: Self::Word) -> Self::Float {
        each(|lane| integers[lane] as i32 as f32)
    }

    #[inline(always)]
    fn integer_exponentials(self, distance: Self::Float, softmax: &IntegerSoftmax) -> Self::Word {
        each(|lane| u32::from(softmax.exponential(distance[lane] as u32)))
    }
}

/// `f` of every lane. A loop and not `array::from_fn`, which the compiler does not always inline.
#[inline(always)]
fn each<T: Copy + Default>(f: impl Fn(usize) -> T) -> [T; WIDTH] {
    let mut lanes = [T::default(); WIDTH];
    for (lane, to) in lanes.iter_mut().enumerate() {
        *to = f(lane);
    }
    lanes
}

/// `f` of both 16-bit halves of two words.
#[inline(always)]
fn of_halves(a: u32, b: u32, f: impl Fn(i16, i16) -> i16) -> u32 {
    let (low, high) = (f(a as i16, b as i16), f((a >> 16) as i16, (b >> 16) as i16));
    u32::from(low as u16) | u32::from(high as u16) << 16
}

/// The nearest bf16, ties to even, as its 16 bits; without branches, so that it vectorises.
#[inline(always)]
pub(super) fn bf16_bits(x: f32) -> u32 {
    const QUIET_NAN: u32 = 0x7fc0;
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { QUIET_NAN } else { rounded }
}
