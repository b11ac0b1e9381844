//! The first product: queries with keys.

use std::{marker::PhantomData, ops::Range};

use super::{GROUP, LINE, MAX_QUERIES, Operand, Operands, Run, Tile, in_three, splat};
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

/// What products become.
pub(super) trait Outcome<O: Operand>: Sized {
    /// Whether queries that are multiplied at once are written together, so that a query is none of two such groups.
    const TOGETHER: bool;
    /// Whether lines of the next head are looked through meanwhile; a line is a vector then.
    const LOOKS: bool = false;

    /// Writes those of `R` queries, from `first` on, and puts down what they have been, unless some are to be hidden.
    ///
    /// # Safety
    /// As for [`Products::of`].
    unsafe fn write<L: Lanes, const R: usize, const C: usize>(
        lanes: L,
        sums: [[O::Sum<L>; C]; R],
        first: usize,
        products: &mut Products<'_, L, O, C>,
    );

    /// Hides some of what has been written, and puts down what the others have been.
    fn hide<L: Lanes, const C: usize>(lanes: L, hide: Hide<'_, '_, O, Self, C>);
}

/// Scores in units of `score_scale`, as floats.
pub(super) struct Floats;

impl<O: Operand> Outcome<O> for Floats {
    const TOGETHER: bool = false;

    #[inline(always)]
    unsafe fn write<L: Lanes, const R: usize, const C: usize>(
        lanes: L,
        sums: [[O::Sum<L>; C]; R],
        first: usize,
        products: &mut Products<'_, L, O, C>,
    ) {
        for r in 0..R {
            let mut floats = [splat(lanes, 0.0); C];
            for c in 0..C {
                floats[c] = O::float(lanes, sums[r][c]);
                if O::HIDES_NAN {
                    products.total = lanes.add(products.total, floats[c]);
                }
                // SAFETY: the caller's promise.
                let to = unsafe { products.at(c, first + r) };
                lanes.store(lanes.bits(floats[c]), to);
            }
            if products.whole {
                products.seen.add(lanes, first + r, floats, products.first);
            }
        }
    }

    /// Minus infinity for what is hidden. What is not a number becomes infinite where it stays: then the maximum still tells.
    #[inline(always)]
    fn hide<L: Lanes, const C: usize>(lanes: L, hide: Hide<'_, '_, O, Self, C>) {
        let (hides, positions) = (hide.hides::<L>(), hide.positions(lanes));
        let Hide { tile, scores, seen, fresh, .. } = hide;
        for query in 0..tile.queries.len() {
            let mut shown = [splat(lanes, 0.0); C];
            for c in 0..C {
                let scores = &mut scores[c * L::OF_VECTOR + query * L::WIDTH..][..L::WIDTH];
                shown[c] = lanes.floats(lanes.load(scores));
                if hides[c] {
                    shown[c] = lanes.min(shown[c], tile.limit(lanes, query, positions[c]));
                    lanes.store(lanes.bits(shown[c]), scores);
                }
            }
            seen.add(lanes, query, shown, fresh);
        }
    }
}

/// The most queries that are multiplied at once.
const AT_ONCE: usize = 8;

/// What scores have been.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Of each query, lane by lane, the largest one, or of pairs of two queries in the place of the first; or, once they are weights, the sum of those, as
    /// [`Operand::add_weights`] has it.
    of_queries: Vectors,
    /// Of all queries, lane by lane, where weights would hide it: NaN if one of them is.
    total: Vector,
    /// Whether there have been none.
    pub fresh: bool,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Vector([u32; MAX_WIDTH]);

/// A vector for each query of a tile.
#[derive(Debug)]
struct Vectors([Vector; MAX_QUERIES]);

impl Seen {
    pub(crate) const fn new() -> Self {
        Self { of_queries: Vectors([Vector([0; MAX_WIDTH]); MAX_QUERIES]), total: Vector([0; MAX_WIDTH]), fresh: true }
    }

