use std::f64::consts::LOG2_E;

use crate::lanes::bf16_bits;

/// Keys and values of one head in the forms that its 16-bit and 8-bit blocks multiply with, and the scales of those.
///
/// Keys are `[keys][head_dim / n]` words of n numbers of one key, values `[keys / n][head_dim]` words of n keys, n = 2
/// for bf16 and 4 for integers. Both cover a whole number of groups of 32 keys; padding is zero.
#[derive(Debug, Default)]
pub(crate) struct PackedHead {
    pub half_keys: Vec<u32>,
    pub half_values: Vec<u32>,
    pub int8_keys: Vec<u32>,
    pub int8_values: Vec<u32>,
    /// What a key's product starts from, as i32: queries are stored plus 128, which adds 128 times the key's sum.
    pub int8_offsets: Vec<u32>,
    pub scales: Int8Scales,
}

/// Symmetric scales of one head, zero point 0: a number is its integer times `max|x| / 127`.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Int8Scales {
    /// From a query to its integer.
    pub query_steps: f32,
    /// From an integer score to the score: `s_Q s_K / sqrt(head_dim)`.
    pub alpha: f64,
    /// The same to powers of two: `alpha log2(e)`.
    pub score: f32,
    /// From an integer value to the value: `s_V`.
    pub value: f32,
}

/// Room for groups of this many keys, the largest block.
const KEY_GROUP: usize = 32;

impl PackedHead {
    /// Room for the precisions in use.
    pub(crate) fn with_room(keys: usize, head_dim: usize, half: bool, int8: bool) -> Self {
        let values = keys.next_multiple_of(KEY_GROUP) * head_dim;
        let room = |used: bool, len: usize| vec![0; if used { len } else { 0 }];
        Self {
            half_keys: room(half, values / 2),
            half_values: room(half, values / 2),
            int8_keys: room(int8, values / 4),
            int8_values: room(int8, values / 4),
            int8_offsets: room(int8, values / head_dim),
            scales: Int8Scales::default(),
        }
    }

    /// Fills the room from one head's `q`, and from the live part of its `k` and `v`, all `[tokens][head_dim]`.
    #[inline(always)]
    pub(crate) fn fill(&mut self, q: &[f32], k: &[f32], v: &[f32], head_dim: usize) {
        if !self.half_keys.is_empty() {
            pack_keys(k, &mut self.half_keys, |[low, high]| bf16_bits(low) | bf16_bits(high) << 16);
            pack_values(v, &mut self.half_values, head_dim, |[low, high]| bf16_bits(low) | bf16_bits(high) << 16);
        }
        if !self.int8_keys.is_empty() {
            let (q_scale, k_scale, v_scale) = (Scale::of(q), Scale::of(k), Scale::of(v));
            pack_keys(k, &mut self.int8_keys, |four| bytes(four.map(|x| k_scale.byte(x))));
            pack_values(v, &mut self.int8_values, head_dim, |four| bytes(four.map(|x| v_scale.byte(x))));
            for (offset, key) in self.int8_offsets.iter_mut().zip(self.int8_keys.chunks_exact(head_dim / 4)) {
                let sum: i32 = key.iter().flat_map(|word| word.to_le_bytes()).map(|byte| i32::from(byte as i8)).sum();
                *offset = (-128 * sum) as u32;
            }
            let alpha = f64::from(q_scale.step) * f64::from(k_scale.step) / (head_dim as f64).sqrt();
            let score = (alpha * LOG2_E) as f32;
            // One number that is not finite makes a whole head's 8-bit blocks not a number, on every kernel alike.
            let finite = score.is_finite() && v_scale.step.is_finite();
            let or_nan = |x: f32| if finite { x } else { f32::NAN };
            self.scales = Int8Scales {
                query_steps: q_scale.steps_per_unit,
                alpha,
                score: or_nan(score),
                value: or_nan(v_scale.step),
            };
        }
    }
}

/// Size of one integer step, and its inverse.
#[derive(Clone, Copy)]
struct Scale {
    step: f32,
    steps_per_unit: f32,
}

impl Scale {
    /// `max|x| / 127`. Numbers that are all below 1.2e-36, where the inverse would overflow, count as zero; with one
    /// that is not finite, the step is not.
    #[inline(always)]
    fn of(values: &[f32]) -> Self {
        const SMALLEST: f32 = 1.2e-36;
        // The bits of non-negative floats order like the floats, with infinity and NaN on top: a maximum that keeps NaN.
        let max = f32::from_bits(values.iter().fold(0, |max, x| max.max(x.abs().to_bits())));
        match max {
            max if max < SMALLEST => Self { step: 0.0, steps_per_unit: 0.0 },
            max => Self { step: max / 127.0, steps_per_unit: 127.0 / max },
        }
    }

    #[inline(always)]
    fn byte(self, x: f32) -> u8 {
        signed_byte(x * self.steps_per_unit)
    }
}

/// The nearest integer, ties to even, as a byte in two's complement, for |x| < 127.5.
#[inline(always)]
pub(crate) fn signed_byte(x: f32) -> u8 {
    (x + crate::lanes::ROUNDER).to_bits() as u8
}

#[inline(always)]
pub(crate) fn bytes(four: [u8; 4]) -> u32 {
    u32::from_le_bytes(four)
}

/// `N` neighbouring numbers of one key a word; zero beyond the last key.
#[inline(always)]
fn pack_keys<const N: usize>(keys: &[f32], words: &mut [u32], pack: impl Fn([f32; N]) -> u32) {
    let (packed, rest) = words.split_at_mut(keys.len() / N);
    for (word, numbers) in packed.iter_mut().zip(keys.as_chunks().0) {
        *word = pack(*numbers);
    }
    rest.fill(0);
}

/// The same feature of `N` neighbouring keys a word; keys beyond the last count as zero.
#[inline(always)]
fn pack_values<const N: usize>(values: &[f32], words: &mut [u32], d: usize, pack: impl Fn([f32; N]) -> u32) {
    let whole = values.len() / (N * d);
    let (packed, rest) = words.split_at_mut(whole * d);
    for (words, keys) in packed.chunks_exact_mut(d).zip(values.chunks_exact(N * d)) {
        for (at, word) in words.iter_mut().enumerate() {
            *word = pack(std::array::from_fn(|key| keys[key * d + at]));
        }
    }
    rest.fill(0);
    let last = &values[whole * N * d..];
    if !last.is_empty() {
        for (at, word) in rest[..d].iter_mut().enumerate() {
            *word = pack(std::array::from_fn(|key| last.get(key * d + at).copied().unwrap_or(0.0)));
        }
    }
}
