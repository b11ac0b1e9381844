use burn::{
    module::Module,
    tensor::{Tensor, TensorData, activation::softmax},
};
use maskwright_blueprint::{AttentionShape, BlockSize, HeadId, ModelShape, Precision};
use maskwright_transformer::{Attention, Model, Probe, SeenAttention, Targets, cross_entropy, fake_quantise};
use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};
use rayon::prelude::*;

use crate::{Examples, ImageFolderError, class_scores::MOST_SCORES, examples::RealTokens};

/// Examples of one probing pass, and attention scores of its largest module: with [`MOST_SCORES`] of its classes they bound
/// memory.
const BATCH: usize = 64;
const BATCH_SCORES: u64 = 1 << 24;

/// Bins of the histogram of a head's attention logits, over [-4, 4] standard deviations around their mean.
const BINS: usize = 8;

/// What the dense model's attention does on calibration examples: the guide of every search.
#[derive(Debug, Clone)]
pub struct Calibration {
    /// `[module][head]`
    heads: Vec<Vec<HeadStatistics>>,
    /// How many examples were seen.
    pub examples: usize,
}

/// One head's statistics.
#[derive(Debug, Clone)]
pub struct HeadStatistics {
    /// Share of the head's attention logits in each of eight bins of one standard deviation around their mean.
    pub histogram: [f32; BINS],
    /// One for each of [`BlockSize::ALL`].
    sizes: [BlockStatistics; 3],
}

/// Statistics of each block of one head at one block size, in row order.
#[derive(Debug, Clone)]
pub struct BlockStatistics {
    pub rows: usize,
    pub columns: usize,
    /// Mean softmax probability that the block's keys receive, per query row: sums to 1 over a row of blocks. Padding
    /// counts neither as query nor as key.
    pub mass: Vec<f32>,
    /// Variance of the block's logits over entries and examples; 0 where no example has any.
    pub variance: Vec<f32>,
    /// Squared influence of leaving the block out, labels drawn from the model (the idea is MoA's, arXiv
    /// 2406.14909): `E[(sum over queries of G / (1 - p))^2]`, where a query gives the block's keys the probability `p` and
    /// `G` is the sum of `dL/dlogit` over them. That is the change of the loss to first order in attention's output `o`,
    /// because the other keys take over what the block's had: `o' = (o - sum over the block of p v) / (1 - p)`. A query
    /// without other keys is left with nothing: its term is `o dL/do`.
    pub influence: Vec<f32>,
    /// Squared influence of computing the block's scores at each of [`Precision::ALL`]:
    /// `E[(sum over the block of dL/dlogit * rounding error)^2]`; zero at single precision. Over windows, such squares
    /// are added.
    pub rounding: [Vec<f32>; 3],
}

impl Calibration {
    /// Probes the dense model on the first `count` of `examples`; labels are drawn from the model by `seed`.
    pub(crate) fn measure(
        model: &Model,
        shape: &ModelShape,
        examples: &Examples,
        count: usize,
        seed: u64,
    ) -> Result<Self, ImageFolderError> {
        let device = model.device().autodiff();
        let model = model.clone().train();
        let mut generator = ChaCha12Rng::seed_from_u64(seed);
        let indices: Vec<usize> = (0..count.min(examples.len())).collect();
        let mut sums: Vec<ModuleSums> = shape.modules.iter().map(|of| ModuleSums::new(of.shape)).collect();
        let scores = |of: &AttentionShape| u64::from(of.heads) * u64::from(of.windows) * of.scores();
        let most = shape.modules.iter().map(|of| scores(&of.shape)).max().unwrap_or(1);
        let answers = indices.iter().map(|at| examples.count_answers(&[*at])).max().unwrap_or(1);
        let batch = (BATCH_SCORES / most).clamp(1, BATCH as u64) as usize;
        let batch = batch.min(MOST_SCORES / (answers * model.classes() as usize).max(1)).max(1);
        for batch in indices.chunks(batch) {
            let real: Vec<_> = shape.modules.iter().map(|of| examples.queries_and_keys(batch, of.shape.kind)).collect();
            let zeros = |of: &AttentionShape, queries: usize, keys: usize| {
                let examples = batch.len() * of.windows as usize;
                Tensor::<4>::zeros([examples, of.heads as usize, queries, keys], &device).require_grad()
            };
            let mut probe = Probe::default();
            for (of, real) in shape.modules.iter().map(|module| &module.shape).zip(&real) {
                // Texts are padded to the longest of the batch only.
                let [queries, keys] = match real {
                    Some([queries, keys]) => [queries.padded, keys.padded],
                    None => [of.queries as usize, of.keys as usize],
                };
                probe.offsets.push(zeros(of, queries, keys));
                probe.gains.push(zeros(of, queries, 1));
            }
            let logits = model.forward(examples.batch(batch, &device)?, Attention::Probed(&mut probe));
            let labels = draw_labels(logits.clone(), &mut generator);
            let answers = labels.len();
            let loss = cross_entropy(logits, Targets::labels(labels));
            // The loss is a mean over all answers; an example's own gradient is as many times what arrives at it.
            let gradients = loss.mul_scalar(answers as f32).backward();
            let gradient =
                |of: &Tensor<4>| values(of.grad(&gradients).expect("everything probed takes part in the loss"));
            for (module, (sums, real)) in sums.iter_mut().zip(&real).enumerate() {
                let by_score = gradient(&probe.offsets[module]);
                let by_gain = gradient(&probe.gains[module]);
                sums.add(&by_score, &by_gain, &probe.seen[module], real.as_ref());
            }
        }
        let heads = sums.into_iter().map(ModuleSums::finish).collect();
        Ok(Self { heads, examples: indices.len() })
    }

