//! The first product: queries with keys.

use std::marker::PhantomData;

use super::{Chunk, GROUP, Line, MAX_QUERIES, Operand, Operands, Tile, splat};
use crate::lanes::{Lanes, MAX_WIDTH, OnLanes, transpose_groups};

/// Keys of one head in one precision, `[keys / span][words][span]`.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub packed: &'a [u32],
    /// What each key's product starts from, where that is not zero.
    pub offsets: &'a [u32],
    /// Words of one key.
    pub words: usize,
    /// Keys side by side: those of a vector, or of a block where that has fewer.
    pub span: usize,
}

/// What the scores of a chunk have been.
pub(super) struct Seen {
    /// Of each query, lane by lane.
    largest: Vectors,
    /// Of all queries, lane by lane, where products are floats: NaN if one of them is.
    total: Vector,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Vector([u32; MAX_WIDTH]);

/// A vector for each query of a tile.
struct Vectors([Vector; MAX_QUERIES]);

impl Seen {
    #[inline(always)]
    pub(super) fn nothing() -> Self {
        let least = Vector([f32::MIN.to_bits(); MAX_WIDTH]);
        Self { largest: Vectors([least; MAX_QUERIES]), total: Vector([0; MAX_WIDTH]) }
    }

    #[inline(always)]
    fn add<L: Lanes, const C: usize>(&mut self, lanes: L, query: usize, scores: [L::Float; C]) {
        let largest = &mut self.largest.0[query % MAX_QUERIES].0;
        let mut max = lanes.floats(lanes.load(largest));
        for c in 0..C {
            max = lanes.max(scores[c], max);
        }
        lanes.store(lanes.bits(max), largest);
    }

    /// The largest of each query.
    #[inline(always)]
    pub(super) fn max<L: Lanes>(&self, lanes: L) -> L::Float {
        let mut quads = [lanes.splat(0); 4];
        for quad in 0..L::GROUPS {
            let mut vectors = [lanes.splat(0); 4];
            for n in 0..4 {
                vectors[n] = lanes.load(&self.largest.0[4 * quad + n].0);
            }
            let [a, b, c, d] = transpose_groups(lanes, vectors);
            let (ab, cd) = (lanes.max(lanes.floats(a), lanes.floats(b)), lanes.max(lanes.floats(c), lanes.floats(d)));
            quads[quad] = lanes.bits(lanes.max(ab, cd));
        }
        let turned = lanes.turn_groups(quads);
        let mut max = lanes.floats(turned[0]);
        for group in 1..L::GROUPS {
            max = lanes.max(lanes.floats(turned[group]), max);
        }
        max
    }

