use std::{array::from_fn, ops::Range};

use maskwright_blueprint::Precision;

use super::{
    HeadBlocks,
    operand::Tokens,
    products::{Matrix, Size, add_product},
};
use crate::vectorised::{exp_of_negative, mul_add, round, vectorised};

/// One head of one example: what went in, and the loss's gradient by what came out.
#[derive(Clone, Copy)]
pub(super) struct HeadInputs<'a> {
    pub blocks: &'a HeadBlocks,
    pub causal: bool,
    pub head_dim: usize,
    /// Only tokens that are no padding.
    pub q: Tokens<'a>,
    pub k: Tokens<'a>,
    pub v: Tokens<'a>,
    /// Of the first queries, where others are not read.
    pub gradient: Tokens<'a>,
}

/// Gradients by queries, keys and values, all zeros at first; tokens are `row` apart.
pub(super) struct HeadGradients<'a> {
    pub q: &'a mut [f32],
    pub k: &'a mut [f32],
    pub v: &'a mut [f32],
    pub row: usize,
}

/// Memory that one thread works in.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// For each of [`Precision::ALL`] that a head uses.
    rounded: [Rounded; 3],
    /// The queries of one block row, turned: `[head_dim][block]`, for each precision.
    turned_q: [Vec<f32>; 3],
    /// The same of the gradient.
    turned_gradient: Vec<f32>,
    /// Scores, then numerators, then weights: `[keys of the active blocks][block]`. A query is a column.
    scores: Vec<f32>,
    /// Gradients by weights, then by scores.
    slopes: Vec<f32>,
}

