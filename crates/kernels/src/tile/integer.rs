//! 8-bit blocks of a row under the integer softmax: all their scores are kept, because the maximum and the exponentials
//! are those of the whole group, as the definition has it.

use super::{
    Fill, Int8, Numbers, Operand, Operands, Seen, Tile,
    scores::Floats,
    splat,
    weights::{QUAD, sum_by_query},
};
use crate::{
    IntegerSoftmax, Normalisation,
    lanes::{Lanes, OnLanes},
    phases::Stopwatch,
    workspace::Scratch,
};

impl Tile<'_> {
    /// Takes the 8-bit blocks `columns`. They come first in a row, so maximum and sum are theirs until others join, unless
    /// they are the `last`, too.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "those of `attend`, and how to normalise")]
    pub(super) fn start_with_integers<L: Lanes>(
        &mut self,
        lanes: L,
        columns: &[u32],
        operands: &[Operands<'_>; 3],
        normalisation: Normalisation,
        last: bool,
        scratch: &mut Scratch,
        watch: &mut Stopwatch,
    ) {
        if columns.is_empty() {
            return;
        }
        let Scratch { integers: scores, chunk, seen: [seen, ..], sums, .. } = scratch;
        // Products are kept as floats, which are exact: at most 512 * 127^2 < 2^23.
        let (mut rest, mut words) = ([columns, &[], &[]], 0);
        seen.restart(self.queries.len());
        watch.lap(|phases| &mut phases.rows);
        while !rest[0].is_empty() {
            lanes.run(Fill { chunk, columns: &mut rest, job: self.job });
            let [int8, ..] = &chunk.0;
            self.score::<L, Int8, Floats>(lanes, int8, &operands[0], &mut scores[words..], seen);
            words += int8.words::<L>();
        }
        watch.lap(|phases| &mut phases.scores);
        let softmax = IntegerSoftmax::new(self.job.packed.int8_scales.alpha);
        let scores = &mut scores[..words];
        lanes.run(WeighIntegers { tile: self, seen, operands: &operands[0], softmax: &softmax, normalisation, scores });
        let mut unit = splat(lanes, self.job.int8_unit());
        if normalisation == Normalisation::Paper {
            unit = lanes.mul(unit, self.sum.load(lanes));
        }
        watch.lap(|phases| &mut phases.softmax);
        let unit = Numbers::of(lanes, unit);
        let (mut rest, mut words) = ([columns, &[], &[]], 0);
        while !rest[0].is_empty() {
            lanes.run(Fill { chunk, columns: &mut rest, job: self.job });
            // The division comes with the last chunk, and then applies to the others' sums, too.
            let join = self.join(lanes, Numbers::all(1.0), unit, last && rest[0].is_empty());
            self.add_values(lanes, chunk, operands, &scores[words..], &unit, &join, sums);
            words += chunk.0[0].words::<L>();
        }
        watch.lap(|phases| &mut phases.values);
    }
}

/// Turns scores into 8-bit weights, four keys a word, in place, and sets maxima and sums.
struct WeighIntegers<'a, 'b> {
    tile: &'a mut Tile<'b>,
    seen: &'a Seen,
    operands: &'a Operands<'a>,
    softmax: &'a IntegerSoftmax,
    normalisation: Normalisation,
    scores: &'a mut [u32],
}

impl OnLanes for WeighIntegers<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        let Self { tile, seen, operands, softmax, normalisation, scores } = self;
        let max = seen.max(lanes);
        let maxima = Numbers::of(lanes, max);
        let mut sums = [lanes.splat(0); QUAD];
        for quad in 0..tile.queries.len().div_ceil(QUAD) {
            let mut of_quad = Int8::zero(lanes);
            for scores in scores.chunks_exact_mut(L::OF_VECTOR) {
                let mut exponentials = [lanes.splat(0); QUAD];
                for n in 0..QUAD {
                    let max = maxima.splat(lanes, QUAD * quad + n);
                    let distance = lanes.sub(max, lanes.floats(lanes.load(&scores[(quad * QUAD + n) * L::WIDTH..])));
                    exponentials[n] = lanes.integer_exponentials(distance, softmax);
                }
                let packed = lanes.pack_u8(exponentials);
                of_quad = Int8::add_weights(lanes, of_quad, packed);
                // SAFETY: a tile has no more queries than a vector has lanes, and `scores` are those of a vector of keys.
                unsafe { Int8::keep(lanes, packed, scores, quad * QUAD, tile.job.four) };
            }
            sums[quad] = lanes.bits(lanes.convert(of_quad));
        }
        let sum = sum_by_query(lanes, sums);
        if normalisation == Normalisation::Paper {
            let sums = Numbers::of(lanes, sum);
            for scores in scores.chunks_exact_mut(L::OF_VECTOR) {
                // Word n of a group is of query n of four, or each query has words of its own.
                let (apart, of_quad, of_query) = match (L::MATRICES, tile.job.four) {
                    (true, true) => (L::WIDTH, L::WIDTH, L::WIDTH / 4),
                    (true, false) => (2 * L::WIDTH, 2 * L::WIDTH, L::WIDTH / 2),
                    _ => (QUAD * L::WIDTH, L::WIDTH, 1),
                };
                for quad in 0..tile.queries.len().div_ceil(QUAD) {
                    for (at, word) in scores[quad * apart..][..of_quad].iter_mut().enumerate() {
                        // The sum is a whole number below 2^24.
                        let sum = f32::from_bits(sums.0[QUAD * quad + at / of_query % QUAD]) as u32;
                        let exponentials = word.to_le_bytes();
                        *word = u32::from_le_bytes(exponentials.map(|one| normalisation.weight(one, sum)));
                    }
                }
            }
        }
        // Every query has a live key here: the first of a block is no later than the queries that look at it.
        tile.max = Numbers::of(lanes, lanes.mul(max, splat(lanes, operands.score_scale)));
        tile.sum = Numbers::of(lanes, lanes.mul(sum, splat(lanes, Int8::WEIGHT_UNIT)));
    }
}
