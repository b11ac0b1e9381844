//! 8-bit blocks of a row under the integer softmax: all their scores are kept, because the maximum and the exponentials
//! are those of the whole group, as the definition has it.

use super::{Chunk, Int8, MAX_WIDTH, Operands, Tile, hide, operand::FOUR_ONES, score_segment, splat, weighted_values};
use crate::{IntegerSoftmax, Normalisation, lanes::Lanes};

/// Stands for a score that does not exist.
const NOTHING: u32 = f32::NEG_INFINITY.to_bits();

impl<L: Lanes> Tile<'_, L> {
    /// Takes the 8-bit blocks `columns`. They come first in a row, so maximum and sum are theirs until others join.
    #[inline(always)]
    pub(super) fn start_with_integers(
        &mut self,
        columns: &[u32],
        operands: &Operands<'_, u32>,
        normalisation: Normalisation,
    ) {
        let slots = self.integer_scores(columns, operands);
        if slots == 0 {
            return;
        }
        let softmax = IntegerSoftmax::new(self.job.packed.int8_scales.alpha);
        let (max, sum) = self.integer_weights(slots, &softmax, normalisation);
        let lanes = self.lanes;
        // Every query has a live key here: the first of a block is no later than the queries that look at it.
        self.max = lanes.mul(max, splat(lanes, operands.score_scale));
        self.sum = lanes.mul(lanes.convert(sum), splat(lanes, 1.0 / 255.0));
        let unit = splat(lanes, operands.value_scale);
        let unit = match normalisation {
            Normalisation::Deferred => unit,
            Normalisation::Paper => lanes.mul(unit, self.sum),
        };
        self.add_integer_values(columns, operands, unit);
    }

    /// Products of every query with every key of `columns`, in units of `alpha`; returns the slots in use. They are kept
    /// as floats, which are exact: at most 512 * 127^2 < 2^23.
    #[inline(always)]
    fn integer_scores(&mut self, columns: &[u32], operands: &Operands<'_, u32>) -> usize {
        if columns.is_empty() {
            return 0;
        }
        self.load_queries::<Int8>(operands);
        let (mut chunk, mut rest, mut slots) = (Chunk::new(), columns, 0);
        while chunk.fill(&mut rest, self.job) {
            let scores = &mut self.scratch.integers.get()[slots * L::WIDTH..][..chunk.slots * L::WIDTH];
            let queries = &self.scratch.queries.get()[..self.job.head_dim / 4 * L::WIDTH];
            for segment in chunk.segments() {
                let scores = &mut scores[segment.slot * L::WIDTH..][..segment.slots() * L::WIDTH];
                score_segment::<L, Int8>(self.lanes, queries, segment, operands, |slot, product| {
                    self.lanes.store(self.lanes.bits(self.lanes.convert(product)), &mut scores[slot * L::WIDTH..]);
                });
                hide::<L>(self.queries.start, segment, scores, NOTHING);
            }
            slots += chunk.slots;
        }
        slots
    }

    /// Turns those scores into 8-bit weights, four keys a word, in place. Returns each query's maximum and sum of
    /// exponentials.
    #[inline(always)]
    fn integer_weights(
        &mut self,
        slots: usize,
        softmax: &IntegerSoftmax,
        normalisation: Normalisation,
    ) -> (L::Float, L::Word) {
        let lanes = self.lanes;
        let scores = &mut self.scratch.integers.get()[..slots * L::WIDTH];
        let mut max = splat(lanes, f32::MIN);
        for score in scores.chunks_exact(L::WIDTH) {
            max = lanes.max(lanes.floats(lanes.load(score)), max);
        }
        let mut sum = lanes.splat(0);
        for four in 0..slots / 4 {
            let mut exponentials = [sum; 4];
            let of_four = scores[4 * four * L::WIDTH..].chunks_exact(L::WIDTH);
            for (exponential, score) in exponentials.iter_mut().zip(of_four) {
                let distance = lanes.sub(max, lanes.floats(lanes.load(score)));
                *exponential = lanes.integer_exponentials(distance, softmax);
            }
            let packed = lanes.pack_u8(exponentials);
            sum = lanes.dot_u8_i8(sum, packed, lanes.splat(FOUR_ONES));
            lanes.store(packed, &mut scores[four * L::WIDTH..]);
        }
        if normalisation == Normalisation::Paper {
            let mut sums = [0; MAX_WIDTH];
            lanes.store(sum, &mut sums);
            for words in scores[..slots / 4 * L::WIDTH].chunks_exact_mut(L::WIDTH) {
                for (word, sum) in words.iter_mut().zip(sums) {
                    let exponentials = word.to_le_bytes();
                    *word = u32::from_le_bytes(exponentials.map(|one| normalisation.weight(one, sum)));
                }
            }
        }
        (max, sum)
    }

    /// `output += unit * (weights * values)`, the inner product in integers.
    #[inline(always)]
    fn add_integer_values(&mut self, columns: &[u32], operands: &Operands<'_, u32>, unit: L::Float) {
        let (lanes, d) = (self.lanes, self.job.head_dim);
        let (mut chunk, mut rest, mut slots) = (Chunk::new(), columns, 0);
        while chunk.fill(&mut rest, self.job) {
            let weights = &self.scratch.integers.get()[slots / 4 * L::WIDTH..][..chunk.slots / 4 * L::WIDTH];
            let output = &mut self.scratch.output.get()[..d * L::WIDTH];
            weighted_values::<L, Int8>(lanes, &chunk, weights, operands.values, d, |at, sum| {
                let output = &mut output[at * L::WIDTH..][..L::WIDTH];
                let before = lanes.floats(lanes.load(output));
                let sum = lanes.convert(sum);
                lanes.store(lanes.bits(lanes.mul_add(sum, unit, before)), output);
            });
            slots += chunk.slots;
        }
    }
}
