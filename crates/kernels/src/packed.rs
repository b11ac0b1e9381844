use std::f64::consts::LOG2_E;

use crate::{
    lanes::{Lanes, MAX_WIDTH, Portable, transpose_groups},
    plan::MAX_HEAD_DIM,
    workspace::AlignedWords,
};

/// One head in the forms that its blocks multiply with.
#[derive(Debug)]
pub(crate) struct PackedHead {
    /// f32: keys as in [`PackedOperands`], and the last values, padded to a group of four keys.
    pub single_keys: AlignedWords,
    pub last_values: Vec<f32>,
    /// bf16, two a word.
    pub half: PackedOperands,
    /// Integers, four a word; queries are stored plus 128, because the products take one side unsigned.
    pub int8: PackedOperands,
    /// What a key's 8-bit product starts from, as i32: the 128 of the queries adds 128 times the key's sum.
    pub int8_offsets: Vec<u32>,
    pub int8_scales: Int8Scales,
}

/// Queries `[queries][head_dim / n]` and keys `[keys / 4][head_dim / n][4]`, words of n numbers of one token, those of four
/// keys side by side; values `[keys / n][head_dim]`, words of n tokens. Padding is zero.
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

/// Numbers of one head, `[tokens][head_dim]`, and which of `Precision::ALL` its blocks have.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub uses: [bool; 3],
}

/// Keys that are packed together.
const GROUP: usize = 4;

impl PackedHead {
    /// Room for the precisions in use.
    pub(crate) fn with_room(queries: usize, keys: usize, head_dim: usize, uses: [bool; 3]) -> Self {
        let [int8, half, single] = uses;
        let room = |used: bool, n: usize| PackedOperands::with_room(queries, keys, head_dim, if used { n } else { 0 });
        let single = |len: usize| if single { len } else { 0 };
        Self {
            single_keys: AlignedWords::zeroed(single(keys.next_multiple_of(GROUP) * head_dim)),
            last_values: vec![0.0; single(GROUP * head_dim)],
            half: room(half, 2),
            int8: room(int8, 4),
            int8_offsets: vec![0; if int8 { keys.next_multiple_of(GROUP) } else { 0 }],
            int8_scales: Int8Scales::default(),
        }
    }

    /// Fills the room of the precisions in use, each of `Precision::ALL`, from one head's `q` and the live part of its `k`
    /// and `v`, all `[tokens][head_dim]`.
    #[inline(always)]
    pub(crate) fn fill<L: Lanes>(&mut self, lanes: L, head: Head<'_>, head_dim: usize) {
        let Head { q, k, v, uses: [int8, half, single] } = head;
        // One tensor after the other: it is still in a cache when it is read again.
        let mut scales = [Scale::default(); 3];
        if half {
            pack_tokens(lanes, Half, q, &mut self.half.queries, 0);
        }
        if int8 {
            scales[0] = Scale::of(q);
            pack_tokens(lanes, Int8(scales[0]), q, &mut self.int8.queries, FOUR_TIMES_128);
        }
        if single {
            pack_keys(lanes, Single, k, &mut self.single_keys, head_dim);
        }
        if half {
            pack_keys(lanes, Half, k, &mut self.half.keys, head_dim);
        }
        if int8 {
            scales[1] = Scale::of(k);
            pack_keys(lanes, Int8(scales[1]), k, &mut self.int8.keys, head_dim);
            let live = k.len().div_ceil(GROUP * head_dim);
            let groups = self.int8.keys.chunks_exact(head_dim).take(live);
            for (offsets, group) in self.int8_offsets.chunks_exact_mut(GROUP).zip(groups) {
                offsets.copy_from_slice(&offsets_of(lanes, group));
            }
        }
        if single {
            let whole = v.len() - v.len() % (GROUP * head_dim);
            let (last, rest) = self.last_values.split_at_mut(v.len() - whole);
            last.copy_from_slice(&v[whole..]);
            rest.fill(0.0);
        }
        if half {
            pack_values(lanes, Half, v, &mut self.half.values, head_dim);
        }
        if int8 {
            scales[2] = Scale::of(v);
            pack_values(lanes, Int8(scales[2]), v, &mut self.int8.values, head_dim);
            self.int8_scales = Int8Scales::of(scales, head_dim);
        }
    }
}

