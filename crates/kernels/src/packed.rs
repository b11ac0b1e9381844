#![expect(clippy::needless_range_loop, reason = "a loop over keys or vectors says so, whatever it indexes")]

use std::{f64::consts::LOG2_E, ops::Range};

use maskwright_blueprint::Precision;

use crate::{
    lanes::{Lanes, MAX_WIDTH, OnLanes, Portable, transpose_groups},
    workspace::AlignedWords,
};

/// One head in the forms that its blocks multiply with.
#[derive(Debug)]
pub(crate) struct PackedHead {
    /// f32 keys as in [`PackedOperands`]; queries are used as they are.
    pub single_keys: AlignedWords,
    /// f32 values where a caller's do not begin on a cache line: a vector that straddles two is loaded twice.
    single_values: AlignedWords,
    /// bf16, two a word.
    pub half: PackedOperands,
    /// Integers, four a word; queries are stored plus 128, because the products take one side unsigned, but as they are for a unit for matrices.
    pub int8: PackedOperands,
    /// What a key's 8-bit product starts from, as i32: the 128 of the queries adds 128 times the key's sum. Not for a unit for matrices.
    pub int8_offsets: AlignedWords,
    pub int8_scales: Int8Scales,
    /// Words of the keys at hand, one key after the other, or the numbers of the last values.
    in_turn: AlignedWords,
}

/// Queries `[queries][head_dim / n]` and keys `[keys / span][head_dim / n][span]`, words of n numbers of one token, those of
/// `span` keys side by side: as many as a vector has lanes, or a block has keys; values `[keys / n][head_dim]`, words of n
/// tokens. Padding is zero.
#[derive(Debug)]
pub(crate) struct PackedOperands {
    pub queries: AlignedWords,
    pub keys: AlignedWords,
    pub values: AlignedWords,
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

/// Numbers of one head, `[tokens][head_dim]`, which of `Precision::ALL` its blocks have, and how many tokens one has.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub block_size: usize,
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub uses: [bool; 3],
    /// Of each block of keys, for how many of `Precision::ALL` it is packed, from the coarsest on: as far as the finest that a row
    /// computes it at.
    pub forms: &'a [u8],
    /// Of `q`, `k` and `v`.
    pub largest: [Largest; 3],
}

/// The largest of a tensor's numbers, as far as they have been looked through for 8 bit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Largest {
    /// So many of the numbers to come have been.
    pub of: usize,
    /// Its bits, and so those of all without their signs. They order like the numbers, with infinity and NaN on top: a maximum
    /// that keeps NaN.
    pub bits: u32,
}

impl Largest {
    /// Looks through the next `part`, as far as that has not been done.
    #[inline(always)]
    fn look_through(&mut self, part: &[f32]) {
        let (done, rest) = part.split_at(self.of.min(part.len()));
        self.of -= done.len();
        self.bits = largest_bits(rest).max(self.bits);
    }
}

impl<'a> Head<'a> {
    /// Of the part from token `at` on, the runs of tokens whose blocks are packed for a precision.
    #[inline(always)]
    fn runs_of_part(&self, precision: Precision, at: usize) -> Runs<'a> {
        let of_part = PART / self.block_size;
        let first = at / self.block_size;
        let forms = &self.forms[first..self.forms.len().min(first + of_part)];
        Runs { forms, precision: precision.index() as u8, block_size: self.block_size, at }
    }

    /// The same of all tokens.
    #[inline(always)]
    fn runs(&self, precision: Precision) -> Runs<'a> {
        Runs { forms: self.forms, precision: precision.index() as u8, block_size: self.block_size, at: 0 }
    }
}

/// Neighbouring tokens, those of whole blocks.
struct Runs<'a> {
    forms: &'a [u8],
    precision: u8,
    block_size: usize,
    /// The first token of the first of `forms`.
    at: usize,
}

impl Iterator for Runs<'_> {
    type Item = Range<usize>;

    #[inline(always)]
    fn next(&mut self) -> Option<Range<usize>> {
        let skipped = self.forms.iter().position(|&forms| forms > self.precision)?;
        let rest = &self.forms[skipped..];
        let taken = rest.iter().position(|&forms| forms <= self.precision).unwrap_or(rest.len());
        let start = self.at + skipped * self.block_size;
        self.forms = &rest[taken..];
        self.at = start + taken * self.block_size;
        Some(start..self.at)
    }
}