    /// Whether a product of floats was NaN, or may have been.
    #[inline(always)]
    pub(super) fn any_nan<L: Lanes>(&self) -> bool {
        self.total.0[..L::WIDTH].iter().any(|&bits| f32::from_bits(bits).is_nan())
    }
}

/// Products of all queries of a tile, `R` at a time, with `C` vectors of keys of a chunk from vector `at` on. Queries are
/// repeated in every lane by the load itself, so nothing but `R + C` loads and `R x C` multiply-adds is left.
pub(super) struct Score<'a, 'b, O, const R: usize, const C: usize> {
    tile: &'a mut Tile<'b>,
    chunk: &'a Chunk,
    at: usize,
    operands: &'a Operands<'a>,
    /// Of the chunk, `[vectors][queries]`.
    scores: &'a mut [u32],
    seen: &'a mut Seen,
    operand: PhantomData<O>,
}

impl<'a, 'b, O: Operand, const R: usize, const C: usize> Score<'a, 'b, O, R, C> {
    #[inline(always)]
    pub(super) fn new(
        tile: &'a mut Tile<'b>,
        chunk: &'a Chunk,
        at: usize,
        operands: &'a Operands<'a>,
        scores: &'a mut [u32],
        seen: &'a mut Seen,
    ) -> Self {
        Self { tile, chunk, at, operands, scores, seen, operand: PhantomData }
    }
}

impl<O: Operand, const R: usize, const C: usize> OnLanes for Score<'_, '_, O, R, C> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        let Self { tile, chunk, at, operands, scores, seen, .. } = self;
        let Keys { packed, offsets, words, span } = operands.keys;
        let of_vector = L::WIDTH * L::WIDTH;
        let scores = &mut scores[at * of_vector..][..C * of_vector];
        let (mut first_words, mut start) = ([[0; 2]; C], [O::zero(lanes); C]);
        let mut whole = true;
        for c in 0..C {
            let keys = chunk.keys::<L>(at + c, span);
            first_words[c] = keys.map(|key| key * words);
            assert!(first_words[c][0].max(first_words[c][1]) + words * span <= packed.len(), "keys are packed");
            start[c] = O::start(lanes, offsets, keys, span);
            whole &= chunk.real_of::<L>(at + c) == L::GROUPS && tile.visible_to_all(chunk.groups_of::<L>(at + c));
        }
        let mut positions = [splat(lanes, 0.0); C];
        if !whole {
            for c in 0..C {
                positions[c] = tile.positions::<L>(lanes, chunk, at + c);
            }
        }
        let mut total = lanes.floats(lanes.load(&seen.total.0));
        let mut first = 0;
        while first < tile.queries.len() {
            let mut queries = [&[][..]; R];
            for r in 0..R {
                queries[r] = tile.query(operands, first + r);
            }
            let ahead = if O::FETCHES_AHEAD { tile.ahead(words) } else { &[] };
            let sums = multiply::<L, O, R, C>(lanes, queries, packed, [words, span], first_words, start, ahead);
            assert!(first + R <= L::WIDTH, "a tile has no more queries than a vector has lanes");
            for r in 0..R {
                let mut of_query = [splat(lanes, 0.0); C];
                for c in 0..C {
                    of_query[c] = O::float(lanes, sums[r][c]);
                }
                if O::FLOATS {
                    let mut sum = of_query[0];
                    for c in 1..C {
                        sum = lanes.add(sum, of_query[c]);
                    }
                    total = lanes.add(total, sum);
                }
                if !whole {
                    tile.hide(lanes, first + r, &positions, &mut of_query);
                }
                for c in 0..C {
                    // SAFETY: within the vectors of the last of `C`, as has been asserted.
                    let scores = unsafe {
                        let to = c * of_vector + (first + r) * L::WIDTH;
                        scores.get_unchecked_mut(to..to + L::WIDTH)
                    };
                    lanes.store(lanes.bits(of_query[c]), scores);
                }
                seen.add(lanes, first + r, of_query);
            }
            first += R;
        }
        lanes.store(lanes.bits(total), &mut seen.total.0);
    }
}

