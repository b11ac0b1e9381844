use std::f64::consts::LOG2_E;

use crate::lanes::{ROUNDER, bf16_bits};

/// One head in the forms that its 16-bit and 8-bit blocks multiply with.
#[derive(Debug)]
pub(crate) struct PackedHead {
    /// bf16, two a word.
    pub half: PackedOperands,
    /// Integers, four a word; queries are stored plus 128, because the products take one side unsigned.
    pub int8: PackedOperands,
    /// What a key's 8-bit product starts from, as i32: the 128 of the queries adds 128 times the key's sum.
    pub int8_offsets: Vec<u32>,
    pub int8_scales: Int8Scales,
}

/// Queries `[queries][head_dim / n]` and keys `[keys][head_dim / n]`, words of n numbers of one token; values
/// `[keys / n][head_dim]`, words of n tokens. Keys and values cover a whole number of groups of 32; padding is zero.
#[derive(Debug)]
pub(crate) struct PackedOperands {
    pub queries: Vec<u32>,
    pub keys: Vec<u32>,
    pub values: Vec<u32>,
}

/// Symmetric scales of one head, zero point 0: a number is its integer times `max|x| / 127`.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Int8Scales {
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
    pub(crate) fn with_room(queries: usize, keys: usize, head_dim: usize, half: bool, int8: bool) -> Self {
        let room = |used: bool, n: usize| PackedOperands::with_room(queries, keys, head_dim, if used { n } else { 0 });
        Self {
            half: room(half, 2),
            int8: room(int8, 4),
            int8_offsets: vec![0; if int8 { keys.next_multiple_of(KEY_GROUP) } else { 0 }],
            int8_scales: Int8Scales::default(),
        }
    }

    /// Fills the room from one head's `q`, and from the live part of its `k` and `v`, all `[tokens][head_dim]`.
    #[inline(always)]
    pub(crate) fn fill(&mut self, q: &[f32], k: &[f32], v: &[f32], head_dim: usize) {
        if !self.half.queries.is_empty() {
            let pair = |[low, high]: [f32; 2]| bf16_bits(low) | bf16_bits(high) << 16;
            self.half.fill((q, pair), (k, pair), (v, pair), head_dim);
        }
        if !self.int8.queries.is_empty() {
            let (of_q, of_k, of_v) = (Scale::of(q), Scale::of(k), Scale::of(v));
            let plus_128 = |four| of_q.four(four) ^ 0x8080_8080;
            self.int8.fill((q, plus_128), (k, |four| of_k.four(four)), (v, |four| of_v.four(four)), head_dim);
            for (offset, key) in self.int8_offsets.iter_mut().zip(self.int8.keys.chunks_exact(head_dim / 4)) {
                let sum: i32 = key.iter().flat_map(|word| word.to_le_bytes()).map(|byte| i32::from(byte as i8)).sum();
                *offset = (-128 * sum) as u32;
            }
            self.int8_scales = Int8Scales::of(of_q, of_k, of_v, head_dim);
        }
    }
}

impl PackedOperands {
    /// For `n` numbers a word; none at all for zero.
    fn with_room(queries: usize, keys: usize, head_dim: usize, n: usize) -> Self {
        let room = |tokens: usize| vec![0; (tokens * head_dim).checked_div(n).unwrap_or(0)];
        let keys = keys.next_multiple_of(KEY_GROUP);
        Self { queries: room(queries), keys: room(keys), values: room(keys) }
    }

    pub(crate) fn words(&self) -> usize {
        self.queries.len() + self.keys.len() + self.values.len()
    }

    /// From numbers, and what makes a word of them.
    #[inline(always)]
    fn fill<const N: usize>(
        &mut self,
        (q, pack_q): (&[f32], impl Fn([f32; N]) -> u32),
        (k, pack_k): (&[f32], impl Fn([f32; N]) -> u32),
        (v, pack_v): (&[f32], impl Fn([f32; N]) -> u32),
        head_dim: usize,
    ) {
        pack_tokens(q, &mut self.queries, pack_q);
        pack_tokens(k, &mut self.keys, pack_k);
        pack_values(v, &mut self.values, head_dim, pack_v);
    }
}

impl Int8Scales {
    #[inline(always)]
    fn of(q: Scale, k: Scale, v: Scale, head_dim: usize) -> Self {
        let alpha = f64::from(q.step) * f64::from(k.step) / (head_dim as f64).sqrt();
        let score = (alpha * LOG2_E) as f32;
        // One number that is not finite makes a whole head's 8-bit blocks not a number, on every kernel alike.
        let finite = score.is_finite() && v.step.is_finite();
        let or_nan = |x: f32| if finite { x } else { f32::NAN };
        Self { alpha, score: or_nan(score), value: or_nan(v.step) }
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

    /// The nearest integers, ties to even, as bytes in two's complement.
    #[inline(always)]
    fn four(self, numbers: [f32; 4]) -> u32 {
        let mut bytes = [0; 4];
        for (byte, x) in bytes.iter_mut().zip(numbers) {
            // At most 127 in size, so the low byte of the shifted sum is all of it.
            *byte = (x * self.steps_per_unit + ROUNDER).to_bits() as u8;
        }
        u32::from_le_bytes(bytes)
    }
}

/// `N` neighbouring numbers of one token a word; zero beyond the last token.
#[inline(always)]
fn pack_tokens<const N: usize>(tokens: &[f32], words: &mut [u32], pack: impl Fn([f32; N]) -> u32) {
    let (packed, rest) = words.split_at_mut(tokens.len() / N);
    for (word, numbers) in packed.iter_mut().zip(tokens.as_chunks().0) {
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
