use std::{
    fs,
    hint::black_box,
    num::NonZeroUsize,
    thread,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use maskwright_blueprint::AttentionShape;
use maskwright_kernels::{AttentionPlan, Int8Softmax, Kernel, Phases, PlanOptions, Promotion, Workspace};

use super::{MeasureError, Tensors, Workload};

/// What the caches hold when a call begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Inputs {
    /// The call's own inputs, as far as they fit: it has just run, several times where that takes little.
    Hot,
    /// Something else: more memory than the last cache holds was written before each call.
    Cold,
}

/// One plan with the memory it runs in.
pub(crate) struct Bench {
    plan: AttentionPlan,
    workspace: Workspace,
}

/// Hot calls before a sample, as long as they take no longer together: after something else, caches and branch predictors hold
/// what a call needs from the fifth on.
const WARM_UP_CALLS: u32 = 4;
const WARM_UP: Duration = Duration::from_millis(4);

/// How often a bench is timed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sampling {
    /// A sample of hot calls lasts at least this long, as many calls as that takes; its figure is their mean.
    pub(crate) least: Duration,
    pub(crate) inputs: Inputs,
}

/// Seconds of one call, one figure for each sample, least first. Never empty where it is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timings {
    sorted: Vec<f64>,
}

impl Inputs {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
        }
    }
}

impl Bench {
    pub(crate) fn new(
        workload: &Workload,
        kernel: Kernel,
        threads: NonZeroUsize,
        int8_softmax: Int8Softmax,
        promotion: Promotion,
    ) -> Result<Self, MeasureError> {
        let limit = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        if threads.get() > limit {
            return Err(MeasureError::Threads { found: threads.get(), limit });
        }
        let options = PlanOptions::new()?.kernel(kernel).threads(threads);
        let options = options.int8_softmax(int8_softmax).promotion(promotion);
        let plan = AttentionPlan::with_options(&workload.masks, workload.shape, options)?;
        let workspace = plan.workspace();
        Ok(Self { plan, workspace })
    }

    /// Blocks that are computed more finely than the mask says.
    pub(crate) fn promoted_blocks(&self) -> usize {
        self.plan.promoted_blocks()
    }

    /// Runs once, on the first values of `tensors`, which may hold more.
    pub(crate) fn run(&mut self, tensors: &Tensors, out: &mut [f32]) -> Result<(), MeasureError> {
        let (inputs, out) = self.first(tensors, out);
        self.plan.run(inputs, out, &mut self.workspace)?;
        Ok(())
    }

    /// Where the time of one call on one thread goes.
    pub(crate) fn phases(
        &mut self,
        tensors: &Tensors,
        out: &mut [f32],
        inputs: Inputs,
    ) -> Result<Phases, MeasureError> {
        match inputs {
            Inputs::Hot => self.warm(tensors, out)?,
            Inputs::Cold => evict(),
        }
        let (inputs, out) = self.first(tensors, out);
        Ok(self.plan.run_in_phases(inputs, out, &mut self.workspace)?)
    }

    /// As many values as the plan's shape has.
    fn first<'a>(&self, tensors: &'a Tensors, out: &'a mut [f32]) -> (maskwright_kernels::Inputs<'a>, &'a mut [f32]) {
        let AttentionShape { heads, queries, keys, head_dim, .. } = *self.plan.shape();
        let len = |tokens: u32| heads as usize * tokens as usize * head_dim as usize;
        fn first(values: &[f32], len: usize) -> &[f32] {
            values.get(..len).unwrap_or(values)
        }
        let (q, k, v) = (first(&tensors.q, len(queries)), first(&tensors.k, len(keys)), first(&tensors.v, len(keys)));
        let end = len(queries).min(out.len());
        (maskwright_kernels::Inputs::new(q, k, v), &mut out[..end])
    }

    /// What the caches hold of something else is gone then.
    fn warm(&mut self, tensors: &Tensors, out: &mut [f32]) -> Result<(), MeasureError> {
        let begun = Instant::now();
        for _ in 0..WARM_UP_CALLS {
            self.run(tensors, out)?;
            if begun.elapsed() > WARM_UP {
                break;
            }
        }
        Ok(())
    }

    /// Seconds of one call; see [`Sampling`].
    pub(crate) fn sample(
        &mut self,
        tensors: &Tensors,
        out: &mut [f32],
        sampling: Sampling,
    ) -> Result<f64, MeasureError> {
        if sampling.inputs == Inputs::Cold {
            evict();
            let begun = Instant::now();
            self.run(tensors, out)?;
            return Ok(begun.elapsed().as_secs_f64());
        }
        self.warm(tensors, out)?;
        let begun = Instant::now();
        let mut calls = 0_u32;
        while calls == 0 || begun.elapsed() < sampling.least {
            self.run(tensors, out)?;
            calls += 1;
        }
        Ok(begun.elapsed().as_secs_f64() / f64::from(calls))
    }
}

impl Timings {
    pub(crate) fn add(&mut self, seconds: f64) {
        let at = self.sorted.partition_point(|other| *other < seconds);
        self.sorted.insert(at, seconds);
    }

    /// The sample below which `share` of the others lie.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let last = self.sorted.len().saturating_sub(1) as f64;
        self.sorted.get((share * last).round() as usize).copied().unwrap_or(0.0)
    }

    pub(crate) fn median(&self) -> f64 {
        let middle = self.sorted.len().saturating_sub(1);
        let half = |at: usize| self.sorted.get(at).copied().unwrap_or(0.0);
        half(middle / 2).midpoint(half(middle.div_ceil(2)))
    }

    pub(crate) fn least(&self) -> f64 {
        self.quantile(0.0)
    }

    /// How much longer the middle sample took than the least: what disturbed half of them. 0 on a quiet machine.
    pub(crate) fn spread(&self) -> f64 {
        self.median() / self.least() - 1.0
    }
}

/// Writes more than the caches hold.
fn evict() {
    let mut other = vec![0_u8; cache_bytes()];
    other.fill(black_box(1));
    black_box(&other);
}

/// Twice the largest cache that the system tells of, else 64 MiB.
fn cache_bytes() -> usize {
    let sizes = (0..5).filter_map(|index| {
        let text = fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size")).ok()?;
        text.trim().strip_suffix('K')?.parse::<usize>().ok()
    });
    sizes.max().map_or(64 << 20, |kib| (2 * kib) << 10).min(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_samples() {
        let mut timings = Timings::default();
        for seconds in [5.0, 1.0, 4.0, 2.0, 3.0, 6.0] {
            timings.add(seconds);
        }
        assert_eq!((timings.least(), timings.median(), timings.quantile(0.9)), (1.0, 3.5, 6.0));
        assert_eq!(timings.spread(), 2.5);
    }
}