impl<'a> Tile<'a> {
    /// The words of query `at` of the tile; of the last one where there are fewer, whose results then go nowhere.
    #[inline(always)]
    fn query<'b>(&self, operands: &Operands<'b>, at: usize) -> &'b [u32] {
        let query = (self.queries.start + at).min(self.queries.end - 1);
        &operands.queries[query * operands.keys.words..][..operands.keys.words]
    }

    /// The next of the lines that are to be asked for, as many as `count` of them.
    #[inline(always)]
    fn ahead(&mut self, count: usize) -> &'a [Line] {
        let Some(lines) = self.ahead.iter_mut().find(|lines| !lines.is_empty()) else { return &[] };
        let (now, later) = lines.split_at(count.min(lines.len()));
        *lines = later;
        now
    }

    /// Whether all keys of `groups` are live, and not later than any of the tile's queries under a causal mask.
    #[inline(always)]
    fn visible_to_all(&self, groups: &[u32]) -> bool {
        let past = if self.job.causal { self.queries.start + 1 } else { usize::MAX };
        let last = groups.iter().fold(0, |last, &group| last.max(group));
        (last as usize + 1) * GROUP <= past.min(self.job.live_keys)
    }

    /// Where each key of vector `at` stands in the sequence; infinitely far away where it does not exist, because it only
    /// fills up the vector or is not live.
    #[inline(always)]
    fn positions<L: Lanes>(&self, lanes: L, chunk: &Chunk, at: usize) -> L::Float {
        let (groups, real) = (chunk.groups_of::<L>(at), chunk.real_of::<L>(at));
        let mut positions = [f32::INFINITY.to_bits(); MAX_WIDTH];
        for (positions, &group) in positions.chunks_exact_mut(GROUP).zip(groups).take(real) {
            let keys = group as usize * GROUP..self.job.live_keys;
            for (position, key) in positions.iter_mut().zip(keys) {
                *position = (key as f32).to_bits();
            }
        }
        lanes.floats(lanes.load(&positions))
    }

    /// Minus infinity for scores of keys that do not exist, and of those later than a causal query. What is not a number
    /// becomes infinite where it stays: then the maximum still tells.
    #[inline(always)]
    fn hide<L: Lanes, const C: usize>(
        &self,
        lanes: L,
        query: usize,
        positions: &[L::Float; C],
        scores: &mut [L::Float; C],
    ) {
        // Exact below 2^23 tokens; a causal mask of more has 10^10 blocks.
        let past = if self.job.causal { (self.queries.start + query) as f32 + 0.5 } else { f32::MAX };
        for c in 0..C {
            let room = lanes.sub(splat(lanes, past), positions[c]);
            scores[c] = lanes.min(scores[c], lanes.mul(room, splat(lanes, f32::INFINITY)));
        }
    }
}

/// Products of `R` queries, the words of each in turn, with `C` vectors of `span` keys, or of two halves, from `first` in
/// `packed` on: `[query][vector]`. Asks for a line of `ahead` with each word.
#[inline(always)]
fn multiply<L: Lanes, O: Operand, const R: usize, const C: usize>(
    lanes: L,
    queries: [&[u32]; R],
    packed: &[u32],
    [words, span]: [usize; 2],
    first: [[usize; 2]; C],
    start: [O::Sum<L>; C],
    ahead: &[Line],
) -> [[O::Sum<L>; C]; R] {
    let mut sums = [start; R];
    for r in 0..R {
        assert!(words <= queries[r].len(), "queries have all their words");
    }
    if span == L::WIDTH {
        for t in 0..words {
            let mut vector = [lanes.splat(0); C];
            for c in 0..C {
                let at = first[c][0] + t * L::WIDTH;
                // SAFETY: t < words, and the caller has compared the end of all words with the length.
                vector[c] = lanes.load(unsafe { packed.get_unchecked(at..at + L::WIDTH) });
            }
            if let Some(line) = ahead.get(t) {
                lanes.prefetch_for_later(line);
            }
            multiply_word::<L, O, R, C>(lanes, &mut sums, &queries, t, vector);
        }
    } else {
        for t in 0..words {
            let mut vector = [lanes.splat(0); C];
            for c in 0..C {
                let [low, high] = first[c].map(|first| first + t * (L::WIDTH / 2));
                // SAFETY: as above, for half as many keys.
                let low = unsafe { packed.get_unchecked(low..low + L::WIDTH / 2) };
                let high = unsafe { packed.get_unchecked(high..high + L::WIDTH / 2) };
                vector[c] = lanes.load_halves(low, high);
            }
            if let Some(line) = ahead.get(t) {
                lanes.prefetch_for_later(line);
            }
            multiply_word::<L, O, R, C>(lanes, &mut sums, &queries, t, vector);
        }
    }
    sums
}

/// Adds the products of word `t` of each query.
#[inline(always)]
fn multiply_word<L: Lanes, O: Operand, const R: usize, const C: usize>(
    lanes: L,
    sums: &mut [[O::Sum<L>; C]; R],
    queries: &[&[u32]; R],
    t: usize,
    keys: [L::Word; C],
) {
    for r in 0..R {
        // SAFETY: the caller has compared the number of words with the length.
        let query = lanes.splat(unsafe { *queries[r].get_unchecked(t) });
        for c in 0..C {
            sums[r][c] = O::add_product(lanes, sums[r][c], query, keys[c]);
        }
    }
}
