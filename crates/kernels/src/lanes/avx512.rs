//! Four groups in 512-bit registers.
//!
//! Safety of every `unsafe` block here: the instruction sets in question are those of `Avx512::detect`, and values of
//! that type come from nowhere else.

use std::{
    arch::{asm, x86_64::*},
    mem::transmute,
};

use super::{Avx2, Exp2, Lanes, MatrixScores, MatrixSums, OnLanes, TIES_UP, UNIFIED_MAX, amx};
use crate::IntegerSoftmax;

/// AVX-512 F, BW, DQ and VL with VNNI, AVX2 and FMA, and BF16 and AMX where it says so: the proof that this CPU has them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512<const BF16: bool, const AMX: bool = false>(Avx2);

impl<const BF16: bool, const AMX: bool> Avx512<BF16, AMX> {
    pub(crate) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && (!BF16 || is_x86_feature_detected!("avx512bf16"))
            && (!AMX || amx::is_allowed());
        Avx2::detect().filter(|_| all).map(Self)
    }

    /// The same CPU's, without the instructions that not every one has.
    pub(crate) fn without_bf16(self) -> Avx512<false> {
        Avx512(self.0)
    }
}

impl<const BF16: bool, const AMX: bool> Lanes for Avx512<BF16, AMX> {
    const GROUPS: usize = 4;
    // Where matrices multiply bf16, vectors have nothing but single precision to multiply.
    const HAS_BF16: bool = BF16 && !AMX;
    const MATRICES: bool = AMX;
    const SUMS: usize = 16;

    type Word = __m512i;
    type Float = __m512;
    type Narrow = Avx2;

    #[inline(always)]
    fn narrow(self) -> Avx2 {
        self.0
    }

    #[inline(always)]
    fn run<T: OnLanes>(self, task: T) -> T::Output {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma")]
        fn with_bf16<L: Lanes, T: OnLanes>(lanes: L, task: T) -> T::Output {
            task.on(lanes)
        }
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
        fn without<L: Lanes, T: OnLanes>(lanes: L, task: T) -> T::Output {
            task.on(lanes)
        }
        unsafe { if BF16 { with_bf16(self, task) } else { without(self, task) } }
    }

    #[inline(always)]
    fn begin_matrices(self, four: bool) {
        if AMX {
            unsafe { amx::begin(four) }
        }
    }

    #[inline(always)]
    fn end_matrices(self) {
        if AMX {
            unsafe { amx::end() }
        }
    }

    #[inline(always)]
    unsafe fn score_matrices<const BYTES: bool, const ONE: bool>(self, scores: MatrixScores) {
        debug_assert!(AMX);
        // SAFETY: the caller's promise.
        unsafe { amx::scores::<BYTES, ONE>(scores) }
    }

    #[inline(always)]
    unsafe fn sum_matrices<const BYTES: bool>(self, sums: MatrixSums<'_>) {
        debug_assert!(AMX);
        // SAFETY: likewise.
        unsafe { amx::sums::<BYTES>(sums) }
    }