    /// From statistics `[module][head]` of `examples` examples, however they were had.
    pub fn new(heads: Vec<Vec<HeadStatistics>>, examples: usize) -> Self {
        Self { heads, examples }
    }

    /// One head's statistics.
    ///
    /// # Panics
    /// When the model has no such head.
    pub fn head(&self, head: HeadId) -> &HeadStatistics {
        &self.heads[head.module as usize][head.head as usize]
    }
}

impl HeadStatistics {
    /// `sizes` in the order of [`BlockSize::ALL`].
    pub fn new(histogram: [f32; BINS], sizes: [BlockStatistics; 3]) -> Self {
        Self { histogram, sizes }
    }

    /// At one block size.
    pub fn blocks(&self, size: BlockSize) -> &BlockStatistics {
        &self.sizes[index(size)]
    }
}

fn index(size: BlockSize) -> usize {
    match size {
        BlockSize::B8 => 0,
        BlockSize::B16 => 1,
        BlockSize::B32 => 2,
    }
}

/// One label for each answer, drawn from the model's own class probabilities.
fn draw_labels(logits: Tensor<2>, generator: &mut ChaCha12Rng) -> Vec<u32> {
    let classes = logits.dims()[1];
    let probabilities: Vec<f32> = softmax(logits, 1).into_data().try_to_vec().expect("probabilities are f32");
    let draw = |row: &[f32]| {
        let mut left: f32 = generator.random();
        row.iter()
            .position(|p| {
                left -= p;
                left < 0.0
            })
            .unwrap_or(classes - 1) as u32
    };
    probabilities.chunks(classes).map(draw).collect()
}

/// Zeros for padding: `[examples, heads, tokens, head_dim]`.
fn only(x: Tensor<4>, lengths: Option<&[usize]>) -> Tensor<4> {
    let Some(lengths) = lengths else { return x };
    let tokens = x.dims()[2];
    let real = lengths.iter().flat_map(|length| (0..tokens).map(move |at| if at < *length { 1.0 } else { 0.0 }));
    let real = TensorData::new(real.collect::<Vec<f32>>(), [lengths.len(), 1, tokens, 1]);
    x.clone() * Tensor::from_data(real, &x.device())
}

fn values(tensor: Tensor<4>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("attention is f32")
}

/// Running sums over examples for one module.
struct ModuleSums {
    shape: AttentionShape,
    examples: usize,
    heads: Vec<HeadSums>,
}

struct HeadSums {
    logits: Vec<f32>,
    sizes: [BlockSums; 3],
}

#[derive(Clone, Default)]
struct BlockSums {
    /// Queries that were seen, for each row of blocks.
    queries: Vec<f64>,
    /// Scores that were seen.
    entries: Vec<f64>,
    mass: Vec<f64>,
    logit: Vec<f64>,
    squared_logit: Vec<f64>,
    influence: Vec<f64>,
    rounding: [Vec<f64>; 3],
}

