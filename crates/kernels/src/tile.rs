//! Fused attention of one tile: a few queries of one block row against all their key blocks.
//!
//! Keys come in chunks, of all precisions together. For each chunk: scores, weights relative to one number for all queries
//! ([`unified`]), and weighted values added to the output. Where that number does not do: scores, the new running maximum, weights
//! relative to it, and weighted values added to the output after that has been rescaled (online softmax). Scores and maxima are in powers of two,
//! `log2(e)` times the usual ones, and in real units whatever the precision, so rows mix precisions freely.
//!
//! A tile has as many queries as a vector has lanes, or as a block has. Of scores, a lane is a key; of outputs, a feature;
//! of what is kept for each query, a query. Each of the steps is compiled as a function of its own, so that its vectors
//! have all registers.

#![expect(clippy::needless_range_loop, reason = "a loop over the vectors of a tile says so, whatever it indexes")]

mod ahead;
mod chunk;
mod integer;
mod matrices;
mod operand;
mod pairs;
mod scores;
mod unified;
mod values;
mod weights;

use std::{marker::PhantomData, ops::Range};

pub(crate) use ahead::Next;
pub(crate) use chunk::{Chunk, ROOM};
pub(crate) use operand::{Half, Int8, Operand, Single};
pub(crate) use scores::Seen;

use ahead::{Ahead, LINE, Looked};
use chunk::{Fill, GROUP, Run};
use matrices::{ScoreMatrices, SumMatrices};
use pairs::{PairScale, Pairs};
use scores::{Floats, Keys, Outcome, Score};
use values::{AddValues, HALF, INT8, INT8_SUMS, Join, SINGLE, SUMS};
use weights::{Int8Scale, Weigh, Weighed};

use crate::{
    Int8Softmax,
    lanes::{Lanes, MAX_WIDTH, OnLanes},
    packed::{Largest, PackedHead, words},
    phases::Stopwatch,
    row::Row,
    workspace::Scratch,
};

/// The most queries of a tile on any instruction set.
pub(crate) const MAX_QUERIES: usize = MAX_WIDTH;

/// A head; `q` and `v` are `[tokens][head_dim]`.
pub(crate) struct Job<'a> {
    /// Tokens of one block.
    pub block_size: usize,
    /// Key block columns that the ranges of rows point into.
    pub columns: &'a [u32],
    pub head_dim: usize,
    /// Keys from this one on do not exist.
    pub live_keys: usize,
    pub causal: bool,
    pub int8_softmax: Int8Softmax,
    /// Whether a unit for matrices takes four words of a query's weights at a time, those of a vector of keys at 8 bit, and not eight.
    pub four: bool,
    /// Whether a call's inputs and output are more than caches nearby hold.
    pub output_is_far: bool,
    pub q: &'a [f32],
    pub v: &'a [f32],
    pub packed: &'a PackedHead,
}

impl Job<'_> {
    /// What an 8-bit sum over weights in 255ths times values is in.
    #[inline(always)]
    fn int8_unit(&self) -> f32 {
        self.packed.int8_scales.value / 255.0
    }

    /// Those of `columns`, which ascend, that have a live key.
    #[inline(always)]
    fn live<'c>(&self, columns: &'c [u32]) -> &'c [u32] {
        let live = |column: u32| (column as usize * self.block_size) < self.live_keys;
        match columns.last() {
            Some(&last) if !live(last) => &columns[..columns.partition_point(|&column| live(column))],
            _ => columns,
        }
    }
}

/// Computes neighbouring block rows of a head into `out`, `[queries of the rows][head_dim]`.
pub(crate) struct AttendRows<'a, 'b> {
    pub job: Job<'a>,
    pub rows: &'a [Row],
    pub out: &'a mut [f32],
    /// What the next head is packed from, which is asked for meanwhile.
    pub next: &'a Next<'b>,
    pub scratch: &'a mut Scratch,
    pub watch: &'a mut Stopwatch,
}

