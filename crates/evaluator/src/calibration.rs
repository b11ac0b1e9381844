use burn::{
    module::Module,
    nn::loss::CrossEntropyLossConfig,
    tensor::{Tensor, TensorData, activation::softmax},
};
use maskwright_blueprint::{AttentionShape, BlockSize, HeadId, ModelShape, Precision};
use maskwright_transformer::{Attention, Model, Probe, SeenAttention, fake_quantise};
use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};
use rayon::prelude::*;

use crate::{Examples, class_scores::MOST_SCORES, examples::RealTokens};

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
    /// Squared gradient influence of leaving the block out: `E[(sum over the block of dL/dlogit)^2]`, labels drawn from
    /// the model (the Fisher information of a gate on the block; the idea is MoA's, arXiv 2406.14909).
    pub influence: Vec<f32>,
    /// The same for computing the block's scores at each of [`Precision::ALL`]:
    /// `E[(sum over the block of dL/dlogit * rounding error)^2]`; zero at single precision. Over windows, such squares
    /// are added.
    pub rounding: [Vec<f32>; 3],
}

impl Calibration {
    /// Probes the dense model on the first `count` of `examples`; labels are drawn from the model by `seed`.
    pub(crate) fn measure(model: &Model, shape: &ModelShape, examples: &Examples, count: usize, seed: u64) -> Self {
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
            let offset = |of: &AttentionShape, real: &Option<[RealTokens; 2]>| {
                let examples = batch.len() * of.windows as usize;
                // Texts are padded to the longest of the batch only.
                let [queries, keys] = match real {
                    Some([queries, keys]) => [queries.padded, keys.padded],
                    None => [of.queries as usize, of.keys as usize],
                };
                Tensor::<4>::zeros([examples, of.heads as usize, queries, keys], &device).require_grad()
            };
            let offsets = shape.modules.iter().zip(&real).map(|(of, real)| offset(&of.shape, real)).collect();
            let mut probe = Probe { offsets, seen: Vec::new() };
            let logits = model.forward(examples.batch(batch, &device), Attention::Probed(&mut probe));
            let labels = draw_labels(logits.clone(), &mut generator);
            let answers = labels.len();
            let labels = Tensor::from_data(labels.as_slice(), &device);
            let loss = CrossEntropyLossConfig::new().init(&device).forward(logits, labels);
            // The loss is a mean over all answers; an example's own gradient is as many times what arrives at it.
            let gradients = loss.mul_scalar(answers as f32).backward();
            for (((sums, offset), seen), real) in sums.iter_mut().zip(&probe.offsets).zip(&probe.seen).zip(&real) {
                let gradient = offset.grad(&gradients).expect("every offset takes part in the loss");
                sums.add(&values(gradient), seen, real.as_ref());
            }
        }
        let heads = sums.into_iter().map(ModuleSums::finish).collect();
        Self { heads, examples: indices.len() }
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
fn draw_labels(logits: Tensor<2>, generator: &mut ChaCha12Rng) -> Vec<i32> {
    let classes = logits.dims()[1];
    let probabilities: Vec<f32> = softmax(logits, 1).into_data().try_to_vec().expect("probabilities are f32");
    let draw = |row: &[f32]| {
        let mut left: f32 = generator.random();
        row.iter()
            .position(|p| {
                left -= p;
                left < 0.0
            })
            .unwrap_or(classes - 1) as i32
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

/// At most this much is no score: padding, or a key that a causal row does not see.
const NO_SCORE: f32 = -1e8;

/// One example's scores of one head, in row order.
struct Scores<'a> {
    keys: usize,
    /// Queries that are no padding.
    real: usize,
    logits: &'a [f32],
    probabilities: &'a [f32],
    gradient: &'a [f32],
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
    fn add(&mut self, gradient: &[f32], seen: &SeenAttention, real: Option<&[RealTokens; 2]>) {
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
                    gradient: &gradient[part(gradient)],
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
        for row in 0..real.div_ceil(side) {
            self.queries[row] += (real - row * side).min(side) as f64;
            for column in 0..keys.div_ceil(side) {
                let block = row * columns + column;
                let mut gradient = 0.0f64;
                let mut errors = [0.0f64; 2];
                for query in row * side..((row + 1) * side).min(real) {
                    for at in query * keys + column * side..query * keys + ((column + 1) * side).min(keys) {
                        if scores.logits[at] <= NO_SCORE {
                            continue;
                        }
                        let logit = f64::from(scores.logits[at]);
                        self.entries[block] += 1.0;
                        self.mass[block] += f64::from(scores.probabilities[at]);
                        self.logit[block] += logit;
                        self.squared_logit[block] += logit * logit;
                        let slope = f64::from(scores.gradient[at]);
                        gradient += slope;
                        for (sum, error) in errors.iter_mut().zip(scores.errors) {
                            *sum += slope * f64::from(error[at]);
                        }
                    }
                }
                self.influence[block] += gradient * gradient;
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