    #[inline(always)]
    fn load(self, from: &[u32]) -> __m512i {
        let words: &[u32; 16] = from.first_chunk().expect("buffers hold whole vectors");
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, words: __m512i, to: &mut [u32]) {
        let to: &mut [u32; 16] = to.first_chunk_mut().expect("buffers hold whole vectors");
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), words) }
    }

    #[inline(always)]
    fn load_halves(self, low: &[u32], high: &[u32]) -> __m512i {
        let (low, high) = (first::<8>(low), first::<8>(high));
        unsafe {
            let low = _mm512_castsi256_si512(_mm256_loadu_si256(low.as_ptr().cast()));
            _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(high.as_ptr().cast()))
        }
    }

    #[inline(always)]
    fn load_groups(self, from: [&[u32]; 4]) -> __m512i {
        let [a, b, c, d] = from;
        let (a, b, c, d) = (first::<4>(a), first::<4>(b), first::<4>(c), first::<4>(d));
        unsafe {
            // Into the vector at hand by the load itself, for which any port will do.
            let all = _mm512_castsi128_si512(_mm_loadu_si128(a.as_ptr().cast()));
            let all = _mm512_inserti32x4::<1>(all, _mm_loadu_si128(b.as_ptr().cast()));
            let all = _mm512_inserti32x4::<2>(all, _mm_loadu_si128(c.as_ptr().cast()));
            _mm512_inserti32x4::<3>(all, _mm_loadu_si128(d.as_ptr().cast()))
        }
    }

    #[inline(always)]
    fn load_half(self, from: &[u32]) -> __m512i {
        let words: &[u32; 8] = from.first_chunk().expect("buffers hold half a vector");
        unsafe { _mm512_zextsi256_si512(_mm256_loadu_si256(words.as_ptr().cast())) }
    }

    #[inline(always)]
    fn store_half(self, words: __m512i, to: &mut [u32]) {
        let to: &mut [u32; 8] = to.first_chunk_mut().expect("buffers hold half a vector");
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_castsi512_si256(words)) }
    }

    #[inline(always)]
    fn first_words_first(self, words: __m512i) -> __m512i {
        unsafe {
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            _mm512_permutexvar_epi32(order, words)
        }
    }

    #[inline(always)]
    fn first_words_apart(self, words: __m512i) -> [__m512i; 2] {
        unsafe {
            let first = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 1, 5, 9, 13, 0, 0, 0, 0);
            let third = _mm512_setr_epi32(2, 6, 10, 14, 0, 0, 0, 0, 3, 7, 11, 15, 0, 0, 0, 0);
            let kept = 0b0000_1111_0000_1111;
            [_mm512_maskz_permutexvar_epi32(kept, first, words), _mm512_maskz_permutexvar_epi32(kept, third, words)]
        }
    }

    #[inline(always)]
    fn first_pairs_first(self, words: __m512i) -> __m512i {
        unsafe { _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), words) }
    }

    #[inline(always)]
    fn turn_groups(self, [a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
        unsafe {
            let ab_even = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
            let ab_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
            let cd_even = _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d);
            let cd_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d);
            [
                _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_even, cd_even),
                _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_odd, cd_odd),
                _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_even, cd_even),
                _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_odd, cd_odd),
            ]
        }
    }

    #[inline(always)]
    fn interleave(self, a: __m512i, b: __m512i) -> [__m512i; 2] {
        unsafe { [_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)] }
    }

    #[inline(always)]
    fn splat(self, word: u32) -> __m512i {
        unsafe { _mm512_set1_epi32(word as i32) }
    }

    #[inline(always)]
    fn bits(self, floats: __m512) -> __m512i {
        unsafe { _mm512_castps_si512(floats) }
    }

    #[inline(always)]
    fn floats(self, bits: __m512i) -> __m512 {
        unsafe { _mm512_castsi512_ps(bits) }
    }

    #[inline(always)]
    fn prefetch_for_later(self, line: *const u32) {
        // SAFETY: a hint, which reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn mul_sub(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmsub_ps(a, b, c) }
    }

    /// The instruction gives its second operand where one is NaN.
    #[inline(always)]
    fn max(self, new: __m512, running: __m512) -> __m512 {
        unsafe { _mm512_max_ps(new, running) }
    }

    /// Likewise.
    #[inline(always)]
    fn min(self, new: __m512, limit: __m512) -> __m512 {
        unsafe { _mm512_min_ps(new, limit) }
    }

    #[inline(always)]
    fn all_within(self, x: __m512, limit: f32) -> bool {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LE_OQ>(_mm512_abs_ps(x), _mm512_set1_ps(limit)) == u16::MAX }
    }

    #[inline(always)]
    fn exp2<const M: usize, const N: usize>(self, mut x: [__m512; M], exp2: &Exp2<N>) -> [__m512; M] {
        unsafe {
            for x in &mut x {
                // NaN, the second operand, stays.
                *x = _mm512_max_ps(_mm512_set1_ps(exp2.least), *x);
            }
            let mut f = x;
            for m in 0..M {
                // What is left when the nearest integer, or the even one of two, is taken away.
                f[m] = _mm512_reduce_ps::<0>(x[m]);
            }
            let mut q = [_mm512_set1_ps(exp2.polynomial[N - 1]); M];
            for &c in exp2.polynomial[..N - 1].iter().rev() {
                for m in 0..M {
                    q[m] = _mm512_fmadd_ps(q[m], f[m], _mm512_set1_ps(c));
                }
            }
            for m in 0..M {
                q[m] = _mm512_fmadd_ps(q[m], f[m], _mm512_set1_ps(exp2.unit));
            }
            for m in 0..M {
                q[m] = _mm512_scalef_ps(q[m], _mm512_sub_ps(x[m], f[m]));
            }
            q
        }
    }

    #[inline(always)]
    fn dot_bf16(self, sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        unsafe {
            if BF16 {
                // SAFETY: the two types are the same 512 bits.
                return _mm512_dpbf16_ps(sum, transmute::<__m512i, __m512bh>(a), transmute::<__m512i, __m512bh>(b));
            }
            let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            let (a_low, b_low) = (_mm512_slli_epi32::<16>(a), _mm512_slli_epi32::<16>(b));
            let (a_high, b_high) = (_mm512_and_si512(a, upper), _mm512_and_si512(b, upper));
            let sum = _mm512_fmadd_ps(_mm512_castsi512_ps(a_low), _mm512_castsi512_ps(b_low), sum);
            _mm512_fmadd_ps(_mm512_castsi512_ps(a_high), _mm512_castsi512_ps(b_high), sum)
        }
    }

    #[inline(always)]
    fn pack_bf16(self, first: __m512, second: __m512) -> __m512i {
        unsafe {
            if BF16 {
                // SAFETY: the two types are the same 512 bits.
                let halves = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
                return _mm512_permutexvar_epi64(_mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0), halves);
            }
            // Unsigned saturation changes nothing, and groups are packed one by one.
            let (first, second) = (rounded_to_bf16(first), rounded_to_bf16(second));
            _mm512_packus_epi32(_mm512_srli_epi32::<16>(first), _mm512_srli_epi32::<16>(second))
        }
    }

    #[inline(always)]
    fn dot_u8_i8(self, sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, a, b) }
    }

    #[inline(always)]
    fn pack_u8(self, [a, b, c, d]: [__m512i; 4]) -> __m512i {
        unsafe { _mm512_packus_epi16(_mm512_packus_epi32(a, b), _mm512_packus_epi32(c, d)) }
    }

    #[inline(always)]
    fn zip_bf16(self, low: __m512, high: __m512) -> __m512i {
        unsafe {
            if !BF16 {
                let low = _mm512_srli_epi32::<16>(rounded_to_bf16(low));
                return _mm512_mask_blend_epi16(0xaaaa_aaaa, low, rounded_to_bf16(high));
            }
            // SAFETY: the two types are the same 512 bits.
            let halves = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            let zip = _mm512_set_epi16(
                31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
                17, 1, 16, 0,
            );
            _mm512_permutexvar_epi16(zip, halves)
        }
    }

    #[inline(always)]
    fn pack_i8(self, [a, b, c, d]: [__m512i; 4]) -> __m512i {
        unsafe { _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)) }
    }

    #[inline(always)]
    fn transpose_bytes(self, words: __m512i) -> __m512i {
        unsafe {
            let transpose = _mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
            _mm512_shuffle_epi8(words, _mm512_broadcast_i32x4(transpose))
        }
    }

    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_xor_si512(a, b) }
    }

    #[inline(always)]
    fn shift_right(self, integers: __m512i, bits: __m512i) -> __m512i {
        unsafe { shift_right_each_i32(integers, bits) }
    }

    #[inline(always)]
    fn pack_i16(self, first: __m512i, second: __m512i) -> __m512i {
        unsafe { _mm512_packs_epi32(first, second) }
    }

    #[inline(always)]
    fn unpack_i16(self, packed: __m512i) -> [__m512i; 2] {
        unsafe {
            let (low, high) = (_mm512_unpacklo_epi16(packed, packed), _mm512_unpackhi_epi16(packed, packed));
            [_mm512_srai_epi32::<16>(low), _mm512_srai_epi32::<16>(high)]
        }
    }

    #[inline(always)]
    fn max_i16(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_max_epi16(a, b) }
    }

    #[inline(always)]
    fn min_i16(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_min_epi16(a, b) }
    }

    #[inline(always)]
    fn sub_i16(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_subs_epi16(a, b) }
    }

    #[inline(always)]
    fn larger_bits(self, largest: __m512i, number: __m512i) -> __m512i {
        unsafe { _mm512_max_epu32(largest, _mm512_and_si512(number, _mm512_set1_epi32(i32::MAX))) }
    }

    #[inline(always)]
    fn round(self, x: __m512) -> __m512i {
        unsafe { _mm512_cvtps_epi32(x) }
    }

    #[inline(always)]
    fn convert(self, integers: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(integers) }
    }

    /// In 16 bits, 32 scores at once: the result's bits are those of a logarithm with a small correction.
    #[inline(always)]
    fn weights_bf16(self, [first, second]: [__m512; 2], scale: __m512, max: [__m512; 2]) -> __m512i {
        unsafe {
            // The biased logarithm, in units of 2^-9 octaves: exponent and mantissa, if 2^f were 1 + f. What is 127 octaves below
            // saturates at zero, which is zero.
            let unit = _mm512_set1_ps(512.0);
            let scale = _mm512_mul_ps(scale, unit);
            let bias = _mm512_set1_ps(127.0 * 512.0);
            let (offset, next) = (_mm512_fmsub_ps(max[0], unit, bias), _mm512_fmsub_ps(max[1], unit, bias));
            let x = _mm512_packus_epi32(fixed(first, scale, offset), fixed(second, scale, next));
            // The upper six bits of f, and those of the exponent, which are not looked at.
            let cells = _mm512_srli_epi16::<3>(x);
            let (low, high) = ARCH.0.split_at(32);
            let (low, high) = (_mm512_loadu_si512(low.as_ptr().cast()), _mm512_loadu_si512(high.as_ptr().cast()));
            _mm512_srli_epi16::<2>(_mm512_sub_epi16(x, _mm512_permutex2var_epi16(low, cells, high)))
        }
    }

    /// From the other end, since whatever cannot be converted saturates at zero: that is the largest weight.
    #[inline(always)]
    fn unified_weights_bf16(self, [first, second]: [__m512; 2], scale: __m512) -> __m512i {
        unsafe {
            // How far below the largest biased logarithm, in units of 2^-9 octaves.
            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(512.0));
            let most = _mm512_set1_ps(UNIFIED_MAX * 512.0 + 511.0);
            let first = _mm512_cvtps_epi32(_mm512_fnmadd_ps(first, scale, most));
            let second = _mm512_cvtps_epi32(_mm512_fnmadd_ps(second, scale, most));
            let x = _mm512_packus_epi32(first, second);
            let cells = _mm512_srli_epi16::<3>(x);
            let (low, high) = ARCH_FROM_ABOVE.0.split_at(32);
            let (low, high) = (_mm512_loadu_si512(low.as_ptr().cast()), _mm512_loadu_si512(high.as_ptr().cast()));
            _mm512_srli_epi16::<2>(_mm512_sub_epi16(_mm512_permutex2var_epi16(low, cells, high), x))
        }
    }

    /// In 16 bits, two scores a word: 32 at once.
    #[inline(always)]
    fn weights_u8_of_distances(self, [ab, cd]: [__m512i; 2], unit: f32) -> __m512i {
        // In 64ths of octaves, in units of 2^-15.
        let to_64ths = (unit * (64.0 * 32_768.0) + 0.5) as i16;
        unsafe {
            let to_64ths = _mm512_set1_epi16(to_64ths);
            _mm512_packus_epi16(power(_mm512_mulhrs_epi16(ab, to_64ths)), power(_mm512_mulhrs_epi16(cd, to_64ths)))
        }
    }

    #[inline(always)]
    fn integer_exponentials(self, distance: __m512, softmax: &IntegerSoftmax) -> __m512i {
        let [table_low, table_high] = [&IntegerSoftmax::WORDS[..16], &IntegerSoftmax::WORDS[16..]];
        let (table_low, table_high) = (self.load(table_low), self.load(table_high));
        unsafe {
            let clipped = _mm512_min_ps(distance, _mm512_set1_ps(softmax.clip() as f32));
            let steps = _mm512_set1_pd(softmax.steps_per_unit());
            let clipped = _mm512_castps_pd(clipped);
            let low = _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_castpd512_pd256(clipped)));
            let high = _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(clipped)));
            let low = _mm512_cvttpd_epi32(_mm512_fmadd_pd(low, steps, _mm512_set1_pd(TIES_UP)));
            let high = _mm512_cvttpd_epi32(_mm512_fmadd_pd(high, steps, _mm512_set1_pd(TIES_UP)));
            let index = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            _mm512_permutex2var_epi32(table_low, index, table_high)
        }
    }
}