/// One query's keys in one or more blocks.
#[derive(Clone, Copy, Default)]
struct Part {
    keys: f64,
    /// The probability that they have.
    mass: f64,
    /// The loss's by their logits, added up.
    gradient: f64,
}

impl Part {
    fn add(&mut self, other: Self) {
        self.keys += other.keys;
        self.mass += other.mass;
        self.gradient += other.gradient;
    }

    /// What the loss loses, to first order in the query's output, when only `others` are left: `G / (1 - p)`. All gradients of
    /// a query add up to zero and all probabilities to one, so that the others say it without a difference of equal numbers.
    fn left_out(&self, others: &Self, by_gain: f64) -> f64 {
        match (self.keys > 0.0, others.mass > 0.0) {
            (false, _) => 0.0,
            (true, true) => -others.gradient / others.mass,
            (true, false) => by_gain,
        }
    }
}

/// For each part, all others in one.
fn all_others(parts: &[Part], others: &mut [Part]) {
    let mut before = Part::default();
    for (part, others) in parts.iter().zip(&mut *others) {
        *others = before;
        before.add(*part);
    }
    let mut after = Part::default();
    for (part, others) in parts.iter().zip(others).rev() {
        others.add(after);
        after.add(*part);
    }
}

/// At most this much is no score: padding, or a key that a causal row does not see.
const NO_SCORE: f32 = -1e8;

/// One example's scores of one head, in row order.
struct Scores<'a> {
    keys: usize,
    /// Queries that are no padding.
    real: usize,
    logits: &'a [f32],
    probabilities: &'a [f32],
    /// The loss's by each score.
    gradient: &'a [f32],
    /// The loss's by the gain of each query's output.
    by_gain: &'a [f32],
    /// Rounding error of the logits at 8 and 16 bit.
    errors: [&'a [f32]; 2],
}

impl ModuleSums {
    fn new(shape: AttentionShape) -> Self {
        let blocks = |size: BlockSize| {
            let zeros = vec![0.0; (size.cover(shape.queries) * size.cover(shape.keys)) as usize];
            BlockSums {
                queries: vec![0.0; size.cover(shape.queries) as usize],
                entries: zeros.clone(),
                mass: zeros.clone(),
                logit: zeros.clone(),
                squared_logit: zeros.clone(),
                influence: zeros.clone(),
                rounding: [zeros.clone(), zeros.clone(), zeros],
            }
        };
        let head = |_| HeadSums { logits: Vec::new(), sizes: BlockSize::ALL.map(blocks) };
        Self { shape, examples: 0, heads: (0..shape.heads).map(head).collect() }
    }

    /// `real` are the examples' queries and keys that are no padding, where examples differ in them.
    fn add(&mut self, by_score: &[f32], by_gain: &[f32], seen: &SeenAttention, real: Option<&[RealTokens; 2]>) {
        let inner = |tensor: &Tensor<4>| tensor.clone().inner();
        // Padding must not set the scale of the 8-bit values.
        let lengths = |of: usize| real.map(|real| &real[of].lengths[..]);
        let (q, k) = (only(inner(&seen.q), lengths(0)), only(inner(&seen.k), lengths(1)));
        let scores = inner(&seen.scores);
        // Scores hold biases as well, which are not rounded.
        let exact = q.clone().matmul(k.clone().swap_dims(2, 3));
        let scale = (self.shape.head_dim as f32).sqrt().recip();
        let error = |precision| {
            let rounded =
                fake_quantise(q.clone(), precision).matmul(fake_quantise(k.clone(), precision).swap_dims(2, 3));
            values((rounded - exact.clone()).mul_scalar(scale))
        };
        let errors = [error(Precision::Int8), error(Precision::Half)];
        let probabilities = values(softmax(scores.clone(), 3));
        let [_, heads, queries, keys] = scores.dims();
        let logits = values(scores);
        let (shape, each) = (self.shape, queries * keys);
        let examples = logits.len() / (each * heads);
        // The histogram is a rough picture: the first batch is enough for it, and memory stays that of a batch.
        let is_first = self.examples == 0;
        self.examples += examples;
        self.heads.par_iter_mut().enumerate().for_each(|(head, sums)| {
            for example in 0..examples {
                let at = (example * heads + head) * each;
                let part = |of: &'_ [f32]| -> std::ops::Range<usize> {
                    debug_assert!(of.len() >= at + each);
                    at..at + each
                };
                let real = lengths(0).map_or(queries, |lengths| lengths[example].min(queries));
                let scores = Scores {
                    keys,
                    real,
                    logits: &logits[part(&logits)],
                    probabilities: &probabilities[part(&probabilities)],
                    gradient: &by_score[part(by_score)],
                    by_gain: &by_gain[(example * heads + head) * queries..][..queries],
                    errors: [&errors[0][part(&errors[0])], &errors[1][part(&errors[1])]],
                };
                if is_first {
                    sums.logits.extend(scores.logits.iter().filter(|logit| **logit > NO_SCORE));
                }
                for (size, blocks) in BlockSize::ALL.into_iter().zip(&mut sums.sizes) {
                    blocks.add(&shape, size, &scores);
                }
            }
        });
    }

    fn finish(self) -> Vec<HeadStatistics> {
        // A block is left out in all windows of an example at once: their squares add up, as those of independent numbers do.
        let (shape, examples) = (self.shape, self.examples as f64 / f64::from(self.shape.windows));
        let finish = |head: HeadSums| HeadStatistics {
            histogram: histogram(&head.logits),
            sizes: [0, 1, 2].map(|at| head.sizes[at].finish(&shape, BlockSize::ALL[at], examples)),
        };
        self.heads.into_iter().map(finish).collect()
    }
}