impl PackedOperands {
    /// For `n` numbers a word; none at all for zero.
    fn with_room(queries: usize, keys: usize, head_dim: usize, n: usize) -> Self {
        let words = |tokens: usize| (tokens * head_dim).checked_div(n).unwrap_or(0);
        let keys = words(keys.next_multiple_of(GROUP));
        // Four words are read from the last query's last two on.
        let queries = words(queries) + if n > 0 { 4 } else { 0 };
        let [queries, keys, values] = [queries, keys, keys].map(AlignedWords::zeroed);
        Self { queries, keys, values }
    }

    pub(crate) fn words(&self) -> usize {
        self.queries.len() + self.keys.len() + self.values.len()
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
    /// `WIDTH` words that each hold the same feature of `N` keys, from feature `at` on.
    fn zip<L: Lanes>(self, lanes: L, keys: [&[f32]; N], at: usize) -> L::Word;
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
        let first = lanes.floats(lanes.gather_groups(words(from), 8));
        let second = lanes.floats(lanes.gather_groups(words(&from[4..]), 8));
        lanes.pack_bf16(first, second)
    }
}

impl Zip<2> for Half {
    #[inline(always)]
    fn zip<L: Lanes>(self, lanes: L, [low, high]: [&[f32]; 2], at: usize) -> L::Word {
        lanes.zip_bf16(lanes.floats(lanes.load(words(&low[at..]))), lanes.floats(lanes.load(words(&high[at..]))))
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
            *part = self.integers(lanes, lanes.gather_groups(words(&from[4 * at..]), 16));
        }
        lanes.pack_i8(parts)
    }
}

impl Zip<4> for Int8 {
    #[inline(always)]
    fn zip<L: Lanes>(self, lanes: L, keys: [&[f32]; 4], at: usize) -> L::Word {
        let mut parts = [lanes.splat(0); 4];
        for (part, key) in parts.iter_mut().zip(keys) {
            *part = self.integers(lanes, lanes.load(words(&key[at..])));
        }
        lanes.transpose_bytes(lanes.pack_i8(parts))
    }
}

/// A token that is not there.
static NOTHING: [f32; MAX_HEAD_DIM as usize] = [0.0; MAX_HEAD_DIM as usize];

/// Four bytes of 128: toggles between integers and the same plus 128.
const FOUR_TIMES_128: u32 = 0x8080_8080;

/// The tokens of a group, where those beyond the last count as zero.
#[inline(always)]
fn group_of<const N: usize>(tokens: &[f32], first: usize, d: usize) -> [&[f32]; N] {
    let mut group = [&NOTHING[..d]; N];
    for (at, token) in group.iter_mut().enumerate() {
        *token = tokens.get((first + at) * d..(first + at + 1) * d).unwrap_or(*token);
    }
    group
}

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
    let mut at = at;
    while at + L::WIDTH <= to.len() {
        let words = form.words(lanes, &from[at * F::N..]);
        lanes.store(lanes.xor(words, lanes.splat(toggle)), &mut to[at..]);
        at += L::WIDTH;
    }
    at
}

/// Words of four keys side by side.
#[inline(always)]
fn pack_keys<L: Lanes, F: Form>(lanes: L, form: F, keys: &[f32], to: &mut [u32], d: usize) {
    let (words, live) = (d / F::N, keys.len().div_ceil(GROUP * d));
    let groups = to.chunks_exact_mut(GROUP * words).take(live).enumerate();
    if words.is_multiple_of(L::WIDTH) {
        for (group, to) in groups {
            let four = group_of::<GROUP>(keys, group * GROUP, d);
            for at in (0..words).step_by(L::WIDTH) {
                let mut rows = [lanes.splat(0); GROUP];
                for (row, key) in rows.iter_mut().zip(four) {
                    *row = form.words(lanes, &key[at * F::N..]);
                }
                interleave_keys(lanes, rows, &mut to[at * GROUP..]);
            }
        }
        return;
    }
    // Keys that are no whole vectors fill them together; only then are they put side by side.
    let mut in_turn = [0; GROUP * (MAX_HEAD_DIM as usize + 1)];
    for ((group, to), keys) in groups.zip(keys.chunks(GROUP * d)) {
        if group + 1 == live {
            in_turn.fill(0);
        }
        pack_tokens(lanes, form, keys, &mut in_turn, 0);
        let mut at = 0;
        while at + L::WIDTH <= words {
            let mut rows = [lanes.splat(0); GROUP];
            for (key, row) in rows.iter_mut().enumerate() {
                *row = lanes.load(&in_turn[key * words + at..]);
            }
            interleave_keys(lanes, rows, &mut to[at * GROUP..]);
            at += L::WIDTH;
        }
        for at in (at..words).step_by(GROUP) {
            let four = [0, 1, 2, 3].map(|key| Portable.load(&in_turn[key * words + at..]));
            for (n, words) in transpose_groups(Portable, four).into_iter().enumerate().take(words - at) {
                Portable.store(words, &mut to[(at + n) * GROUP..]);
            }
        }
    }
}