impl OnLanes for AttendRows<'_, '_> {
    /// Of the next head's tensors.
    type Output = [Largest; 3];

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) -> [Largest; 3] {
        let Self { mut job, rows, out, next, scratch, watch } = self;
        let (head, d) = (job.packed, job.head_dim);
        let span = L::WIDTH.min(job.block_size);
        let score_scale = std::f32::consts::LOG2_E / (d as f32).sqrt();
        let int8 = Operands {
            queries: &head.int8.queries,
            keys: Keys { packed: &head.int8.keys, offsets: &head.int8_offsets, words: d / 4, span },
            values: &head.int8.values,
            score_scale: head.int8_scales.score,
            pairs: PairScale::of(head.int8_scales.score),
        };
        let half = Operands {
            queries: &head.half.queries,
            keys: Keys { packed: &head.half.keys, offsets: &[], words: d / 2, span },
            values: &head.half.values,
            score_scale,
            pairs: None,
        };
        let single = Operands {
            queries: words(job.q),
            keys: Keys { packed: &head.single_keys, offsets: &[], words: d, span },
            values: head.single_values(job.v),
            score_scale,
            pairs: None,
        };
        let operands = [int8, half, single];
        let (mut out, mut ahead, mut looked) = (out, Ahead::of(next), Looked::default());
        if L::MATRICES {
            job.four = d.is_multiple_of(4 * L::WIDTH) && rows.iter().all(|row| row.blocks[1].is_empty());
        }
        lanes.begin_matrices(job.four);
        for row in rows {
            let [int8, half, single] = &row.blocks;
            let of = |blocks: &Range<usize>| job.live(&job.columns[blocks.start..blocks.end]);
            let columns = [of(int8), of(half), of(single)];
            for first in row.queries.clone().step_by(span) {
                let queries = first..(first + span).min(row.queries.end);
                let (here, rest) = out.split_at_mut(queries.len() * d);
                out = rest;
                // A copy, and back: a reference would tie the lifetimes of all tiles together.
                let mut tile = Tile::start(&job, queries, here, ahead, &mut looked);
                let mut columns = columns;
                if let Int8Softmax::Integer(normalisation) = job.int8_softmax {
                    let [of_int8, of_half, of_single] = columns;
                    let last = of_half.is_empty() && of_single.is_empty();
                    tile.start_with_integers(lanes, of_int8, &operands, normalisation, last, scratch, watch);
                    columns[0] = &[];
                }
                tile.attend(lanes, columns, &operands, scratch, watch);
                ahead.asked = tile.ahead.asked;
                if tile.fresh {
                    // Without a live key.
                    tile.out.fill(0.0);
                }
                watch.lap(|phases| &mut phases.rows);
            }
        }
        lanes.end_matrices();
        if next.looks { looked.largest() } else { Default::default() }
    }
}

/// A head as one precision sees it.
struct Operands<'a> {
    /// `[queries][words]`
    queries: &'a [u32],
    keys: Keys<'a>,
    /// `[rows][head_dim]`: words of as many keys as a word has numbers
    values: &'a [u32],
    /// From a product to a score in powers of two; above zero, and the same at 16 and 32 bit.
    score_scale: f32,
    /// What 8-bit scores may be instead.
    pairs: Option<PairScale>,
}

/// The state of one tile: for each query its running maximum, and the sum of its weights. Its weighted values so far are
/// in the output.
struct Tile<'a> {
    job: &'a Job<'a>,
    queries: Range<usize>,
    /// `[queries][head_dim]`
    out: &'a mut [f32],
    max: Numbers,
    sum: Numbers,
    /// Whether there are no weighted values yet.
    fresh: bool,
    /// Whether 8-bit scores have been too far away for 16-bit integers.
    far: bool,
    /// Lines of the output that are still to be asked for, from the end.
    unasked: usize,
    ahead: Ahead<'a>,
    looked: &'a mut Looked,
}

/// A number for each query of a tile.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Numbers([u32; MAX_QUERIES]);

impl Numbers {
    #[inline(always)]
    fn all(number: f32) -> Self {
        Self([number.to_bits(); MAX_QUERIES])
    }

    #[inline(always)]
    fn of<L: Lanes>(lanes: L, numbers: L::Float) -> Self {
        let mut all = Self::all(0.0);
        lanes.store(lanes.bits(numbers), &mut all.0);
        all
    }

    #[inline(always)]
    fn load<L: Lanes>(&self, lanes: L) -> L::Float {
        lanes.floats(lanes.load(&self.0))
    }

