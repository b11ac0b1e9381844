use std::{num::NonZeroUsize, sync::Arc};

use maskwright_blueprint::BlockSize;
use maskwright_cost_model::{HeadWork, ModuleWork, Softmax};
use maskwright_kernels::{Int8Softmax, Kernel, Normalisation, Promotion};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng, seq::IndexedRandom};

use crate::measure::{Bench, MeasureError, Precisions, Spread, Timings, Workload};

/// Masks to time.
pub(super) struct All {
    pub(super) fit: Vec<Drawn>,
    /// For each length, sets of [`CANDIDATES`] masks of equal density.
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

const FITTED: usize = 480;
pub(super) const HELD_OUT_LENGTHS: [u32; 6] = [64, 128, 197, 256, 512, 1024];
const SETS: usize = 8;
const HEADS: u32 = 4;

/// Fitted masks are drawn over lengths, head widths, block sizes, densities, precisions and both softmaxes, and computed as
/// they are; those held out mix block sizes and precisions from head to head, as blueprints do, and are computed as is
/// fastest.
pub(super) fn draw(kernel: Kernel, threads: NonZeroUsize, seed: u64) -> Result<All, MeasureError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let fit = (0..FITTED).map(|_| {
        let tokens = (33.0 * 2.0_f64.powf(rng.random_range(0.0..5.25))).round() as u32;
        let head_dim = *[16, 32, 64, 64, 64, 128].choose(&mut rng).unwrap_or(&64);
        let spread = spread(&mut rng, None);
        let softmax = if rng.random_bool(0.2) { Softmax::Integer } else { Softmax::Float };
        let workload = Workload::draw(HEADS, tokens, head_dim, |_| spread, rng.random())?;
        Drawn::new(workload, softmax, kernel, threads, Promotion::Never)
    });
    let fit = fit.collect::<Result<_, _>>()?;
    let held_out = HELD_OUT_LENGTHS.iter().map(|tokens| {
        let sets = (0..SETS).map(|_| {
            let density = density(&mut rng);
            let candidates = (0..CANDIDATES).map(|_| {
                let heads: Vec<Spread> = (0..HEADS).map(|_| spread(&mut rng, Some(density))).collect();
                let workload = Workload::draw(HEADS, *tokens, 64, |head| heads[head as usize], rng.random())?;
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