impl BlockSums {
    fn add(&mut self, shape: &AttentionShape, size: BlockSize, scores: &Scores<'_>) {
        let keys = scores.keys;
        let (side, columns) = (size.tokens() as usize, size.cover(shape.keys) as usize);
        let real = scores.real;
        let mut parts = vec![Part::default(); keys.div_ceil(side)];
        let mut others = parts.clone();
        for row in 0..real.div_ceil(side) {
            self.queries[row] += (real - row * side).min(side) as f64;
            let mut left_out = vec![0.0f64; parts.len()];
            let mut errors = vec![[0.0f64; 2]; parts.len()];
            for query in row * side..((row + 1) * side).min(real) {
                for (column, part) in parts.iter_mut().enumerate() {
                    let block = row * columns + column;
                    *part = Part::default();
                    for at in query * keys + column * side..query * keys + ((column + 1) * side).min(keys) {
                        if scores.logits[at] <= NO_SCORE {
                            continue;
                        }
                        let logit = f64::from(scores.logits[at]);
                        self.logit[block] += logit;
                        self.squared_logit[block] += logit * logit;
                        let slope = f64::from(scores.gradient[at]);
                        part.keys += 1.0;
                        part.mass += f64::from(scores.probabilities[at]);
                        part.gradient += slope;
                        for (sum, error) in errors[column].iter_mut().zip(scores.errors) {
                            *sum += slope * f64::from(error[at]);
                        }
                    }
                    self.entries[block] += part.keys;
                    self.mass[block] += part.mass;
                }
                all_others(&parts, &mut others);
                for ((part, others), sum) in parts.iter().zip(&others).zip(&mut left_out) {
                    *sum += part.left_out(others, f64::from(scores.by_gain[query]));
                }
            }
            for (column, (left_out, errors)) in left_out.into_iter().zip(errors).enumerate() {
                let block = row * columns + column;
                self.influence[block] += left_out * left_out;
                for (sum, error) in self.rounding.iter_mut().zip(errors) {
                    sum[block] += error * error;
                }
            }
        }
    }

    fn finish(&self, shape: &AttentionShape, size: BlockSize, examples: f64) -> BlockStatistics {
        let (rows, columns) = (size.cover(shape.queries) as usize, size.cover(shape.keys) as usize);
        let mean = |sums: &[f64]| sums.iter().map(|sum| (sum / examples) as f32).collect::<Vec<_>>();
        let mass = |(at, sum): (usize, &f64)| (sum / self.queries[at / columns].max(1.0)) as f32;
        let variance = |at: usize| {
            let entries = self.entries[at].max(1.0);
            let mean = self.logit[at] / entries;
            (self.squared_logit[at] / entries - mean * mean).max(0.0) as f32
        };
        BlockStatistics {
            rows,
            columns,
            mass: self.mass.iter().enumerate().map(mass).collect(),
            variance: (0..rows * columns).map(variance).collect(),
            influence: mean(&self.influence),
            rounding: [mean(&self.rounding[0]), mean(&self.rounding[1]), mean(&self.rounding[2])],
        }
    }
}