/// No closure: left a function of its own, it would be called for each group.
#[inline(always)]
fn first<const N: usize>(words: &[u32]) -> &[u32; N] {
    words.first_chunk().expect("buffers hold whole groups")
}

/// A table on one cache line for each half.
#[repr(align(64))]
struct Table([i16; 64]);

/// For each 64th of an octave, how far 1 + f is above 2^f there, in units of 2^-9, less the two that rounding to 2^-7 takes: of all
/// whole numbers the one whose weights, as bf16, are least far off at most. That is .67 of 2^-7, relative to the weight, where rounding
/// alone is .5. Twice an octave a weight is a unit less than that of the score before.
static ARCH: Table = Table([
    0, 2, 4, 7, 8, 11, 13, 15, 17, 19, 20, 23, 24, 26, 28, 29, 30, 32, 33, 34, 35, 36, 37, 38, 39, 40, 40, 41, 41, 42,
    42, 42, 42, 43, 43, 42, 42, 42, 42, 41, 41, 40, 39, 38, 38, 37, 35, 34, 33, 31, 30, 29, 26, 25, 23, 21, 18, 17, 14,
    11, 9, 6, 3, 1,
]);
/// The largest 16-bit number less [`ARCH`], for what is taken from that number.
static ARCH_FROM_ABOVE: Table = Table({
    let (mut table, mut n) = ([0; 64], 0);
    while n < 64 {
        table[n] = (u16::MAX - ARCH.0[63 - n] as u16) as i16;
        n += 1;
    }
    table
});
// What has saturated at zero stays there.
const _: () = assert!(ARCH.0[0] == 0);