    /// Before the largest of a chunk's scores of so many `queries`; those beyond are taken for ones that are not there: zero is no large score, if
    /// another one does not stand for them.
    #[inline(always)]
    pub(super) fn restart(&mut self, queries: usize) {
        self.fresh = true;
        self.total = Vector([0; MAX_WIDTH]);
        self.of_queries.0[queries..].fill(Vector([0; MAX_WIDTH]));
    }

    /// Adds a query's scores, the `first` ones or more.
    #[inline(always)]
    fn add<L: Lanes, const C: usize>(&mut self, lanes: L, query: usize, scores: [L::Float; C], first: bool) {
        let largest = self.of_query(query);
        let mut max = if first { splat(lanes, f32::MIN) } else { lanes.floats(lanes.load(largest)) };
        for c in 0..C {
            max = lanes.max(scores[c], max);
        }
        lanes.store(lanes.bits(max), largest);
    }

    #[inline(always)]
    pub(super) fn of_query(&mut self, query: usize) -> &mut [u32; MAX_WIDTH] {
        &mut self.of_queries.0[query % MAX_QUERIES].0
    }

    #[inline(always)]
    pub(super) fn words_of(&self, query: usize) -> &[u32; MAX_WIDTH] {
        &self.of_queries.0[query % MAX_QUERIES].0
    }