    /// That of one query, in all lanes.
    #[inline(always)]
    fn splat<L: Lanes>(&self, lanes: L, query: usize) -> L::Float {
        lanes.floats(lanes.splat(self.0[query]))
    }
}

impl<'a> Tile<'a> {
    #[inline(always)]
    fn start(
        job: &'a Job<'a>,
        queries: Range<usize>,
        out: &'a mut [f32],
        ahead: Ahead<'a>,
        looked: &'a mut Looked,
    ) -> Self {
        // The smallest finite number, not minus infinity: then a difference of maxima is never NaN.
        let unasked = out.len().div_ceil(LINE);
        Self {
            job,
            queries,
            out,
            max: Numbers::all(f32::MIN),
            sum: Numbers::all(0.0),
            fresh: true,
            far: false,
            unasked,
            ahead,
            looked,
        }
    }

    /// Where lines begin that are to be asked for, as many as `count`: of the output, if that is far away, of the next head, or of the
    /// output all the same.
    #[inline(always)]
    fn ask(&mut self, count: usize) -> Option<*const u32> {
        let output_first = self.job.output_is_far && self.unasked > 0;
        let lines = if output_first { &[] } else { self.ahead.take(count) };
        if !lines.is_empty() {
            return Some(lines.as_ptr().cast());
        }
        let rest = &self.out[self.out.len().saturating_sub(self.unasked * LINE)..];
        self.unasked = self.unasked.saturating_sub(count);
        (!rest.is_empty()).then_some(rest.as_ptr().cast())
    }