fn histogram(logits: &[f32]) -> [f32; BINS] {
    let count = logits.len().max(1) as f64;
    let mean = logits.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let deviation = (logits.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count).sqrt().max(1e-12);
    let mut bins = [0u64; BINS];
    for logit in logits {
        let at = (f64::from(*logit) - mean) / deviation + BINS as f64 / 2.0;
        bins[at.clamp(0.0, BINS as f64 - 1.0) as usize] += 1;
    }
    bins.map(|bin| (bin as f64 / count) as f32)
}

#[cfg(test)]
mod tests {
    use maskwright_blueprint::AttentionKind;

    use super::*;

    /// Attention's output `[head_dim]` over some keys: nothing where there are none.
    fn attend(logits: &[f32], values: &[[f64; 4]], keys: impl Iterator<Item = usize> + Clone) -> [f64; 4] {
        let e = |key: usize| f64::from(logits[key]).exp();
        let sum: f64 = keys.clone().map(e).sum();
        let mut output = [0.0; 4];
        for key in keys {
            for (output, value) in output.iter_mut().zip(values[key]) {
                *output += e(key) / sum * value;
            }
        }
        output
    }

    fn dot(a: [f64; 4], b: [f64; 4]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn influence_is_what_leaving_out_a_block_does_to_a_loss_that_is_linear_in_the_output() {
        const KEYS: usize = 16;
        let shape = AttentionShape {
            heads: 1,
            queries: 8,
            keys: KEYS as u32,
            head_dim: 4,
            windows: 1,
            kind: AttentionKind::CrossAttention,
        };
        let real = 5; // queries
        // All keys; some of the second block, or none, for every other query; and a second block that has next to none of the
        // probability.
        for (live, far) in [([KEYS, KEYS], 0.0), ([10, 13], 0.0), ([8, 10], 0.0), ([KEYS, 9], 14.0)] {
            let mut generator = ChaCha12Rng::seed_from_u64(5);
            let mut four = || [(); 4].map(|()| generator.random_range(-1.0..1.0));
            let values: Vec<[f64; 4]> = (0..KEYS).map(|_| four()).collect();
            let slope = four();
            let live = |query: usize| live[query % 2];
            let logit = |query: usize, key: usize| match key < live(query) {
                true => ((3 * query + 5 * key) % 7) as f32 / 3.0 - if key < 8 { 0.0 } else { far },
                false => -1e9,
            };
            let (mut logits, mut probabilities, mut gradient, mut by_gain) = (vec![], vec![], vec![], vec![]);
            let mut change = [0.0; 2];
            for query in 0..real {
                let row: Vec<f32> = (0..KEYS).map(|key| logit(query, key)).collect();
                let output = attend(&row, &values, 0..live(query));
                let sum: f64 = row[..live(query)].iter().map(|logit| f64::from(*logit).exp()).sum();
                for (key, logit) in row.iter().enumerate() {
                    let p = f64::from(*logit).exp() / sum;
                    probabilities.push(p as f32);
                    gradient.push((p * (dot(slope, values[key]) - dot(slope, output))) as f32);
                }
                by_gain.push(dot(slope, output) as f32);
                for (block, change) in change.iter_mut().enumerate() {
                    let others = (0..live(query)).filter(|key| key / 8 != block);
                    *change += dot(slope, attend(&row, &values, others)) - dot(slope, output);
                }
                logits.extend(row);
            }
            let errors = vec![0.0; logits.len()];
            let mut sums = ModuleSums::new(shape).heads.remove(0).sizes[0].clone();
            let scores = Scores {
                keys: KEYS,
                real,
                logits: &logits,
                probabilities: &probabilities,
                gradient: &gradient,
                by_gain: &by_gain,
                errors: [&errors, &errors],
            };
            sums.add(&shape, BlockSize::B8, &scores);
            let found = sums.finish(&shape, BlockSize::B8, 1.0).influence;
            for (change, found) in change.iter().zip(found) {
                assert!((change.powi(2) - f64::from(found)).abs() < 1e-5, "{change}^2, not {found}, {far} apart");
            }
            assert!(change[0].abs() > 0.01, "the first block matters: {change:?}");
        }
    }
}