    /// The largest of each query.
    #[inline(always)]
    pub(super) fn max<L: Lanes>(&self, lanes: L) -> L::Float {
        let mut quads = [lanes.splat(0); 4];
        for quad in 0..L::GROUPS {
            let mut vectors = [lanes.splat(0); 4];
            for n in 0..4 {
                vectors[n] = lanes.load(&self.of_queries.0[4 * quad + n].0);
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

    /// The same as a power of two, for scores times `scale`.
    #[inline(always)]
    pub(super) fn max_in_real_units<L: Lanes>(&self, lanes: L, scale: f32) -> L::Float {
        lanes.max(lanes.mul(self.max(lanes), splat(lanes, scale)), splat(lanes, f32::MIN))
    }

    /// Whether a product was NaN, or may have been.
    #[inline(always)]
    pub(super) fn any_nan<L: Lanes>(&self, lanes: L) -> bool {
        !lanes.all_within(lanes.floats(lanes.load(&self.total.0)), f32::INFINITY)
    }
}

/// Products of all queries of a tile, `R` at a time (or as [`in_three`] says), with vectors of keys of a run, `C` at a time, each of two halves if
/// `HALVES`, and what becomes of them. Queries are repeated in every lane by the load itself, so nothing but `R + C` loads and `R x C`
/// multiply-adds is left.
pub(super) struct Score<'a, 'b, O, B, const R: usize, const C: usize, const HALVES: bool> {
    tile: &'a mut Tile<'b>,
    run: &'a Run,
    /// As many as a multiple of `C`.
    vectors: Range<usize>,
    operands: &'a Operands<'a>,
    /// Of the run, `[vectors][queries]`.
    scores: &'a mut [u32],
    seen: &'a mut Seen,
    outcome: PhantomData<(O, B)>,
}

impl<'a, 'b, O: Operand, B: Outcome<O>, const R: usize, const C: usize, const HALVES: bool>
    Score<'a, 'b, O, B, R, C, HALVES>
{
    #[inline(always)]
    pub(super) fn new(
        tile: &'a mut Tile<'b>,
        run: &'a Run,
        vectors: Range<usize>,
        operands: &'a Operands<'a>,
        scores: &'a mut [u32],
        seen: &'a mut Seen,
    ) -> Self {
        Self { tile, run, vectors, operands, scores, seen, outcome: PhantomData }
    }
}

impl<O: Operand, B: Outcome<O>, const R: usize, const C: usize, const HALVES: bool> OnLanes
    for Score<'_, '_, O, B, R, C, HALVES>
{
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        let Self { tile, run, vectors, operands, scores, seen, .. } = self;
        let Keys { packed, offsets, words, span } = operands.keys;
        let queries = &operands.queries[tile.queries.start * words..tile.queries.end * words];
        let count = tile.queries.len();
        assert!(0 < count && count.max(R) <= L::WIDTH, "a tile has no more queries than a vector has lanes");
        assert!(!B::TOGETHER || count.next_multiple_of(R) <= L::WIDTH, "no query is computed twice");
        assert!(HALVES == (span < L::WIDTH), "vectors have halves where a block has fewer keys");
        assert!(!B::LOOKS || L::WIDTH == LINE, "a line is a vector");
        let of_queries = words_of_queries(count, words);
        let loops = if in_three::<L, O, R, C>(count) { 3 } else { count.div_ceil(R) };
        let mut total = lanes.floats(lanes.load(&seen.total.0));
        let mut first = std::mem::replace(&mut seen.fresh, false);
        for at in vectors.step_by(C) {
            let scores = &mut scores[at * L::OF_VECTOR..][..C * L::OF_VECTOR];
            let (mut of_keys, mut start, mut end) = ([[0; 2]; C], [O::zero(lanes); C], 0);
            for c in 0..C {
                let keys = run.keys::<L>(at + c);
                of_keys[c] = keys.map(|key| key * words);
                start[c] = O::start(lanes, offsets, keys, span);
                // Of whole vectors the first is read, of halves both.
                end = end.max(keys[0] + span).max(keys[1] + L::WIDTH / 2);
            }
            assert!(0 < words && end * words <= packed.len(), "keys are packed");
            let whole = tile.all_visible(run.end_of::<L>(at + C));
            let (mut asked, step) = match tile.ask(loops * words) {
                Some(lines) => (lines, words * LINE),
                // What has to be read soon, anyway, where nothing is left to be asked for.
                None => (packed[of_keys[0][0]..].as_ptr(), 0),
            };
            let of_next = if B::LOOKS { tile.ahead.look(tile.looked, loops * words) } else { None };
            let look = match of_next {
                Some((tensor, lines)) => {
                    Look { lines: lines.as_flattened(), step: LINE, largest: lanes.load(&tile.looked.bits[tensor]) }
                }
                // Something that is near, of which nothing is kept.
                None => Look { lines: &[0; LINE], step: 0, largest: lanes.splat(0) },
            };
            let mut products = Products::<L, O, C> {
                look,
                queries,
                of_queries,
                packed,
                of_keys,
                words,
                start,
                scores,
                seen,
                scale: splat(lanes, operands.score_scale),
                shift: lanes.splat(operands.pairs.map_or(0, |pairs| pairs.shift)),
                whole,
                first,
                total,
            };
            // SAFETY: `queries` has the words of `count` of them; that all words of the keys are packed has been asserted.
            unsafe {
                if in_three::<L, O, R, C>(count) {
                    let (second, third) = (asked.wrapping_add(step), asked.wrapping_add(2 * step));
                    products.of::<B, 6, HALVES>(lanes, 0, asked);
                    if B::TOGETHER && O::PER_WORD > 1 {
                        products.of::<B, 6, HALVES>(lanes, 6, second);
                        products.of::<B, 4, HALVES>(lanes, 12, third);
                    } else {
                        products.of::<B, 5, HALVES>(lanes, 6, second);
                        products.of::<B, 5, HALVES>(lanes, 11, third);
                    }
                } else {
                    let last = if B::TOGETHER { (count - 1) / R * R } else { count.saturating_sub(R) };
                    let mut first = 0;
                    loop {
                        if B::TOGETHER && count - first < R {
                            products.of_queries = words_of_queries(count - first, words);
                        }
                        products.of::<B, R, HALVES>(lanes, first, asked);
                        if first == last {
                            break;
                        }
                        asked = asked.wrapping_add(step);
                        // The last ones overlap with those before where there is no whole number of times `R`, if they are not written together.
                        first = last.min(first + R);
                    }
                }
            }
            total = products.total;
            if let Some((tensor, _)) = of_next {
                lanes.store(products.look.largest, &mut tile.looked.bits[tensor]);
            }
            if !whole {
                let (fresh, outcome) = (first, PhantomData);
                lanes.run(Hide::<O, B, C> { tile, run, at, operands, scores, seen, fresh, outcome });
            }
            first = false;
        }
        if O::HIDES_NAN {
            lanes.store(lanes.bits(total), &mut seen.total.0);
        }
    }
}

/// Lines of the next head that are looked through for their largest number.
#[derive(Clone, Copy)]
struct Look<'a, L: Lanes> {
    lines: &'a [u32],
    /// Numbers from one to the next.
    step: usize,
    /// [`Lanes::larger_bits`]
    largest: L::Word,
}

/// All queries of a tile and `C` vectors of keys, and what becomes of their products.
pub(super) struct Products<'a, L: Lanes, O: Operand, const C: usize> {
    look: Look<'a, L>,
    /// `[queries][words]`
    queries: &'a [u32],
    /// Where the words of queries that are multiplied at once begin, from the first of them on.
    of_queries: [usize; AT_ONCE],
    packed: &'a [u32],
    /// Where those of keys begin in `packed`.
    of_keys: [[usize; 2]; C],
    words: usize,
    start: [O::Sum<L>; C],
    pub scale: L::Float,
    pub shift: L::Word,
    /// `[C][queries]`
    scores: &'a mut [u32],
    pub seen: &'a mut Seen,
    /// Whether none of them is to be hidden.
    pub whole: bool,
    /// Whether no others have been seen.
    pub first: bool,
    total: L::Float,
}