/// Packs one head; see [`PackedHead::fill`].
pub(crate) struct Pack<'a> {
    pub packed: &'a mut PackedHead,
    pub head: Head<'a>,
    pub head_dim: usize,
}

impl OnLanes for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        self.packed.fill(lanes, self.head, self.head_dim);
    }
}

/// Words of one key that are put beside those of others at once.
const GROUP: usize = 4;

/// Tokens that are brought into all forms together, and looked through: whole vectors of keys, and 8 KiB of 64 features, which the
/// innermost cache holds.
const PART: usize = 32;
const _: () = assert!(PART.is_multiple_of(MAX_WIDTH));

impl PackedHead {
    /// Room for the precisions in use.
    pub(crate) fn with_room(queries: usize, keys: usize, head_dim: usize, uses: [bool; 3]) -> Self {
        let [int8, half, single] = uses;
        let room = |used: bool, n: usize| PackedOperands::with_room(queries, keys, head_dim, if used { n } else { 0 });
        let single_keys = if single { keys.next_multiple_of(MAX_WIDTH) * head_dim } else { 0 };
        let single_values = if single { keys * head_dim } else { 0 };
        Self {
            single_keys: AlignedWords::zeroed(single_keys),
            single_values: AlignedWords::zeroed(single_values),
            half: room(half, 2),
            int8: room(int8, 4),
            int8_offsets: AlignedWords::zeroed(if int8 { keys.next_multiple_of(MAX_WIDTH) } else { 0 }),
            int8_scales: Int8Scales::default(),
            // Words are read four at a time, also at the end of the last key.
            in_turn: AlignedWords::zeroed(MAX_WIDTH * head_dim + GROUP - 1),
        }
    }

    /// The values `v` that the head was filled from, as words on cache lines.
    pub(crate) fn single_values<'a>(&'a self, v: &'a [f32]) -> &'a [u32] {
        if on_a_cache_line(v) { words(v) } else { &self.single_values[..v.len().min(self.single_values.len())] }
    }

    pub(crate) fn words(&self) -> usize {
        let operands = [&self.half, &self.int8]
            .map(|operands| operands.queries.len() + operands.keys.len() + operands.values.len());
        let single = self.single_keys.len() + self.single_values.len();
        single + operands.iter().sum::<usize>() + self.int8_offsets.len() + self.in_turn.len()
    }