    /// Adds the blocks `columns` of each of [`Precision::ALL`](maskwright_blueprint::Precision::ALL), after which no others follow.
    #[inline(always)]
    fn attend<L: Lanes>(
        &mut self,
        lanes: L,
        columns: [&[u32]; 3],
        operands: &[Operands<'_>; 3],
        scratch: &mut Scratch,
        watch: &mut Stopwatch,
    ) {
        if self.attend_unified(lanes, columns, operands, scratch, watch) {
            return;
        }
        let Scratch { scores, chunk, seen, sums, .. } = scratch;
        let [of_int8, of_half, of_single] = operands;
        let mut rest = columns;
        while !all_empty(rest) {
            lanes.run(Fill { chunk, columns: &mut rest, job: self.job });
            watch.lap(|phases| &mut phases.rows);
            let Chunk([int8, half, single]) = &*chunk;
            let [scores_int8, scores_half, scores_single] = chunk.parts::<L>(scores);
            let [seen_int8, seen_others, _] = &mut *seen;
            if !int8.is_empty() {
                self.score_int8(lanes, int8, of_int8, scores_int8, seen_int8);
            }
            if !(half.is_empty() && single.is_empty()) {
                seen_others.restart(self.queries.len());
                self.score::<L, Half, Floats>(lanes, half, of_half, scores_half, seen_others);
                self.score::<L, Single, Floats>(lanes, single, of_single, scores_single, seen_others);
            }
            watch.lap(|phases| &mut phases.scores);
            let (scale_int8, scale) = (self.int8_scale(of_int8), of_single.score_scale);
            let weighed = lanes.run(Weigh { tile: self, chunk, seen, scale_int8, scale, scores }).or_else(|| {
                self.far = true;
                let [scores_int8, ..] = chunk.parts::<L>(scores);
                self.score_int8(lanes, &chunk.0[0], of_int8, scores_int8, &mut seen[0]);
                let scale_int8 = self.int8_scale(of_int8);
                lanes.run(Weigh { tile: self, chunk, seen, scale_int8, scale, scores })
            });
            let Weighed { correction, int8_unit } = weighed.expect("floats may be anywhere");
            // 8-bit sums are brought to the others' unit where there are any.
            let alone = chunk.0[1].is_empty() && chunk.0[2].is_empty();
            let unit = if alone { int8_unit } else { Numbers::all(1.0) };
            let join = self.join(lanes, correction, unit, all_empty(rest));
            watch.lap(|phases| &mut phases.softmax);
            self.add_values(lanes, chunk, operands, scores, &int8_unit, &join, sums);
            watch.lap(|phases| &mut phases.values);
        }
    }

    /// What 8-bit scores are.
    #[inline(always)]
    fn int8_scale(&self, int8: &Operands<'_>) -> Int8Scale {
        match int8.pairs {
            Some(pairs) if !self.far => Int8Scale::Pairs(pairs),
            _ => Int8Scale::Floats(int8.score_scale),
        }
    }

    /// Writes a chunk's 8-bit scores.
    #[inline(always)]
    fn score_int8<L: Lanes>(
        &mut self,
        lanes: L,
        run: &Run,
        operands: &Operands<'_>,
        scores: &mut [u32],
        seen: &mut Seen,
    ) {
        seen.restart(self.queries.len());
        match self.int8_scale(operands) {
            Int8Scale::Pairs(_) => {
                // Beside fewer vectors of keys it costs what it saves, or more; a unit for matrices has no loop to do it in.
                let looks = L::WIDTH == LINE && !L::MATRICES && run.vectors::<L>() > 2 && self.ahead.looks(self.looked);
                match looks {
                    true => self.score::<L, Int8, Pairs<true>>(lanes, run, operands, scores, seen),
                    false => self.score::<L, Int8, Pairs<false>>(lanes, run, operands, scores, seen),
                }
            }
            Int8Scale::Floats(_) => self.score::<L, Int8, Floats>(lanes, run, operands, scores, seen),
        }
    }

    /// Writes what becomes of a run's products, `[vectors of keys][queries]`.
    #[inline(always)]
    fn score<L: Lanes, O: Operand, B: Outcome<O>>(
        &mut self,
        lanes: L,
        run: &Run,
        operands: &Operands<'_>,
        scores: &mut [u32],
        seen: &mut Seen,
    ) {
        if L::MATRICES && O::MATRICES {
            if !run.is_empty() {
                lanes.run(ScoreMatrices::<O, B> { tile: self, run, operands, scores, seen, outcome: PhantomData });
            }
            return;
        }
        let (vectors, halves) = (run.vectors::<L>(), !L::MATRICES && operands.keys.span < L::WIDTH);
        let mut at = 0;
        while at < vectors {
            let of = |at| vectors_at_once::<L>(vectors - at, halves);
            let at_once = of(at);
            let mut end = at + at_once;
            while end < vectors && of(end) == at_once {
                end += at_once;
            }
            let group = at..end;
            let (tile, scores, seen) = (&mut *self, &mut *scores, &mut *seen);
            macro_rules! score {
                ($r:literal, $c:literal, $halves:literal) => {
                    lanes.run(Score::<O, B, $r, $c, $halves>::new(tile, run, group, operands, scores, seen))
                };
            }
            match (at_once, halves) {
                (3, true) if O::product_needs_no_registers::<L>() => score!(8, 3, true),
                (3, false) if O::product_needs_no_registers::<L>() => score!(8, 3, false),
                (3, true) => score!(4, 3, true),
                (2, true) => score!(8, 2, true),
                (_, true) => score!(8, 1, true),
                (4, false) => score!(4, 4, false),
                (3, false) => score!(4, 3, false),
                (2, false) if L::SUMS == 16 => score!(8, 2, false),
                (2, false) => score!(4, 2, false),
                (_, false) if L::SUMS == 16 => score!(8, 1, false),
                (_, false) => score!(4, 1, false),
            }
            at = end;
        }
    }

    /// For a chunk whose sums are in units of `unit`, after which the output so far is `correction` times as much. The
    /// `last` one divides by the sum of all weights.
    #[inline(always)]
    fn join<L: Lanes>(&self, lanes: L, correction: Numbers, unit: Numbers, last: bool) -> Join {
        if !last {
            return Join { keep: correction, unit };
        }
        let mut inverse = Numbers::all(0.0);
        for (inverse, (&sum, &max)) in inverse.0.iter_mut().zip(self.sum.0.iter().zip(&self.max.0)).take(L::WIDTH) {
            // Where every score is minus infinity there is no softmax.
            let undefined = f32::from_bits(max) < NO_SCORE;
            *inverse = if undefined { f32::NAN } else { 1.0 / f32::from_bits(sum) }.to_bits();
        }
        let inverse = inverse.load(lanes);
        let keep = Numbers::of(lanes, lanes.mul(correction.load(lanes), inverse));
        Join { keep, unit: Numbers::of(lanes, lanes.mul(unit.load(lanes), inverse)) }
    }

    /// `output = keep * output + unit * (weights * values)`, where sums of 8-bit products, if they are not alone, are first brought
    /// to the others' unit: `int8_unit` times as much.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "the parts of a chunk and of the scratch")]
    fn add_values<L: Lanes>(
        &mut self,
        lanes: L,
        chunk: &Chunk,
        operands: &[Operands<'_>; 3],
        weights: &[u32],
        int8_unit: &Numbers,
        join: &Join,
        sums: &mut [u32],
    ) {
        let [int8, half, single] = &chunk.0;
        let rows = [int8.rows::<Int8>(), half.rows::<Half>(), single.rows::<Single>()];
        let [int8, half, single] = operands;
        let values = [int8.values, half.values, single.values];
        if L::MATRICES && !(rows[0].is_empty() && rows[1].is_empty()) {
            let (joins, head_dim) = (!rows[1].is_empty() || !rows[2].is_empty(), self.job.head_dim);
            lanes.run(SumMatrices { rows, values, weights, int8_unit, head_dim, joins, four: self.job.four, sums });
            let sums = AddValues { tile: self, rows, values, at: 0, weights, int8_unit, join, sums };
            match (joins, rows[2].is_empty()) {
                (false, _) => sums.of_runs::<L, INT8_SUMS>(lanes),
                (true, true) => sums.of_runs::<L, SUMS>(lanes),
                (true, false) => sums.of_runs::<L, { SUMS | SINGLE }>(lanes),
            }
            self.fresh = false;
            return;
        }
        let sums = AddValues { tile: self, rows, values, at: 0, weights, int8_unit, join, sums };
        match [!rows[0].is_empty(), !rows[1].is_empty(), !rows[2].is_empty()] {
            [true, false, false] => sums.of_runs::<L, INT8>(lanes),
            [false, true, false] => sums.of_runs::<L, HALF>(lanes),
            [false, false, true] => sums.of_runs::<L, SINGLE>(lanes),
            [true, false, true] if !Half::product_needs_no_registers::<L>() => {
                sums.of_runs::<L, { INT8 | SINGLE }>(lanes)
            }
            _ => sums.of_runs::<L, { INT8 | HALF | SINGLE }>(lanes),
        }
        self.fresh = false;
    }
}

#[inline(always)]
fn all_empty([int8, half, single]: [&[u32]; 3]) -> bool {
    int8.is_empty() && half.is_empty() && single.is_empty()
}

/// Maxima below this are none: they come from the least number that a maximum starts with, times a scale of scores.
const NO_SCORE: f32 = f32::MIN / 32.0;

/// Of as many vectors as are `left`, those that are multiplied at once, together with 4 to 8 queries: with every sum in a
/// register and few loads to a product. One or two vectors wait for loads, where a core does hardly more than one a cycle.
#[inline(always)]
fn vectors_at_once<L: Lanes>(left: usize, halves: bool) -> usize {
    match left {
        _ if L::SUMS < 16 => left.min(2),
        // Vectors of two halves take two loads each: with 8 queries there are fewer of them to a product.
        4 if halves => 2,
        4.. if halves || left % 4 == 1 || left % 4 == 2 => 3,
        _ => left.min(4),
    }
}

/// Whether `R` of `queries` at a time are six, five and five instead, in [`Score`] and [`AddValues`]; six, six and four of what pairs of queries
/// share. Beside four vectors those take fewer loads to a product than four at a time, and one loop less; there is no room for products that need registers themselves. The
/// CPU with BF16 that this was measured on (Zen 4) begins one product a cycle, for which loads are no matter, and is faster with four.
#[inline(always)]
fn in_three<L: Lanes, O: Operand, const R: usize, const C: usize>(queries: usize) -> bool {
    (R, C, queries) == (4, 4, 16) && L::SUMS == 16 && !L::HAS_BF16 && O::product_needs_no_registers::<L>()
}

#[inline(always)]
fn splat<L: Lanes>(lanes: L, x: f32) -> L::Float {
    lanes.floats(lanes.splat(x.to_bits()))
}