/// Where the words of each of `count` queries begin. Where those are fewer than are multiplied at once, the last one stands for
/// others, whose results go nowhere. Beyond those, scores stay what an earlier tile has left there.
#[inline(always)]
fn words_of_queries(count: usize, words: usize) -> [usize; AT_ONCE] {
    let mut first = [0; AT_ONCE];
    for r in 0..AT_ONCE {
        first[r] = r.min(count - 1) * words;
    }
    first
}

impl<'a, L: Lanes, O: Operand, const C: usize> Products<'a, L, O, C> {
    /// That have been multiplied elsewhere, and are only to be [written](Outcome::write).
    #[inline(always)]
    pub(super) fn known(
        lanes: L,
        operands: &Operands<'_>,
        scores: &'a mut [u32],
        seen: &'a mut Seen,
        [whole, first]: [bool; 2],
    ) -> Self {
        Self {
            look: Look { lines: &[], step: 0, largest: lanes.splat(0) },
            queries: &[],
            of_queries: [0; AT_ONCE],
            packed: &[],
            of_keys: [[0; 2]; C],
            words: 0,
            start: [O::zero(lanes); C],
            scale: splat(lanes, operands.score_scale),
            shift: lanes.splat(operands.pairs.map_or(0, |pairs| pairs.shift)),
            scores,
            whole,
            first,
            total: lanes.floats(lanes.load(&seen.total.0)),
            seen,
        }
    }

    /// Puts down what [`Seen`] has to know of all of them.
    #[inline(always)]
    pub(super) fn put_down(&mut self, lanes: L) {
        if O::HIDES_NAN {
            lanes.store(lanes.bits(self.total), &mut self.seen.total.0);
        }
    }