/// Operands as a precision rounds them, `[tokens][head_dim]`.
#[derive(Debug, Default)]
struct Rounded {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

/// The largest block, in tokens.
const LARGEST: usize = 32;

vectorised! {
    /// Adds one head's gradients; see [`add_gradients_of`].
    pub(super) fn add_gradients = add_gradients_of(head: &HeadInputs<'_>, to: &mut HeadGradients<'_>, room: &mut Room)
}

/// With numerators `e = exp(s - row maximum)`, rounded to `e'`, `Z` their rounded sum, and q', k', v' rounded as each block
/// says, the output is `o = sum e' v' / Z`. Straight through the rounding (arXiv 1308.3432), for the gradient `g` by `o`:
///
/// ```text
/// ds = e (v' g - o g) / Z      dq += ds k' / sqrt(head_dim)
/// dv += e' g / Z               dk += ds q' / sqrt(head_dim)
/// ```
#[inline(always)]
pub(super) fn add_gradients_of<const FLOATS: usize>(
    head: &HeadInputs<'_>,
    to: &mut HeadGradients<'_>,
    room: &mut Room,
) {
    for precision in Precision::ALL {
        if head.blocks.uses(precision) {
            let rounded = &mut room.rounded[precision.index()];
            round_tokens(precision, head.q, head.head_dim, &mut rounded.q);
            round_tokens(precision, head.k, head.head_dim, &mut rounded.k);
            round_tokens(precision, head.v, head.head_dim, &mut rounded.v);
        }
    }
    for row in 0..head.blocks.rows.len() {
        if row * head.blocks.size >= head.gradient.len {
            break;
        }
        add_gradients_of_row::<FLOATS>(head, row, to, room);
    }
}

#[inline(always)]
fn add_gradients_of_row<const FLOATS: usize>(
    head: &HeadInputs<'_>,
    row: usize,
    to: &mut HeadGradients<'_>,
    room: &mut Room,
) {
    let (d, size) = (head.head_dim, head.blocks.size);
    let first = row * size;
    let queries = size.min(head.gradient.len - first);
    let Room { rounded, turned_q, turned_gradient, scores, slopes } = room;
    let columns = &head.blocks.rows[row];
    // Keys of a block that are no padding.
    let live = |column: u32| size.min(head.k.len.saturating_sub(column as usize * size));
    turn(head.gradient, first, queries, d, size, turned_gradient);
    let mut blocks = 0;
    for (at, columns) in columns.iter().enumerate() {
        if columns.iter().any(|column| live(*column) > 0) {
            let q = Tokens { values: &rounded[at].q, first: 0, row: d, len: head.q.len };
            turn(q, first, queries, d, size, &mut turned_q[at]);
        }
        blocks += columns.len();
    }
    scores.clear();
    scores.resize(blocks * size * size, 0.0);
    slopes.clear();
    slopes.resize(blocks * size * size, 0.0);

    let mut keys = 0;
    let mut spans = [0..0, 0..0, 0..0];
    for (at, columns) in columns.iter().enumerate() {
        let start = keys;
        for &column in columns {
            let (first_key, live) = (column as usize * size, live(column));
            let product = Size { m: live, n: size, k: d };
            let k = Matrix { values: &rounded[at].k[first_key.min(head.k.len) * d..], rows: d, columns: 1 };
            let v = Matrix { values: &rounded[at].v[first_key.min(head.v.len) * d..], rows: d, columns: 1 };
            let here = keys * size..(keys + live) * size;
            add_product::<FLOATS>(product, k, &turned_q[at], size, &mut scores[here.clone()], size);
            add_product::<FLOATS>(product, v, turned_gradient, size, &mut slopes[here.clone()], size);
            if head.causal && column as usize == row {
                // Key j of the block is later than its queries before j.
                for (j, scores) in scores[here].chunks_exact_mut(size).enumerate() {
                    scores[..j].fill(f32::MIN);
                }
            }
            keys += live;
        }
        spans[at] = start..keys;
    }
    if keys == 0 {
        return; // the output is zero, whatever went in
    }

    let scale = (d as f32).sqrt().recip();
    for at in (0..size).step_by(16) {
        let (scores, slopes) = (&mut scores[at..keys * size], &mut slopes[at..keys * size]);
        match size {
            8 => differentiate::<FLOATS, 8>(scores, slopes, size, &spans, scale),
            _ => differentiate::<FLOATS, 16>(scores, slopes, size, &spans, scale),
        }
    }

    let mut keys = 0;
    for (at, columns) in columns.iter().enumerate() {
        for &column in columns {
            let (first_key, live) = (column as usize * size, live(column));
            if live == 0 {
                continue;
            }
            let here = keys * size..(keys + live) * size;
            let (weights, slopes) = (&scores[here.clone()], &slopes[here]);
            let of_keys = Size { m: live, n: d, k: queries };
            let rows = |values| Matrix { values, rows: size, columns: 1 };
            let gradient = &head.gradient.values[head.gradient.first + first * head.gradient.row..];
            let (q, k) = (&rounded[at].q[first * d..], &rounded[at].k[first_key * d..]);
            let (of_q, of_k, of_v) = (&mut to.q[first * to.row..], first_key * to.row, first_key * to.row);
            add_product::<FLOATS>(of_keys, rows(weights), gradient, head.gradient.row, &mut to.v[of_v..], to.row);
            add_product::<FLOATS>(of_keys, rows(slopes), q, d, &mut to.k[of_k..], to.row);
            let turned = Matrix { values: slopes, rows: 1, columns: size };
            add_product::<FLOATS>(Size { m: queries, n: d, k: live }, turned, k, d, of_q, to.row);
            keys += live;
        }
    }
}

/// Turns scores into weights `e' / Z`, and gradients by weights into gradients by scores, times `scale`, for `N` queries
/// whose keys are `row` apart. A query is a column, so that nothing is added up across a register.
#[inline(always)]
fn differentiate<const FLOATS: usize, const N: usize>(
    scores: &mut [f32],
    slopes: &mut [f32],
    row: usize,
    spans: &[Range<usize>; 3],
    scale: f32,
) {
    let largest = largest_scores::<N>(scores, row);
    for scores in scores.chunks_mut(row) {
        let scores = first_mut::<N>(scores);
        *scores = from_fn(|n| exp_of_negative::<FLOATS>((scores[n] - largest[n]) * scale));
    }
    // The last key's row ends with the last of these queries.
    let part = |keys: &Range<usize>, len: usize| (keys.start * row).min(len)..(keys.end * row).min(len);
    let (mut sum, mut mean) = ([0.0; N], [0.0; N]);
    for (precision, keys) in Precision::ALL.into_iter().zip(spans) {
        let part = part(keys, scores.len());
        add_numerators::<N>(&scores[part.clone()], row, precision, &mut sum);
        add_products::<FLOATS, N>(&scores[part.clone()], &slopes[part], row, precision, &mut mean);
    }
    let inverse: [f32; N] = from_fn(|n| if sum[n] > 0.0 { 1.0 / sum[n] } else { 0.0 });
    let mean: [f32; N] = from_fn(|n| mean[n] * inverse[n]);
    for (precision, keys) in Precision::ALL.into_iter().zip(spans) {
        let part = part(keys, scores.len());
        let rows = scores[part.clone()].chunks_mut(row).zip(slopes[part].chunks_mut(row));
        for (scores, slopes) in rows {
            let (scores, slopes) = (first_mut::<N>(scores), first_mut::<N>(slopes));
            for n in 0..N {
                slopes[n] = scores[n] * (slopes[n] - mean[n]) * inverse[n] * scale;
                scores[n] = round_numerator(precision, scores[n]) * inverse[n];
            }
        }
    }
}

// Each of these loops is so small that the compiler keeps its sums in registers; together, it keeps them in memory.

#[inline(always)]
fn largest_scores<const N: usize>(scores: &[f32], row: usize) -> [f32; N] {
    let mut largest = [f32::MIN; N];
    for scores in scores.chunks(row) {
        for (largest, score) in largest.iter_mut().zip(first::<N>(scores)) {
            *largest = if *score > *largest { *score } else { *largest };
        }
    }
    largest
}

#[inline(always)]
fn add_numerators<const N: usize>(e: &[f32], row: usize, precision: Precision, to: &mut [f32; N]) {
    let mut sums = *to;
    for e in e.chunks(row) {
        for (sum, e) in sums.iter_mut().zip(first::<N>(e)) {
            *sum += round_numerator(precision, *e);
        }
    }
    *to = sums;
}

#[inline(always)]
fn add_products<const FLOATS: usize, const N: usize>(
    e: &[f32],
    slopes: &[f32],
    row: usize,
    precision: Precision,
    to: &mut [f32; N],
) {
    let mut sums = *to;
    for (e, slopes) in e.chunks(row).zip(slopes.chunks(row)) {
        for ((sum, e), slope) in sums.iter_mut().zip(first::<N>(e)).zip(first::<N>(slopes)) {
            *sum = mul_add::<FLOATS>(round_numerator(precision, *e), *slope, *sum);
        }
    }
    *to = sums;
}

/// The first numbers of a row that has as many.
#[inline(always)]
fn first<const N: usize>(row: &[f32]) -> &[f32; N] {
    row.first_chunk().expect("a row of queries is at least as wide")
}

#[inline(always)]
fn first_mut<const N: usize>(row: &mut [f32]) -> &mut [f32; N] {
    row.first_chunk_mut().expect("a row of queries is at least as wide")
}

/// As the product with the values reads it.
#[inline(always)]
fn round_numerator(precision: Precision, e: f32) -> f32 {
    match precision {
        Precision::Int8 => round(e * 255.0) * (1.0 / 255.0),
        Precision::Half => round_to_bf16(e),
        Precision::Single => e,
    }
}

/// All tokens as a precision rounds them; 8 bit has one scale for all of them.
#[inline(always)]
fn round_tokens(precision: Precision, tokens: Tokens<'_>, d: usize, to: &mut Vec<f32>) {
    let largest = match precision {
        Precision::Int8 => tokens.largest(d),
        Precision::Half | Precision::Single => 0.0,
    };
    // NaN stays NaN.
    let step = if largest < 127.0 * f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { largest / 127.0 };
    to.resize(tokens.len * d, 0.0);
    for (at, to) in to.chunks_exact_mut(d).enumerate() {
        let token = tokens.token(at, d);
        match precision {
            Precision::Int8 => to.iter_mut().zip(token).for_each(|(to, x)| *to = round(x / step) * step),
            Precision::Half => to.iter_mut().zip(token).for_each(|(to, x)| *to = round_to_bf16(*x)),
            Precision::Single => to.copy_from_slice(token),
        }
    }
}

/// To nearest, ties to even.
#[inline(always)]
fn round_to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// `count` tokens from `first` on as columns: `[head_dim][block]`, zeros where there are fewer than a block.
#[inline(always)]
fn turn(tokens: Tokens<'_>, first: usize, count: usize, d: usize, size: usize, to: &mut Vec<f32>) {
    to.clear();
    to.resize(d * size, 0.0);
    let mut sources = [&[][..]; LARGEST];
    for (at, source) in sources[..count].iter_mut().enumerate() {
        *source = &tokens.token(first + at, d)[..d];
    }
    for (feature, to) in to.chunks_exact_mut(size).enumerate() {
        for (to, source) in to.iter_mut().zip(&sources[..count]) {
            *to = source[feature];
        }
    }
}