    /// Fills the room of the precisions in use, each of `Precision::ALL`, from one head's `q` and the live part of its `k`
    /// and `v`, all `[tokens][head_dim]`.
    #[inline(always)]
    pub(crate) fn fill<'a, L: Lanes>(&mut self, lanes: L, head: Head<'a>, head_dim: usize) {
        let Head { q, k, v, uses: [int8, half, single], block_size, largest, .. } = head;
        let [mut largest_q, mut largest_k, mut largest_v] = largest;
        let span = L::WIDTH.min(block_size);
        // One tensor after the other, and one part of it after the other: then it is still in a cache when it is read again. Where there is
        // nothing to do but to look through it, it is one part.
        let part = if half || single { PART * head_dim } else { usize::MAX };
        let mut scales = [Scale::default(); 3];
        for (q, at) in q.chunks(part).zip((0..).step_by(part)) {
            if half {
                pack_tokens(lanes, Half, q, &mut self.half.queries[at / 2..], 0);
            }
            if int8 {
                largest_q.look_through(q);
            }
        }
        if int8 {
            scales[0] = Scale::of(largest_q.bits);
            let toggle = if L::MATRICES { 0 } else { FOUR_TIMES_128 };
            pack_tokens(lanes, Int8(scales[0]), q, &mut self.int8.queries, toggle);
        }
        let parts = |tokens: &'a [f32]| tokens.chunks(part).zip((0..).step_by(PART));
        for (k_part, at) in parts(k) {
            if single {
                for Range { start, end } in head.runs_of_part(Precision::Single, at) {
                    let k = tokens(k, start, end, head_dim);
                    let to = &mut self.single_keys[start * head_dim..];
                    pack_keys(lanes, Single, k, to, &mut self.in_turn, [head_dim, span]);
                }
            }
            if half {
                for Range { start, end } in head.runs_of_part(Precision::Half, at) {
                    let k = tokens(k, start, end, head_dim);
                    let to = &mut self.half.keys[start * head_dim / 2..];
                    pack_keys(lanes, Half, k, to, &mut self.in_turn, [head_dim, span]);
                }
            }
            if int8 {
                largest_k.look_through(k_part);
            }
        }
        if int8 {
            scales[1] = Scale::of(largest_k.bits);
            for Range { start, end } in head.runs(Precision::Int8) {
                let k = tokens(k, start, end, head_dim);
                let to = &mut self.int8.keys[start * head_dim / 4..];
                pack_keys(lanes, Int8(scales[1]), k, to, &mut self.in_turn, [head_dim, span]);
                if L::MATRICES {
                    continue;
                }
                let groups = to.chunks_exact(span * head_dim / 4).take(k.len().div_ceil(span * head_dim));
                for (offsets, group) in self.int8_offsets[start..].chunks_exact_mut(span).zip(groups) {
                    match span == L::WIDTH {
                        true => offsets_of(lanes, group, offsets),
                        false => offsets_of(lanes.narrow(), group, offsets),
                    }
                }
            }
        }
        let copied = single && !on_a_cache_line(v);
        for (v_part, at) in parts(v) {
            if copied {
                for Range { start, end } in head.runs_of_part(Precision::Single, at) {
                    let v = words(tokens(v, start, end, head_dim));
                    self.single_values[start * head_dim..][..v.len()].copy_from_slice(v);
                }
            }
            if half {
                for Range { start, end } in head.runs_of_part(Precision::Half, at) {
                    let v = tokens(v, start, end, head_dim);
                    let end = (end * head_dim / 2).min(self.half.values.len());
                    let to = &mut self.half.values[start * head_dim / 2..end];
                    pack_values(lanes, Half, v, to, &mut self.in_turn, head_dim);
                    if L::MATRICES {
                        // They are multiplied by nothing, which NaN would survive.
                        to[v.len().div_ceil(2 * head_dim) * head_dim..].fill(0);
                    }
                }
            }
            if int8 {
                largest_v.look_through(v_part);
            }
        }
        if int8 {
            scales[2] = Scale::of(largest_v.bits);
            for Range { start, end } in head.runs(Precision::Int8) {
                let v = tokens(v, start, end, head_dim);
                let to = &mut self.int8.values[start * head_dim / 4..];
                pack_values(lanes, Int8(scales[2]), v, to, &mut self.in_turn, head_dim);
            }
            self.int8_scales = Int8Scales::of(scales, head_dim);
        }
    }
}

/// The numbers of tokens from `start` on, as many as there are before `end`: none where no token is live.
#[inline(always)]
fn tokens(numbers: &[f32], start: usize, end: usize, d: usize) -> &[f32] {
    let all = numbers.len();
    &numbers[all.min(start * d)..all.min(end * d)]
}

impl PackedOperands {
    /// For `n` numbers a word; none at all for zero.
    fn with_room(queries: usize, keys: usize, head_dim: usize, n: usize) -> Self {
        let words = |tokens: usize| (tokens * head_dim).checked_div(n).unwrap_or(0);
        // A unit for matrices reads whole tiles of queries, and twice as many values as a vector has keys.
        let queries = words(queries.next_multiple_of(MAX_WIDTH));
        let keys = words(keys.next_multiple_of(MAX_WIDTH) + MAX_WIDTH);
        let [queries, keys, values] = [queries, keys, keys].map(AlignedWords::zeroed);
        Self { queries, keys, values }
    }
}

impl Int8Scales {
    #[inline(always)]
    fn of([q, k, v]: [Scale; 3], head_dim: usize) -> Self {
        let alpha = f64::from(q.step) * f64::from(k.step) / (head_dim as f64).sqrt();
        let score = (alpha * LOG2_E) as f32;
        // One number that is not finite makes a whole head's 8-bit blocks not a number, on every kernel alike.
        let finite = score.is_finite() && v.step.is_finite();
        let or_nan = |x: f32| if finite { x } else { f32::NAN };
        // Zero would leave nothing of the minus infinity of a score that does not exist.
        Self { alpha, score: or_nan(score.max(f32::MIN_POSITIVE)), value: or_nan(v.step) }
    }
}

/// Size of one integer step, and its inverse.
#[derive(Default, Clone, Copy)]
struct Scale {
    step: f32,
    steps_per_unit: f32,
}

impl Scale {
    /// `max|x| / 127`, of the largest number's bits. Numbers that are all below 1.2e-36, where the inverse would overflow, count as
    /// zero; with one that is not finite, the step is not.
    fn of(largest_bits: u32) -> Self {
        const SMALLEST: f32 = 1.2e-36;
        match f32::from_bits(largest_bits) {
            max if max < SMALLEST => Self { step: 0.0, steps_per_unit: 0.0 },
            max => Self { step: max / 127.0, steps_per_unit: 127.0 / max },
        }
    }
}