/// A vector of words of each of four keys, side by side.
#[inline(always)]
fn interleave_keys<L: Lanes>(lanes: L, rows: [L::Word; GROUP], to: &mut [u32]) {
    // Group x of vector n is word 4 x + n of the four keys.
    let by_word = transpose_groups(lanes, rows);
    for first in 0..GROUP / L::GROUPS {
        let mut in_order = by_word;
        in_order.rotate_left(first * L::GROUPS);
        let in_order = lanes.turn_groups(in_order);
        for x in 0..L::GROUPS {
            lanes.store(in_order[x], &mut to[(GROUP * x + first * L::GROUPS) * GROUP..]);
        }
    }
}

/// Words of the same feature of `N` neighbouring keys, to the end of a group.
#[inline(always)]
fn pack_values<L: Lanes, F: Zip<N>, const N: usize>(lanes: L, form: F, values: &[f32], to: &mut [u32], d: usize) {
    let live = values.len().div_ceil(GROUP * d) * GROUP / N;
    for (row, to) in to.chunks_exact_mut(d).enumerate().take(live) {
        let keys = group_of::<N>(values, row * N, d);
        let mut at = 0;
        at = some_values(lanes, form, keys, to, at);
        at = some_values(lanes.narrow(), form, keys, to, at);
        some_values(Portable, form, keys, to, at);
    }
}

/// As many whole vectors as fit from feature `at` on. Returns the first feature that is left.
#[inline(always)]
fn some_values<L: Lanes, F: Zip<N>, const N: usize>(
    lanes: L,
    form: F,
    keys: [&[f32]; N],
    to: &mut [u32],
    at: usize,
) -> usize {
    let mut at = at;
    while at + L::WIDTH <= to.len() {
        lanes.store(form.zip(lanes, keys, at), &mut to[at..]);
        at += L::WIDTH;
    }
    at
}

/// -128 times the sum of each of four keys, as i32.
#[inline(always)]
fn offsets_of<L: Lanes>(lanes: L, group: &[u32]) -> [u32; GROUP] {
    let mut offsets = [0_u32; GROUP];
    let vectors = group.chunks_exact(L::WIDTH);
    let mut sum = lanes.splat(0);
    let rest = vectors.remainder();
    for words in vectors {
        sum = lanes.dot_u8_i8(sum, lanes.splat(FOUR_TIMES_128), lanes.load(words));
    }
    let mut sums = [0; MAX_WIDTH];
    lanes.store(sum, &mut sums);
    for words in sums.chunks_exact(GROUP) {
        for (offset, word) in offsets.iter_mut().zip(words) {
            *offset = offset.wrapping_sub(*word);
        }
    }
    for words in rest.chunks_exact(GROUP) {
        let products = Portable.dot_u8_i8([0; GROUP], [FOUR_TIMES_128; GROUP], Portable.load(words));
        for (offset, product) in offsets.iter_mut().zip(products) {
            *offset = offset.wrapping_sub(product);
        }
    }
    offsets
}

/// Floats as their bits.
#[inline(always)]
pub(crate) fn words(floats: &[f32]) -> &[u32] {
    // SAFETY: the types have the same size and alignment, and every value of the one is a value of the other.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), floats.len()) }
}
