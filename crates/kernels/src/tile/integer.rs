//! 8-bit blocks of a row under the integer softmax: all their scores are kept, because the maximum and the exponentials
//! are those of the whole group, as the definition has it.

use super::{Chunk, Int8, MAX_WIDTH, Operands, Tile, hide, score_segment, splat, weighted_values};
use crate::{IntegerSoftmax, Normalisation, lanes::Lanes};

/// Stands for a score that does not exist; no product of 8-bit numbers gets near it.
const NOTHING: u32 = i32::MIN as u32;

/// One number for each query of a tile.
type PerQuery = [u32; MAX_WIDTH];

impl<L: Lanes> Tile<'_, L> {
    /// Adds the 8-bit blocks `columns`; the group joins the row's other precisions by its maximum and sum.
    #[inline(always)]
    pub(super) fn attend_integer(
        &mut self,
        columns: &[u32],
        operands: &Operands<'_, u32>,
        normalisation: Normalisation,
    ) {
        let slots = self.integer_scores(columns, operands);
        if slots == 0 {
            return;
        }
        let softmax = IntegerSoftmax::new(self.job.packed.scales.alpha);
        let (max, sum) = self.integer_weights(slots, &softmax, normalisation);

        let lanes = self.lanes;
        let real_max = max.map(|max| match max {
            NOTHING => f32::MIN.to_bits(),
            max => (max as i32 as f32 * operands.score_scale).to_bits(),
        });
        let group_max = lanes.floats(lanes.load(&real_max));
        let before = self.max;
        self.max = lanes.max(group_max, before);
        let correction = lanes.exp2(lanes.sub(before, self.max));
        // What an exponential of this group counts in the row.
        let share = lanes.exp2(lanes.sub(group_max, self.max));
        let sum = lanes.mul(lanes.convert(lanes.load(&sum)), splat(lanes, 1.0 / 255.0));
        let group_sum = lanes.mul(share, sum);
        self.sum = lanes.mul_add(self.sum, correction, group_sum);
        let unit = match normalisation {
            Normalisation::Deferred => share,
            Normalisation::Paper => group_sum,
        };
        self.rescale(correction);
        self.add_integer_values(columns, operands, lanes.mul(unit, splat(lanes, operands.value_scale)));
    }

    /// Products of every query with every key of `columns`, in units of `alpha`; returns the slots in use.
    #[inline(always)]
    fn integer_scores(&mut self, columns: &[u32], operands: &Operands<'_, u32>) -> usize {
        if columns.is_empty() {
            return 0;
        }
        self.load_query::<Int8>(operands.query_scale);
        let (mut chunk, mut rest, mut slots) = (Chunk::new(), columns, 0);
        while chunk.fill(&mut rest, self.job) {
            let scores = &mut self.scratch.integers.get()[slots * L::WIDTH..][..chunk.slots * L::WIDTH];
            let query = &self.scratch.query.get()[..self.job.head_dim / 4 * L::WIDTH];
            for segment in chunk.segments() {
                let scores = &mut scores[segment.slot * L::WIDTH..][..segment.slots() * L::WIDTH];
                score_segment::<L, Int8>(self.lanes, query, segment, operands, |slot, product| {
                    self.lanes.store(product, &mut scores[slot * L::WIDTH..]);
                });
                hide::<L>(self.first_query, segment, scores, NOTHING);
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
    ) -> (PerQuery, PerQuery) {
        let scores = &mut self.scratch.integers.get()[..slots * L::WIDTH];
        let (mut max, mut sum) = ([NOTHING; MAX_WIDTH], [0; MAX_WIDTH]);
        for row in scores.chunks_exact(L::WIDTH) {
            for (max, &score) in max.iter_mut().zip(row) {
                *max = (*max as i32).max(score as i32) as u32;
            }
        }
        for row in scores.chunks_exact_mut(L::WIDTH) {
            for ((score, &max), sum) in row.iter_mut().zip(&max).zip(&mut sum) {
                let exponential = match *score {
                    NOTHING => 0,
                    score => softmax.exponential((max as i32).abs_diff(score as i32)),
                };
                *score = u32::from(exponential);
                *sum += *score;
            }
        }
        for four in 0..slots / 4 {
            for (lane, &sum) in sum.iter().enumerate().take(L::WIDTH) {
                let weight = |at: usize| normalisation.weight(scores[(4 * four + at) * L::WIDTH + lane] as u8, sum);
                scores[four * L::WIDTH + lane] = u32::from_le_bytes(std::array::from_fn(weight));
            }
        }
        (max, sum)
    }

    #[inline(always)]
    fn rescale(&mut self, correction: L::Float) {
        let lanes = self.lanes;
        for output in self.scratch.output.get()[..self.job.head_dim * L::WIDTH].chunks_exact_mut(L::WIDTH) {
            lanes.store(lanes.bits(lanes.mul(lanes.floats(lanes.load(output)), correction)), output);
        }
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
