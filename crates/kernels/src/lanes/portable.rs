use super::{EXP2, Lanes, ROUNDER};
use crate::IntegerSoftmax;

const WIDTH: usize = 8;

/// Arrays of eight, in loops that the compiler turns into whatever vectors the target has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

impl Lanes for Portable {
    const WIDTH: usize = WIDTH;
    const SUMS: usize = 4;

    type Word = [u32; WIDTH];
    type Float = [f32; WIDTH];

    #[inline(always)]
    fn load(self, from: &[u32]) -> Self::Word {
        *from.first_chunk().expect("buffers hold whole vectors")
    }

    #[inline(always)]
    fn store(self, words: Self::Word, to: &mut [u32]) {
        *to.first_chunk_mut().expect("buffers hold whole vectors") = words;
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
    fn max(self, new: Self::Float, running: Self::Float) -> Self::Float {
        each(|lane| if new[lane] > running[lane] { new[lane] } else { running[lane] })
    }

    #[inline(always)]
    fn exp2(self, x: Self::Float) -> Self::Float {
        // Step by step for all lanes, and without branches: whole polynomials a lane are not vectorised.
        let shifted = each(|lane| x[lane] + ROUNDER);
        let f = each(|lane| x[lane] - (shifted[lane] - ROUNDER));
        let mut q = [0.0; WIDTH];
        for &c in EXP2.iter().rev() {
            q = each(|lane| q[lane] * f[lane] + c);
        }
        let power = each(|lane| q[lane] * f[lane] + 1.0);
        let exponent = each(|lane| (shifted[lane].to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
        let scaled = each(|lane| power[lane] * f32::from_bits(exponent[lane]));
        each(|lane| if x[lane] < -126.0 { 0.0 } else { scaled[lane] })
    }

    #[inline(always)]
    fn dot_bf16(self, sum: Self::Float, a: Self::Word, b: Self::Word) -> Self::Float {
        let low = |word: u32| f32::from_bits(word << 16);
        let high = |word: u32| f32::from_bits(word & 0xffff_0000);
        each(|lane| sum[lane] + low(a[lane]) * low(b[lane]) + high(a[lane]) * high(b[lane]))
    }

    #[inline(always)]
    fn pack_bf16(self, low: Self::Float, high: Self::Float) -> Self::Word {
        each(|lane| bf16_bits(low[lane]) | bf16_bits(high[lane]) << 16)
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
    fn pack_u8(self, [a, b, c, d]: [Self::Word; 4]) -> Self::Word {
        each(|lane| a[lane] | b[lane] << 8 | c[lane] << 16 | d[lane] << 24)
    }

    #[inline(always)]
    fn round(self, x: Self::Float) -> Self::Word {
        each(|lane| (x[lane] + ROUNDER).to_bits() & 0x003f_ffff)
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

/// The nearest bf16, ties to even, as its 16 bits; without branches, so that it vectorises.
#[inline(always)]
pub(crate) fn bf16_bits(x: f32) -> u32 {
    const QUIET_NAN: u32 = 0x7fc0;
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { QUIET_NAN } else { rounded }
}