    /// Those of `R` queries from `first` on.
    ///
    /// # Safety
    /// There are `words`, above zero, from each of `of_queries` on in those of query `first` and the following, and for each key
    /// of a vector, or of its halves, from `of_keys` on in `packed`. `scores` are those of `C` vectors of keys, and `first + R`
    /// queries are no more than a vector has lanes. In `look` there are lines for all that is still to be multiplied.
    #[inline(always)]
    unsafe fn of<B: Outcome<O>, const R: usize, const HALVES: bool>(
        &mut self,
        lanes: L,
        first: usize,
        asked: *const u32,
    ) {
        // Halves need so many registers for where they begin that for queries there is one, if it is known how far those are apart.
        let known = HALVES && self.queries.len() >= AT_ONCE * self.words;
        // SAFETY: the caller's promise.
        unsafe {
            let sums = match self.words {
                64 if known => self.multiply::<B, R, HALVES>(lanes, first, words_of_queries(AT_ONCE, 64), 64, asked),
                16 if known => self.multiply::<B, R, HALVES>(lanes, first, words_of_queries(AT_ONCE, 16), 16, asked),
                words => self.multiply::<B, R, HALVES>(lanes, first, self.of_queries, words, asked),
            };
            B::write(lanes, sums, first, self);
        }
    }

    /// Where what becomes of products of a query, or of as many as share a vector, with vector `c` of keys is written.
    ///
    /// # Safety
    /// There are `C` vectors of keys, and `query` is less than a vector has lanes.
    #[inline(always)]
    pub(super) unsafe fn at(&mut self, c: usize, query: usize) -> &mut [u32] {
        let to = c * L::OF_VECTOR + query * L::WIDTH;
        // SAFETY: a vector of keys has a vector of scores of each of as many queries as a vector has lanes, and the caller's promise.
        unsafe { self.scores.get_unchecked_mut(to..to + L::WIDTH) }
    }

    /// [`Operand::keep`] of vector `c` of keys.
    ///
    /// # Safety
    /// As for [`at`](Self::at).
    #[inline(always)]
    pub(super) unsafe fn keep(&mut self, lanes: L, weights: L::Word, c: usize, query: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            O::keep(
                lanes,
                weights,
                self.scores.get_unchecked_mut(c * L::OF_VECTOR..(c + 1) * L::OF_VECTOR),
                query,
                false,
            )
        }
    }

    /// `[query][vector]`. Asks for a line from `asked` on with each word, and looks through one of `look` if the outcome does.
    ///
    /// # Safety
    /// As for [`of`](Self::of); `of_queries` and `words` are the tile's.
    #[inline(always)]
    unsafe fn multiply<B: Outcome<O>, const R: usize, const HALVES: bool>(
        &mut self,
        lanes: L,
        first: usize,
        of_queries: [usize; AT_ONCE],
        words: usize,
        asked: *const u32,
    ) -> [[O::Sum<L>; C]; R] {
        let Self { queries, packed, of_keys, start, mut look, .. } = *self;
        // SAFETY: the caller's promise.
        let queries = unsafe { queries.get_unchecked(first * words..) };
        let mut sums = [start; R];
        let mut t = 0;
        // No `for`: it would set all sums twice.
        loop {
            let mut keys = [lanes.splat(0); C];
            for c in 0..C {
                let [low, high] = of_keys[c];
                // SAFETY: t < words, and the caller's promise.
                keys[c] = unsafe {
                    if HALVES {
                        let half = L::WIDTH / 2;
                        let low = packed.get_unchecked(low + t * half..low + (t + 1) * half);
                        lanes.load_halves(low, packed.get_unchecked(high + t * half..high + (t + 1) * half))
                    } else {
                        lanes.load(packed.get_unchecked(low + t * L::WIDTH..low + (t + 1) * L::WIDTH))
                    }
                };
            }
            lanes.prefetch_for_later(asked.wrapping_add(t * LINE));
            if B::LOOKS {
                // SAFETY: likewise.
                let line = unsafe { look.lines.get_unchecked(t * look.step..t * look.step + LINE) };
                look.largest = lanes.larger_bits(look.largest, lanes.load(line));
            }
            for r in 0..R {
                // SAFETY: likewise.
                let query = lanes.splat(unsafe { *queries.get_unchecked(of_queries[r] + t) });
                for c in 0..C {
                    sums[r][c] = O::add_product(lanes, sums[r][c], query, keys[c]);
                }
            }
            t += 1;
            if t == words {
                if B::LOOKS {
                    look.lines = &look.lines[words * look.step..];
                    self.look = look;
                }
                return sums;
            }
        }
    }
}

