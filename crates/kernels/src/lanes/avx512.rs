//! Sixteen lanes in 512-bit registers, and eight in 256-bit ones for blocks of eight queries.
//!
//! Safety of every `unsafe` block here: the instruction sets in question are those of `Avx512::detect`, and values of
//! that type come from nowhere else.

use std::{arch::x86_64::*, mem::transmute};

use super::{EXP2, Lanes, TIES_UP, avx2::EightLanes};
use crate::{
    IntegerSoftmax,
    packed::PackedHead,
    tile::{self, Job},
    workspace::Scratch,
};

/// AVX-512 F, BW and VL with VNNI and BF16, AVX2 and FMA: the proof that this CPU has them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx512bf16")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma");
        all.then_some(Self(()))
    }

    pub(crate) fn attend_row(self, job: &Job<'_>, out: &mut [f32], scratch: &mut Scratch) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16,avx2,fma")]
        fn sixteen(proof: Avx512, job: &Job<'_>, out: &mut [f32], scratch: &mut Scratch) {
            tile::attend_row(proof, job, out, scratch);
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16,avx2,fma")]
        fn eight(proof: Avx512, job: &Job<'_>, out: &mut [f32], scratch: &mut Scratch) {
            tile::attend_row(EightLanes(proof), job, out, scratch);
        }
        // SAFETY: see the module.
        match job.row.block_size < Self::WIDTH {
            true => unsafe { eight(self, job, out, scratch) },
            false => unsafe { sixteen(self, job, out, scratch) },
        }
    }

    pub(crate) fn pack(self, packed: &mut PackedHead, q: &[f32], k: &[f32], v: &[f32], head_dim: usize) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
        fn with_features(packed: &mut PackedHead, q: &[f32], k: &[f32], v: &[f32], head_dim: usize) {
            packed.fill(q, k, v, head_dim);
        }
        // SAFETY: see the module.
        unsafe { with_features(packed, q, k, v, head_dim) }
    }
}

impl Lanes for Avx512 {
    const WIDTH: usize = 16;
    const SUMS: usize = 8;

    type Word = __m512i;
    type Float = __m512;

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

    /// The instruction gives its second operand where one is NaN.
    #[inline(always)]
    fn max(self, new: __m512, running: __m512) -> __m512 {
        unsafe { _mm512_max_ps(new, running) }
    }

    #[inline(always)]
    fn exp2(self, x: __m512) -> __m512 {
        unsafe {
            // Far enough below for zero, near enough to stay finite; a NaN comes second and stays.
            let x = _mm512_max_ps(_mm512_set1_ps(-200.0), x);
            let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
            let f = _mm512_sub_ps(x, n);
            let [rest @ .., last] = EXP2;
            let mut q = _mm512_set1_ps(last);
            for &c in rest.iter().rev() {
                q = _mm512_fmadd_ps(q, f, _mm512_set1_ps(c));
            }
            _mm512_scalef_ps(_mm512_fmadd_ps(q, f, _mm512_set1_ps(1.0)), n)
        }
    }

    #[inline(always)]
    fn dot_bf16(self, sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: the two types are the same 512 bits.
        unsafe { _mm512_dpbf16_ps(sum, transmute::<__m512i, __m512bh>(a), transmute::<__m512i, __m512bh>(b)) }
    }

    #[inline(always)]
    fn pack_bf16(self, low: __m512, high: __m512) -> __m512i {
        unsafe {
            // SAFETY: the two types are the same 512 bits.
            let halves = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            let interleave = _mm512_set_epi16(
                31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
                17, 1, 16, 0,
            );
            _mm512_permutexvar_epi16(interleave, halves)
        }
    }

    #[inline(always)]
    fn dot_u8_i8(self, sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, a, b) }
    }

    #[inline(always)]
    fn pack_u8(self, [a, b, c, d]: [__m512i; 4]) -> __m512i {
        unsafe {
            let low = _mm512_or_si512(a, _mm512_slli_epi32::<8>(b));
            let high = _mm512_or_si512(c, _mm512_slli_epi32::<8>(d));
            _mm512_or_si512(low, _mm512_slli_epi32::<16>(high))
        }
    }

    #[inline(always)]
    fn round(self, x: __m512) -> __m512i {
        unsafe { _mm512_cvtps_epi32(x) }
    }

    #[inline(always)]
    fn convert(self, integers: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(integers) }
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
