//! Two groups in 256-bit registers.
//!
//! Safety of every `unsafe` block here: the instruction sets in question are those of `Avx2::detect`, and values of that
//! type come from nowhere else.

use std::arch::x86_64::*;

use super::{Exp2, Lanes, OnLanes, Portable, TIES_UP};
use crate::IntegerSoftmax;

/// AVX2 and FMA: the proof that this CPU has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

impl Lanes for Avx2 {
    const GROUPS: usize = 2;
    const HAS_BF16: bool = false;
    const SUMS: usize = 8;

    type Word = __m256i;
    type Float = __m256;
    type Narrow = Portable;

    #[inline(always)]
    fn narrow(self) -> Portable {
        Portable
    }

    #[inline(always)]
    fn run<T: OnLanes>(self, task: T) -> T::Output {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma")]
        fn with_features<T: OnLanes>(lanes: Avx2, task: T) -> T::Output {
            task.on(lanes)
        }
        unsafe { with_features(self, task) }
    }

    #[inline(always)]
    fn load(self, from: &[u32]) -> __m256i {
        let words: &[u32; 8] = from.first_chunk().expect("buffers hold whole vectors");
        unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, words: __m256i, to: &mut [u32]) {
        let to: &mut [u32; 8] = to.first_chunk_mut().expect("buffers hold whole vectors");
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), words) }
    }

    #[inline(always)]
    fn load_halves(self, low: &[u32], high: &[u32]) -> __m256i {
        let [low, high] =
            [low, high].map(|from| -> &[u32; 4] { from.first_chunk().expect("buffers hold whole vectors") });
        unsafe { _mm256_loadu2_m128i(high.as_ptr().cast(), low.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_groups(self, [low, high, ..]: [&[u32]; 4]) -> __m256i {
        self.load_halves(low, high)
    }

    #[inline(always)]
    fn load_half(self, from: &[u32]) -> __m256i {
        let words: &[u32; 4] = from.first_chunk().expect("buffers hold half a vector");
        unsafe { _mm256_zextsi128_si256(_mm_loadu_si128(words.as_ptr().cast())) }
    }

    #[inline(always)]
    fn store_half(self, words: __m256i, to: &mut [u32]) {
        let to: &mut [u32; 4] = to.first_chunk_mut().expect("buffers hold half a vector");
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_castsi256_si128(words)) }
    }

    #[inline(always)]
    fn first_words_first(self, words: __m256i) -> __m256i {
        unsafe { _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)) }
    }

    #[inline(always)]
    fn first_pairs_first(self, words: __m256i) -> __m256i {
        unsafe { _mm256_permute4x64_epi64::<0b11_01_10_00>(words) }
    }

    #[inline(always)]
    fn turn_groups(self, [a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
        unsafe { [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b), c, d] }
    }

    #[inline(always)]
    fn interleave(self, a: __m256i, b: __m256i) -> [__m256i; 2] {
        unsafe { [_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)] }
    }

    #[inline(always)]
    fn splat(self, word: u32) -> __m256i {
        unsafe { _mm256_set1_epi32(word as i32) }
    }

    #[inline(always)]
    fn bits(self, floats: __m256) -> __m256i {
        unsafe { _mm256_castps_si256(floats) }
    }

    #[inline(always)]
    fn floats(self, bits: __m256i) -> __m256 {
        unsafe { _mm256_castsi256_ps(bits) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn mul_sub(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmsub_ps(a, b, c) }
    }

    /// The instruction gives its second operand where one is NaN.
    #[inline(always)]
    fn max(self, new: __m256, running: __m256) -> __m256 {
        unsafe { _mm256_max_ps(new, running) }
    }

    /// Likewise.
    #[inline(always)]
    fn min(self, new: __m256, limit: __m256) -> __m256 {
        unsafe { _mm256_min_ps(new, limit) }
    }

    #[inline(always)]
    fn all_within(self, x: __m256, limit: f32) -> bool {
        unsafe {
            let size = _mm256_andnot_ps(_mm256_set1_ps(-0.0), x);
            _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(size, _mm256_set1_ps(limit))) == 0xff
        }
    }

    #[inline(always)]
    fn exp2<const M: usize, const N: usize>(self, mut x: [__m256; M], exp2: &Exp2<N>) -> [__m256; M] {
        unsafe {
            if exp2.most < f32::INFINITY {
                for x in &mut x {
                    // NaN, the second operand, stays.
                    *x = _mm256_min_ps(_mm256_set1_ps(exp2.most), *x);
                }
            }
            let (mut n, mut f) = (x, x);
            for m in 0..M {
                n[m] = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x[m]);
                f[m] = _mm256_sub_ps(x[m], n[m]);
            }
            let mut q = [_mm256_set1_ps(exp2.polynomial[N - 1]); M];
            for &c in exp2.polynomial[..N - 1].iter().rev() {
                for m in 0..M {
                    q[m] = _mm256_fmadd_ps(q[m], f[m], _mm256_set1_ps(c));
                }
            }
            for m in 0..M {
                q[m] = _mm256_fmadd_ps(q[m], f[m], _mm256_set1_ps(exp2.unit));
            }
            for m in 0..M {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n[m]), _mm256_set1_epi32(127));
                let two_to_n = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent));
                let too_small = _mm256_cmp_ps::<_CMP_LT_OQ>(x[m], _mm256_set1_ps(exp2.least));
                q[m] = _mm256_andnot_ps(too_small, _mm256_mul_ps(q[m], two_to_n));
            }
            q
        }
    }

    #[inline(always)]
    fn dot_bf16(self, sum: __m256, a: __m256i, b: __m256i) -> __m256 {
        unsafe {
            let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            let (a_low, b_low) = (_mm256_slli_epi32::<16>(a), _mm256_slli_epi32::<16>(b));
            let (a_high, b_high) = (_mm256_and_si256(a, upper), _mm256_and_si256(b, upper));
            let sum = _mm256_fmadd_ps(_mm256_castsi256_ps(a_low), _mm256_castsi256_ps(b_low), sum);
            _mm256_fmadd_ps(_mm256_castsi256_ps(a_high), _mm256_castsi256_ps(b_high), sum)
        }
    }

    #[inline(always)]
    fn pack_bf16(self, first: __m256, second: __m256) -> __m256i {
        unsafe {
            // Unsigned saturation changes nothing, and groups are packed one by one.
            let (first, second) = (upper_bf16(first), upper_bf16(second));
            _mm256_packus_epi32(_mm256_srli_epi32::<16>(first), _mm256_srli_epi32::<16>(second))
        }
    }

    /// In 16-bit products: the instruction for bytes saturates.
    #[inline(always)]
    fn dot_u8_i8(self, sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        unsafe {
            let low_byte = _mm256_set1_epi16(0xff);
            let (a_even, a_odd) = (_mm256_and_si256(a, low_byte), _mm256_srli_epi16::<8>(a));
            let (b_even, b_odd) = (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b)), _mm256_srai_epi16::<8>(b));
            let products = _mm256_add_epi32(_mm256_madd_epi16(a_even, b_even), _mm256_madd_epi16(a_odd, b_odd));
            _mm256_add_epi32(sum, products)
        }
    }

    #[inline(always)]
    fn pack_u8(self, [a, b, c, d]: [__m256i; 4]) -> __m256i {
        unsafe { _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d)) }
    }

    #[inline(always)]
    fn zip_bf16(self, low: __m256, high: __m256) -> __m256i {
        unsafe {
            let (low, high) = (upper_bf16(low), upper_bf16(high));
            _mm256_blend_epi16::<0b1010_1010>(_mm256_srli_epi32::<16>(low), high)
        }
    }

    #[inline(always)]
    fn pack_i8(self, [a, b, c, d]: [__m256i; 4]) -> __m256i {
        unsafe { _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d)) }
    }

    #[inline(always)]
    fn transpose_bytes(self, words: __m256i) -> __m256i {
        unsafe {
            let transpose = _mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
            _mm256_shuffle_epi8(words, _mm256_broadcastsi128_si256(transpose))
        }
    }

    #[inline(always)]
    fn xor(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_xor_si256(a, b) }
    }

    #[inline(always)]
    fn shift_right(self, integers: __m256i, bits: __m256i) -> __m256i {
        unsafe { _mm256_srav_epi32(integers, bits) }
    }

    #[inline(always)]
    fn pack_i16(self, first: __m256i, second: __m256i) -> __m256i {
        unsafe { _mm256_packs_epi32(first, second) }
    }

    #[inline(always)]
    fn unpack_i16(self, packed: __m256i) -> [__m256i; 2] {
        unsafe {
            let (low, high) = (_mm256_unpacklo_epi16(packed, packed), _mm256_unpackhi_epi16(packed, packed));
            [_mm256_srai_epi32::<16>(low), _mm256_srai_epi32::<16>(high)]
        }
    }

    #[inline(always)]
    fn max_i16(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_max_epi16(a, b) }
    }

    #[inline(always)]
    fn min_i16(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_min_epi16(a, b) }
    }

    #[inline(always)]
    fn sub_i16(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_subs_epi16(a, b) }
    }

    #[inline(always)]
    fn larger_bits(self, largest: __m256i, number: __m256i) -> __m256i {
        unsafe { _mm256_max_epu32(largest, _mm256_and_si256(number, _mm256_set1_epi32(i32::MAX))) }
    }

    #[inline(always)]
    fn round(self, x: __m256) -> __m256i {
        unsafe { _mm256_cvtps_epi32(x) }
    }

    #[inline(always)]
    fn convert(self, integers: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(integers) }
    }

    #[inline(always)]
    fn integer_exponentials(self, distance: __m256, softmax: &IntegerSoftmax) -> __m256i {
        unsafe {
            let clipped = _mm256_min_ps(distance, _mm256_set1_ps(softmax.clip() as f32));
            let steps = _mm256_set1_pd(softmax.steps_per_unit());
            let low = _mm256_cvtps_pd(_mm256_castps256_ps128(clipped));
            let high = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(clipped));
            let low = _mm256_cvttpd_epi32(_mm256_fmadd_pd(low, steps, _mm256_set1_pd(TIES_UP)));
            let high = _mm256_cvttpd_epi32(_mm256_fmadd_pd(high, steps, _mm256_set1_pd(TIES_UP)));
            let index = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high);
            // From 0 to 31 as the distance is clipped, but for queries that are not there, which may have any distance.
            let index = _mm256_and_si256(index, _mm256_set1_epi32(31));
            _mm256_i32gather_epi32::<4>(IntegerSoftmax::WORDS.as_ptr().cast(), index)
        }
    }
}

/// As [`bf16_bits`](super::bf16_bits), in the upper half of each word; the lower half is what is left of `x`.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn upper_bf16(x: __m256) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let bits = _mm256_castps_si256(x);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let quiet = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc0_0000));
        let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x);
        _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(rounded), quiet, nan))
    }
}