/// As [`bf16_bits`](super::bf16_bits), in the upper half of each word; the lower half is what is left of `x`.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn rounded_to_bf16(x: __m512) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let bits = _mm512_castps_si512(x);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
        _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0_0000))
    }
}

/// `x * scale - offset` to the nearest integer; the most negative one for minus infinity.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn fixed(x: __m512, scale: __m512, offset: __m512) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_cvtps_epi32(_mm512_fmsub_ps(x, scale, offset)) }
}

/// For each 64th of an octave, `255 * 2^-f` in units of 2^-7.
static POWERS: Table = Table([
    32640, 32288, 31941, 31597, 31256, 30919, 30586, 30257, 29931, 29609, 29290, 28974, 28662, 28353, 28048, 27746,
    27447, 27151, 26859, 26569, 26283, 26000, 25720, 25443, 25169, 24898, 24630, 24364, 24102, 23842, 23585, 23331,
    23080, 22831, 22585, 22342, 22101, 21863, 21628, 21395, 21164, 20936, 20711, 20488, 20267, 20049, 19833, 19619,
    19408, 19199, 18992, 18787, 18585, 18385, 18187, 17991, 17797, 17605, 17416, 17228, 17043, 16859, 16677, 16498,
]);

/// `255 * 2^(-x / 64)` to the nearest integer, for 16-bit numbers not below zero.
///
/// # Safety
/// The CPU has AVX-512 BW.
#[inline(always)]
unsafe fn power(x: __m512i) -> __m512i {
    // SAFETY: the caller's promise; a table has two vectors.
    unsafe {
        let (low, high) = POWERS.0.split_at(32);
        let (low, high) = (_mm512_load_si512(low.as_ptr().cast()), _mm512_load_si512(high.as_ptr().cast()));
        let power = _mm512_permutex2var_epi16(low, x, high);
        // From 2^8 for the highest octave down to 1, and then nothing.
        let unit = shift_right_each_u16(_mm512_set1_epi16(256), _mm512_srli_epi16::<6>(x));
        _mm512_mulhrs_epi16(power, unit)
    }
}

/// An instruction of two operands as it stands, where the compiler makes something slower of its intrinsic.
macro_rules! instruction {
    ($(#[$doc:meta])* $name:ident, $mnemonic:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The CPU has AVX-512 BW.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        unsafe fn $name(a: __m512i, b: __m512i) -> __m512i {
            let result: __m512i;
            // SAFETY: the caller's promise; nothing but registers is touched.
            unsafe {
                asm!(
                    concat!($mnemonic, " {result}, {a}, {b}"),
                    result = lateout(zmm_reg) result,
                    a = in(zmm_reg) a,
                    b = in(zmm_reg) b,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            result
        }
    };
}

instruction! {
    /// Each signed 32-bit integer shifted by its own number of bits. Of one that is the same for all, the compiler makes a shift by the lowest word.
    shift_right_each_i32, "vpsravd"
}
instruction! {
    /// Each 16-bit integer shifted by its own number of bits: nothing is left from 16 on, for which the compiler adds a selection.
    shift_right_each_u16, "vpsrlvw"
}