/// The largest of the bits of `numbers` without their signs.
#[inline(always)]
fn largest_bits(numbers: &[f32]) -> u32 {
    let largest = |numbers: &[f32]| numbers.iter().fold(0, |max, x| max.max(x.abs().to_bits()));
    // A vector that straddles two lines takes twice as long to read.
    let (before, on_lines) = numbers.split_at(numbers.as_ptr().align_offset(AlignedWords::LINE).min(numbers.len()));
    largest(before).max(largest(on_lines))
}

/// What numbers become when a block multiplies them.
trait Form: Copy {
    /// Numbers in a word.
    const N: usize;

    /// `WIDTH` words of `N` neighbouring numbers each.
    fn words<L: Lanes>(self, lanes: L, from: &[f32]) -> L::Word;
}

/// Forms whose values are packed, too.
trait Zip<const N: usize>: Form {
    /// Words that each hold the same feature of `N` keys, of which each has a vector of numbers.
    fn zip<L: Lanes>(self, lanes: L, keys: [L::Word; N]) -> L::Word;
}

#[derive(Clone, Copy)]
struct Single;

impl Form for Single {
    const N: usize = 1;

    #[inline(always)]
    fn words<L: Lanes>(self, lanes: L, from: &[f32]) -> L::Word {
        lanes.load(words(from))
    }
}

#[derive(Clone, Copy)]
struct Half;

impl Form for Half {
    const N: usize = 2;

    #[inline(always)]
    fn words<L: Lanes>(self, lanes: L, from: &[f32]) -> L::Word {
        // No closure: left a function of its own, it would not have the instructions of its caller.
        let (first, second) = (lanes.load(words(from)), lanes.load(words(&from[L::WIDTH..])));
        lanes.first_pairs_first(lanes.pack_bf16(lanes.floats(first), lanes.floats(second)))
    }
}

impl Zip<2> for Half {
    #[inline(always)]
    fn zip<L: Lanes>(self, lanes: L, [low, high]: [L::Word; 2]) -> L::Word {
        lanes.zip_bf16(lanes.floats(low), lanes.floats(high))
    }
}

#[derive(Clone, Copy)]
struct Int8(Scale);

impl Int8 {
    /// The nearest integers, ties to even: at most 127 in size.
    #[inline(always)]
    fn integers<L: Lanes>(self, lanes: L, numbers: L::Word) -> L::Word {
        let steps_per_unit = lanes.floats(lanes.splat(self.0.steps_per_unit.to_bits()));
        lanes.round(lanes.mul(lanes.floats(numbers), steps_per_unit))
    }
}

impl Form for Int8 {
    const N: usize = 4;

    #[inline(always)]
    fn words<L: Lanes>(self, lanes: L, from: &[f32]) -> L::Word {
        let mut parts = [lanes.splat(0); 4];
        for (at, part) in parts.iter_mut().enumerate() {
            *part = self.integers(lanes, lanes.load(words(&from[at * L::WIDTH..])));
        }
        lanes.first_words_first(lanes.pack_i8(parts))
    }
}

impl Zip<4> for Int8 {
    #[inline(always)]
    fn zip<L: Lanes>(self, lanes: L, keys: [L::Word; 4]) -> L::Word {
        let mut parts = keys;
        for part in &mut parts {
            *part = self.integers(lanes, *part);
        }
        lanes.transpose_bytes(lanes.pack_i8(parts))
    }
}

/// Four bytes of 128: toggles between integers and the same plus 128.
const FOUR_TIMES_128: u32 = 0x8080_8080;

/// Words of neighbouring numbers of all of `tokens`, with the bits of `toggle` inverted. No word has numbers of two tokens.
#[inline(always)]
fn pack_tokens<L: Lanes, F: Form>(lanes: L, form: F, tokens: &[f32], to: &mut [u32], toggle: u32) {
    let to = &mut to[..tokens.len() / F::N];
    let mut at = 0;
    at = some_words(lanes, form, tokens, to, at, toggle);
    at = some_words(lanes.narrow(), form, tokens, to, at, toggle);
    at = some_words(Portable, form, tokens, to, at, toggle);
    if let rest @ 1.. = to.len() - at {
        let (mut numbers, mut words) = ([0.0; 4 * GROUP], [0; GROUP]);
        numbers[..rest * F::N].copy_from_slice(&tokens[at * F::N..]);
        some_words(Portable, form, &numbers[..GROUP * F::N], &mut words, 0, toggle);
        to[at..].copy_from_slice(&words[..rest]);
    }
}

