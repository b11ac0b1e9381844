//! The two products, and the innermost loops.

use super::{
    chunk::{Chunk, GROUPS_AT_ONCE},
    operand::Operand,
};
use crate::lanes::Lanes;

/// Products of the tile's queries with `B` groups of keys: `[a][b]`, words of four keys for each of the queries of
/// vector `a`.
///
/// `queries` is as [`Tile::load_queries`](super::Tile) leaves it; `keys` are the words of each group, four keys beside
/// each other.
#[inline(always)]
pub(super) fn multiply_keys<L: Lanes, O: Operand<L>, const A: usize, const B: usize>(
    lanes: L,
    queries: &[u32],
    words: usize,
    keys: &[u32],
    offsets: &[u32],
    groups: [u32; B],
) -> [[O::Sum; B]; A] {
    assert!(words * A / 4 * L::WIDTH <= queries.len(), "queries have been arranged");
    let mut sums = [[O::zero(lanes); B]; A];
    let mut first = [0; B];
    let last = groups.iter().fold(0, |last, &group| last.max(group)) as usize;
    assert!((last + 1) * words * 4 <= keys.len(), "operands hold every key of a block");
    for b in 0..B {
        let group = groups[b] as usize;
        first[b] = group * words * 4;
        let start = O::start(lanes, offsets, group);
        for a in 0..A {
            sums[a][b] = start;
        }
    }
    let vectors = words * A / 4;
    let mut t = 0;
    while t + 4 <= vectors {
        for t in t..t + 4 {
            multiply_vector::<L, O, A, B>(lanes, &mut sums, queries, t, keys, first);
        }
        t += 4;
    }
    while t < vectors {
        multiply_vector::<L, O, A, B>(lanes, &mut sums, queries, t, keys, first);
        t += 1;
    }
    sums
}

/// Adds the products of query vector `t` with keys whose groups start at `first`.
#[inline(always)]
fn multiply_vector<L: Lanes, O: Operand<L>, const A: usize, const B: usize>(
    lanes: L,
    sums: &mut [[O::Sum; B]; A],
    queries: &[u32],
    t: usize,
    keys: &[u32],
    first: [usize; B],
) {
    // SAFETY: the caller has compared the number of vectors with the length.
    let vector = lanes.load(unsafe { queries.get_unchecked(t * L::WIDTH..t * L::WIDTH + L::WIDTH) });
    let queries =
        [lanes.spread::<0>(vector), lanes.spread::<1>(vector), lanes.spread::<2>(vector), lanes.spread::<3>(vector)];
    for word in 0..4 / A {
        for b in 0..B {
            let at = first[b] + (t * (4 / A) + word) * 4;
            // SAFETY: t * (4 / A) + word < words, so all four are within what the caller has compared with the length.
            let key = lanes.load_group(unsafe { keys.get_unchecked(at..at + 4) });
            for a in 0..A {
                sums[a][b] = O::add_product(lanes, sums[a][b], queries[word * A + a], key);
            }
        }
    }
}

/// Sums over the chunk's keys of weight times value, for `C` groups of features from feature `at` on: `[a][c]`.
#[inline(always)]
pub(super) fn multiply_values<L: Lanes, O: Operand<L>, const A: usize, const C: usize>(
    lanes: L,
    chunk: &Chunk,
    weights: &[u32],
    values: &Values<'_>,
    at: usize,
) -> [[O::Sum; C]; A] {
    let mut sums = [[O::zero(lanes); C]; A];
    let groups = chunk.padded();
    // Indices, not iterators: an adapter that is not inlined leaves no sum in a register.
    let mut group = 0;
    while group < chunk.real().len() {
        let mut vectors = [lanes.splat(0); A];
        for a in 0..A {
            vectors[a] = lanes.load(&weights[(group / O::PER_WORD * A + a) * L::WIDTH..]);
        }
        let rows: [&[u32]; 4] = values.rows::<O, L>(&groups[group..group + O::PER_WORD], at, 4 * C);
        step::<L, O, A, C, 0>(lanes, &mut sums, &vectors, rows[0]);
        step::<L, O, A, C, 1>(lanes, &mut sums, &vectors, rows[1]);
        step::<L, O, A, C, 2>(lanes, &mut sums, &vectors, rows[2]);
        step::<L, O, A, C, 3>(lanes, &mut sums, &vectors, rows[3]);
        group += O::PER_WORD;
    }
    sums
}

/// One word of each query's weights with one row of values.
#[inline(always)]
fn step<L: Lanes, O: Operand<L>, const A: usize, const C: usize, const WORD: usize>(
    lanes: L,
    sums: &mut [[O::Sum; C]; A],
    weights: &[L::Word; A],
    values: &[u32],
) {
    let mut spread = [lanes.splat(0); A];
    for a in 0..A {
        spread[a] = lanes.spread::<WORD>(weights[a]);
    }
    for c in 0..C {
        let value = lanes.load_group(&values[4 * c..4 * c + 4]);
        for a in 0..A {
            sums[a][c] = O::add_product(lanes, sums[a][c], spread[a], value);
        }
    }
}

/// Values of one head in one precision: `[keys / n][head_dim]`, words of `n` keys each.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub words: &'a [u32],
    pub head_dim: usize,
    /// The group from which on `words` may end too early, and whole rows for it instead.
    pub last: (usize, &'a [u32]),
}

impl<'a> Values<'a> {
    /// `len` features from `at` on of the keys that the four words of a group's weights stand for.
    #[inline(always)]
    fn rows<O: Operand<L>, L: Lanes>(&self, groups: &[u32], at: usize, len: usize) -> [&'a [u32]; 4] {
        let (d, of_group) = (self.head_dim, 4 / O::PER_WORD);
        let mut rows = [&[][..]; 4];
        for n in 0..O::PER_WORD {
            let group = groups[n] as usize;
            let (words, first) = match !O::PADDED && group >= self.last.0 {
                true => (self.last.1, at),
                false => (self.words, group * of_group * d + at),
            };
            assert!(first + (of_group - 1) * d + len <= words.len(), "operands hold every key of a block");
            for row in 0..of_group {
                // SAFETY: no row ends after the last one, which has been compared with the length above.
                rows[n * of_group + row] = unsafe { words.get_unchecked(first + row * d..first + row * d + len) };
            }
        }
        rows
    }
}

const _: () = assert!(GROUPS_AT_ONCE == 4);