/// Of `C` vectors of keys from vector `at` on, hides scores of keys that do not exist or are later than a causal query.
pub(super) struct Hide<'a, 'b, O, B, const C: usize> {
    pub tile: &'a Tile<'b>,
    pub run: &'a Run,
    pub at: usize,
    pub operands: &'a Operands<'a>,
    /// `[C][queries]`
    pub scores: &'a mut [u32],
    pub seen: &'a mut Seen,
    /// Whether no others have been seen.
    pub fresh: bool,
    pub outcome: PhantomData<(O, B)>,
}

impl<O: Operand, B: Outcome<O>, const C: usize> OnLanes for Hide<'_, '_, O, B, C> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        B::hide(lanes, self);
    }
}

impl<O, B, const C: usize> Hide<'_, '_, O, B, C> {
    /// Of each vector, whether some are hidden in it.
    #[inline(always)]
    pub(super) fn hides<L: Lanes>(&self) -> [bool; C] {
        let mut hides = [false; C];
        for c in 0..C {
            hides[c] = !self.tile.all_visible(self.run.end_of::<L>(self.at + c + 1));
        }
        hides
    }

    /// Of vectors that hide some, where each key stands in the sequence; infinitely far away where it does not exist, because it only fills up the vector or is not live.
    #[inline(always)]
    pub(super) fn positions<L: Lanes>(&self, lanes: L) -> [L::Float; C] {
        let (hides, mut positions) = (self.hides::<L>(), [splat(lanes, 0.0); C]);
        for c in 0..C {
            if hides[c] {
                positions[c] = self.tile.positions::<L>(lanes, self.run, self.at + c);
            }
        }
        positions
    }
}

impl Tile<'_> {
    /// Whether every key before `end` is live, and not later than any of the tile's queries under a causal mask.
    #[inline(always)]
    pub(super) fn all_visible(&self, end: usize) -> bool {
        let past = if self.job.causal { self.queries.start + 1 } else { usize::MAX };
        end <= past.min(self.job.live_keys)
    }

    /// What scores of a query and of keys at these positions are at most: infinity, or minus infinity where a key is hidden from the query.
    #[inline(always)]
    pub(super) fn limit<L: Lanes>(&self, lanes: L, query: usize, positions: L::Float) -> L::Float {
        // Exact below 2^23 tokens; a causal mask of more has 10^10 blocks.
        let past = if self.job.causal { (self.queries.start + query) as f32 + 0.5 } else { f32::MAX };
        let room = lanes.sub(splat(lanes, past), positions);
        lanes.mul(room, splat(lanes, f32::INFINITY))
    }

    /// Of vector `at`: [`Hide::positions`].
    #[inline(always)]
    fn positions<L: Lanes>(&self, lanes: L, run: &Run, at: usize) -> L::Float {
        let (groups, real) = (run.groups_of::<L>(at), run.real_of::<L>(at));
        let mut positions = [f32::INFINITY.to_bits(); MAX_WIDTH];
        for n in 0..L::GROUPS {
            let first = groups[n] as usize * GROUP;
            let live = if n < real { self.job.live_keys.saturating_sub(first) } else { 0 };
            for at in 0..GROUP {
                let position = if at < live { first as f32 + at as f32 } else { f32::INFINITY };
                positions[GROUP * n + at] = position.to_bits();
            }
        }
        lanes.floats(lanes.load(&positions))
    }
}
