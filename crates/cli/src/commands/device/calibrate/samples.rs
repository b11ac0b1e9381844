use std::{num::NonZeroUsize, sync::Arc};

use maskwright_blueprint::BlockSize;
use maskwright_cost_model::{HeadWork, ModuleWork, Softmax};
use maskwright_kernels::{Int8Softmax, Kernel, Normalisation, Promotion};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng, seq::IndexedRandom};

use crate::measure::{Bench, MeasureError, Precisions, Spread, Timings, Workload};

/// Masks to time.
pub(super) struct All {
    pub(super) fit: Vec<Drawn>,
    /// For each of [`HELD_OUT`], sets of [`CANDIDATES`] masks of equal density.
    pub(super) held_out: Vec<Vec<Vec<Drawn>>>,
}

/// A mask with the plan that runs it, and what was measured so far.
pub(super) struct Drawn {
    pub(super) workload: Workload,
    pub(super) bench: Bench,
    pub(super) timings: Timings,
    /// Of a call that nothing else disturbed, once all have been timed.
    pub(super) seconds: f64,
    softmax: Softmax,
}

/// Masks of one density that a search would choose among.
pub(super) const CANDIDATES: usize = 6;

const FITTED: usize = 640;
const SETS: usize = 8;

/// Self-attention that masks are drawn for.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) tokens: u32,
    pub(super) heads: u32,
    pub(super) head_dim: u32,
}

/// Self-attention of models that searches are for.
pub(super) const HELD_OUT: [Shape; 11] = [
    Shape { tokens: 49, heads: 3, head_dim: 32 },   // a window of Swin
    Shape { tokens: 64, heads: 12, head_dim: 64 },  // sentences in BERT
    Shape { tokens: 65, heads: 4, head_dim: 16 },   // the quickstart's model
    Shape { tokens: 128, heads: 4, head_dim: 32 },  // MobileBERT
    Shape { tokens: 128, heads: 12, head_dim: 64 }, // longer sentences in BERT
    Shape { tokens: 197, heads: 6, head_dim: 64 },  // ViT-S
    Shape { tokens: 256, heads: 8, head_dim: 64 },  // a medium BERT
    Shape { tokens: 257, heads: 4, head_dim: 80 },  // a part of ViT-H
    Shape { tokens: 512, heads: 12, head_dim: 64 }, // whole texts in BERT
    Shape { tokens: 512, heads: 2, head_dim: 128 }, // a part of a language model
    Shape { tokens: 1024, heads: 4, head_dim: 64 }, // a part of a longer one
];

/// Values of a tensor of a fitted mask at most, so that a round is soon over; two heads of the longest have fewer.
const MOST_VALUES: u32 = 400_000;

/// Fitted masks are drawn over lengths, numbers of heads and their widths, block sizes, densities, precisions and both
/// softmaxes, and computed as they are; those held out mix block sizes and precisions from head to head, as blueprints do, and
/// are computed as is fastest.
pub(super) fn draw(kernel: Kernel, threads: NonZeroUsize, seed: u64) -> Result<All, MeasureError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let fit = (0..FITTED).map(|_| {
        let tokens = (33.0 * 2.0_f64.powf(rng.random_range(0.0..5.25))).round() as u32;
        let head_dim = *[16, 32, 32, 48, 64, 64, 64, 80, 96, 128].choose(&mut rng).unwrap_or(&64);
        let heads = rng.random_range(2..=12).min(MOST_VALUES / (tokens * head_dim));
        let alike = spread(&mut rng, None);
        let mixed = rng.random_bool(0.5);
        let spreads: Vec<Spread> =
            (0..heads).map(|_| if mixed { spread(&mut rng, Some(alike.density)) } else { alike }).collect();
        let softmax = if rng.random_bool(0.2) { Softmax::Integer } else { Softmax::Float };
        let workload = Workload::draw(heads, tokens, head_dim, |head| spreads[head as usize], rng.random())?;
        Drawn::new(workload, softmax, kernel, threads, Promotion::Never)
    });
    let fit = fit.collect::<Result<_, _>>()?;
    let held_out = HELD_OUT.iter().map(|&Shape { tokens, heads, head_dim }| {
        let sets = (0..SETS).map(|_| {
            let density = density(&mut rng);
            let candidates = (0..CANDIDATES).map(|_| {
                let spreads: Vec<Spread> = (0..heads).map(|_| spread(&mut rng, Some(density))).collect();
                let workload = Workload::draw(heads, tokens, head_dim, |head| spreads[head as usize], rng.random())?;
                Drawn::new(workload, Softmax::Float, kernel, threads, Promotion::WhereFaster)
            });
            candidates.collect::<Result<Vec<_>, _>>()
        });
        sets.collect::<Result<Vec<_>, _>>()
    });
    Ok(All { fit, held_out: held_out.collect::<Result<_, _>>()? })
}

fn spread(rng: &mut ChaCha8Rng, given: Option<f64>) -> Spread {
    let density = given.unwrap_or_else(|| density(rng));
    let names = ["int8", "bf16", "fp32", "mixed", "70/20/10", "30/30/40", "50/50/0", "50/0/50", "0/50/50"];
    let precisions: Precisions = names.choose(rng).and_then(|name| name.parse().ok()).expect("names of precisions");
    let block_size = *BlockSize::ALL.choose(rng).unwrap_or(&BlockSize::B16);
    Spread { block_size, density, precisions }
}

/// From a sixteenth to all, as often in each halving.
fn density(rng: &mut ChaCha8Rng) -> f64 {
    0.5_f64.powf(rng.random_range(0.0..4.0))
}

impl All {
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Drawn> {
        self.fit.iter_mut().chain(self.held_out.iter_mut().flatten().flatten())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Drawn> {
        self.fit.iter().chain(self.held_out.iter().flatten().flatten())
    }

    /// How much longer than the least the middle round took, for the middle mask.
    pub(super) fn spread(&self) -> f64 {
        let mut spreads = Timings::default();
        for drawn in self.iter() {
            spreads.add(drawn.timings.spread());
        }
        spreads.median()
    }
}

impl Drawn {
    fn new(
        workload: Workload,
        softmax: Softmax,
        kernel: Kernel,
        threads: NonZeroUsize,
        promotion: Promotion,
    ) -> Result<Self, MeasureError> {
        let int8_softmax = match softmax {
            Softmax::Float => Int8Softmax::Float,
            Softmax::Integer => Int8Softmax::Integer(Normalisation::Deferred),
        };
        let bench = Bench::new(&workload, kernel, threads, int8_softmax, promotion)?;
        Ok(Self { workload, bench, timings: Timings::default(), seconds: 0.0, softmax })
    }

    /// What the cost model counts of it.
    pub(super) fn module(&self) -> ModuleWork {
        let Workload { shape, masks } = &self.workload;
        let heads = masks.iter().map(|mask| Arc::new(HeadWork::of(mask, shape))).collect();
        ModuleWork { name: "timed".into(), shape: *shape, softmax: self.softmax, heads }
    }
}