/// As many whole vectors of words as fit from word `at` on. Returns the first word that is left.
#[inline(always)]
fn some_words<L: Lanes, F: Form>(lanes: L, form: F, from: &[f32], to: &mut [u32], at: usize, toggle: u32) -> usize {
    assert!(from.len() >= to.len() * F::N, "every word has its numbers");
    let vectors = (to.len() - at) / L::WIDTH;
    let from = from[at * F::N..].chunks_exact(L::WIDTH * F::N);
    for (from, to) in from.zip(to[at..].chunks_exact_mut(L::WIDTH)) {
        lanes.store(lanes.xor(form.words(lanes, from), lanes.splat(toggle)), to);
    }
    at + vectors * L::WIDTH
}

/// Words of `span` keys side by side.
#[inline(always)]
fn pack_keys<L: Lanes, F: Form>(
    lanes: L,
    form: F,
    keys: &[f32],
    to: &mut [u32],
    in_turn: &mut [u32],
    [d, span]: [usize; 2],
) {
    let of_key = d / F::N;
    for (keys, to) in keys.chunks(span * d).zip(to.chunks_exact_mut(span * of_key)) {
        // As they are, where they are words already.
        let keys = match F::N == 1 && keys.len() == span * d {
            true => words(keys),
            false => {
                in_turn[keys.len() / F::N..span * of_key].fill(0);
                pack_tokens(lanes, form, keys, in_turn, 0);
                &*in_turn
            }
        };
        match span == L::WIDTH {
            true => side_by_side(lanes, keys, of_key, to),
            false => side_by_side(lanes.narrow(), keys, of_key, to),
        }
    }
}

/// From one key's words after another's to a vector of keys for each word: `[keys][words]` to `[words][keys]`.
#[inline(always)]
fn side_by_side<L: Lanes>(lanes: L, keys: &[u32], words: usize, to: &mut [u32]) {
    // What is read beyond the words of the last key is not written.
    let read = (L::WIDTH - 1) * words + words.next_multiple_of(GROUP);
    assert!(read <= keys.len() && to.len() == words * L::WIDTH, "there is room for all words");
    let mut at = 0;
    for to in to.chunks_mut(GROUP * L::WIDTH) {
        // Group x of vector n is four words of key 4 x + n.
        let mut vectors = [lanes.splat(0); GROUP];
        for n in 0..GROUP {
            let mut from = [keys; GROUP];
            for x in 0..L::GROUPS {
                let first = (GROUP * x + n) * words + at;
                // SAFETY: read, as has been asserted.
                from[x] = unsafe { keys.get_unchecked(first..first + GROUP) };
            }
            vectors[n] = lanes.load_groups(from);
        }
        for (word, to) in transpose_groups(lanes, vectors).into_iter().zip(to.chunks_exact_mut(L::WIDTH)) {
            lanes.store(word, to);
        }
        at += GROUP;
    }
}

/// Words of the same feature of `N` neighbouring keys, of which those beyond the last count as zero.
#[inline(always)]
fn pack_values<L: Lanes, F: Zip<N>, const N: usize>(
    lanes: L,
    form: F,
    values: &[f32],
    to: &mut [u32],
    in_turn: &mut [u32],
    d: usize,
) {
    let whole = values.chunks_exact(N * d);
    let (last, mut rows) = (whole.remainder(), to.chunks_exact_mut(d));
    for (keys, row) in whole.zip(&mut rows) {
        pack_row(lanes, form, words(keys), row);
    }
    if let (1.., Some(row)) = (last.len(), rows.next()) {
        in_turn[..N * d].fill(0);
        in_turn[..last.len()].copy_from_slice(words(last));
        pack_row(lanes, form, &in_turn[..N * d], row);
    }
}

/// A word of each feature of `N` keys.
#[inline(always)]
fn pack_row<L: Lanes, F: Zip<N>, const N: usize>(lanes: L, form: F, keys: &[u32], to: &mut [u32]) {
    let at = some_features(lanes, form, keys, to, 0);
    // Features come in eights.
    some_features(lanes.narrow(), form, keys, to, at);
}

