//! 8-bit blocks of a row under the integer softmax: all their scores are kept, because the maximum and the exponentials
//! are those of the whole group, as the definition has it.

use super::{Chunk, GROUP, Int8, Operand, Operands, Tile, max_of_group, splat, sum_of_group};
use crate::{
    IntegerSoftmax, Normalisation,
    lanes::{Lanes, MAX_WIDTH},
    phases::Stopwatch,
    workspace::Scratch,
};

impl<L: Lanes, const A: usize> Tile<'_, L, A> {
    /// Takes the 8-bit blocks `columns`. They come first in a row, so maximum and sum are theirs until others join.
    #[inline(always)]
    pub(super) fn start_with_integers(
        &mut self,
        columns: &[u32],
        operands: &Operands<'_>,
        normalisation: Normalisation,
        scratch: &mut Scratch,
        watch: &mut impl Stopwatch,
    ) {
        if columns.is_empty() {
            return;
        }
        let lanes = self.lanes;
        let Scratch { queries, integers, output, whole, .. } = scratch;
        let (queries, scores, output) = (queries, integers, output);
        self.load_queries::<Int8>(operands, queries, whole);
        // Products are kept as floats, which are exact: at most 512 * 127^2 < 2^23.
        let (mut chunk, mut rest, mut words) = (Chunk::new(), columns, 0);
        let mut max = [splat(lanes, f32::MIN); A];
        watch.lap(|phases| &mut phases.rows);
        while chunk.fill(&mut rest, self.job) {
            let seen = self.score::<Int8>(&chunk, operands, queries, &mut scores[words..]);
            for a in 0..A {
                max[a] = lanes.max(seen.largest[a], max[a]);
            }
            words += chunk.padded().len() * Self::SCORES;
        }
        if words == 0 {
            return;
        }
        watch.lap(|phases| &mut phases.scores);
        let softmax = IntegerSoftmax::new(self.job.packed.int8_scales.alpha);
        let sums = self.integer_weights(max, &softmax, normalisation, &mut scores[..words]);
        let unit = splat(lanes, operands.value_scale);
        let mut units = [unit; A];
        for a in 0..A {
            // Every query has a live key here: the first of a block is no later than the queries that look at it.
            self.max[a] = lanes.mul(max_of_group(lanes, max[a]), splat(lanes, operands.score_scale));
            self.sum[a] = lanes.mul(lanes.convert(sums[a]), splat(lanes, 1.0 / 255.0));
            if normalisation == Normalisation::Paper {
                units[a] = lanes.mul(unit, sum_of_group(lanes, self.sum[a]));
            }
        }
        watch.lap(|phases| &mut phases.softmax);
        let (mut rest, mut words) = (columns, 0);
        while chunk.fill(&mut rest, self.job) {
            let factors = [[splat(lanes, 1.0); A], units];
            self.add_values::<Int8>(&chunk, &operands.values, &scores[words..], factors, output);
            words += chunk.padded().len() / 4 * Self::SCORES;
        }
        watch.lap(|phases| &mut phases.values);
    }

    /// Turns scores into 8-bit weights, four keys a word, in place. Returns each query's sum of exponentials in four
    /// parts.
    #[inline(always)]
    fn integer_weights(
        &self,
        max: [L::Float; A],
        softmax: &IntegerSoftmax,
        normalisation: Normalisation,
        scores: &mut [u32],
    ) -> [L::Word; A] {
        let lanes = self.lanes;
        let mut sums = [lanes.splat(0); A];
        for a in 0..A {
            let max = max_of_group(lanes, max[a]);
            for at in 0..scores.len() / (4 * Self::SCORES) {
                let mut exponentials = [lanes.splat(0); 4];
                for (n, exponential) in exponentials.iter_mut().enumerate() {
                    let score = lanes.load(&scores[(4 * at + n) * Self::SCORES + a * L::WIDTH..]);
                    *exponential = lanes.integer_exponentials(lanes.sub(max, lanes.floats(score)), softmax);
                }
                let packed = lanes.pack_u8(exponentials);
                sums[a] = <Int8 as Operand<L>>::add_weights(lanes, sums[a], packed);
                lanes.store(packed, &mut scores[at * Self::SCORES + a * L::WIDTH..]);
            }
        }
        if normalisation == Normalisation::Paper {
            let weights = scores.len() / 4;
            for a in 0..A {
                let mut sum = [0; MAX_WIDTH];
                lanes.store(sums[a], &mut sum);
                for words in scores[..weights].chunks_exact_mut(Self::SCORES) {
                    let groups = words[a * L::WIDTH..][..L::WIDTH].chunks_exact_mut(GROUP);
                    for (group, sum) in groups.zip(sum.chunks_exact(GROUP)) {
                        let sum = sum.iter().sum();
                        for word in group {
                            let exponentials = word.to_le_bytes();
                            *word = u32::from_le_bytes(exponentials.map(|one| normalisation.weight(one, sum)));
                        }
                    }
                }
            }
        }
        sums
    }
}