/// As many whole vectors as fit from feature `at` on. Returns the first feature that is left.
#[inline(always)]
fn some_features<L: Lanes, F: Zip<N>, const N: usize>(
    lanes: L,
    form: F,
    keys: &[u32],
    to: &mut [u32],
    at: usize,
) -> usize {
    let d = to.len();
    assert!(keys.len() == N * d, "every key has all features");
    let mut at = at;
    while at + L::WIDTH <= d {
        let mut numbers = [lanes.splat(0); N];
        for n in 0..N {
            // SAFETY: within key n, as has been asserted.
            numbers[n] = lanes.load(unsafe { keys.get_unchecked(n * d + at..n * d + at + L::WIDTH) });
        }
        lanes.store(form.zip(lanes, numbers), &mut to[at..at + L::WIDTH]);
        at += L::WIDTH;
    }
    at
}

/// -128 times the sum of each of a vector of keys, as i32.
#[inline(always)]
fn offsets_of<L: Lanes>(lanes: L, group: &[u32], offsets: &mut [u32]) {
    let mut sum = lanes.splat(0);
    for words in group.chunks_exact(L::WIDTH) {
        sum = lanes.dot_u8_i8(sum, lanes.splat(FOUR_TIMES_128), lanes.load(words));
    }
    lanes.store(sum, offsets);
    for offset in offsets {
        *offset = offset.wrapping_neg();
    }
}

fn on_a_cache_line(values: &[f32]) -> bool {
    values.as_ptr().addr().is_multiple_of(AlignedWords::LINE)
}

/// Floats as their bits.
#[inline(always)]
pub(crate) fn words(floats: &[f32]) -> &[u32] {
    // SAFETY: the types have the same size and alignment, and every value of the one is a value of the other.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), floats.len()) }
}

#[inline(always)]
pub(crate) fn words_mut(floats: &mut [f32]) -> &mut [u32] {
    // SAFETY: as in `words`, in both directions.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), floats.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_looked_through_once() {
        let mut largest = Largest { of: 5, bits: 9_f32.to_bits() };
        let mut with = |part: &[f32]| {
            largest.look_through(part);
            f32::from_bits(largest.bits)
        };
        assert_eq!([with(&[100.0; 3]), with(&[100.0, 100.0, 1.0, -20.0]), with(&[3.0, -30.0])], [9.0, 20.0, 30.0]);
        assert!(with(&[f32::NAN]).is_nan() && with(&[f32::INFINITY]).is_nan());
    }

    #[test]
    fn blocks_are_packed_as_far_as_a_row_needs_them() {
        const BLOCK: usize = 8;
        const D: usize = 8;
        const NOTHING: u32 = 0x1234_5678;
        let forms = [3, 0, 1, 2, 2, 0];
        // The last but one is ragged, the last one is padding.
        let live = 4 * BLOCK + 3;
        let numbers: Vec<f32> = (0..live * D).map(|at| 1.0 + at as f32).collect();
        // From odd places on, values are copied.
        let values: Vec<f32> = [&[0.0], &numbers[..]].concat();
        let mut packed = PackedHead::with_room(BLOCK, forms.len() * BLOCK, D, [true; 3]);
        let PackedHead { single_keys, single_values, half, int8, .. } = &mut packed;
        for words in [single_keys, single_values, &mut half.keys, &mut half.values, &mut int8.keys, &mut int8.values] {
            words.fill(NOTHING);
        }
        let (q, k, v) = (&numbers[..BLOCK * D], &numbers[..], &values[1..]);
        packed.fill(
            Portable,
            Head { block_size: BLOCK, q, k, v, uses: [true; 3], forms: &forms, largest: Default::default() },
            D,
        );
        let PackedHead { single_keys, single_values, half, int8, .. } = &packed;
        let of_precision = [
            (Precision::Int8, 4, [&int8.keys, &int8.values]),
            (Precision::Half, 2, [&half.keys, &half.values]),
            (Precision::Single, 1, [single_keys, single_values]),
        ];
        for (precision, per_word, tensors) in of_precision {
            for (at, &forms) in forms.iter().enumerate() {
                for tensor in tensors {
                    let words = &tensor[at * BLOCK * D / per_word..][..D];
                    let written = words.iter().all(|word| *word != NOTHING);
                    assert_eq!(written, usize::from(forms) > precision.index(), "{precision} {at}: {words:x?}");
                }
            }
        }
    }
}
