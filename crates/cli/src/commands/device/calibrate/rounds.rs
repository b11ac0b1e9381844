use std::time::{Duration, Instant};

use maskwright_kernels::{Kernel, peak};

use super::{
    samples::All,
    template::{self, Cache},
};
use crate::{
    arguments::CalibrateArguments,
    error::CliError,
    measure::{Inputs, MeasureError, Peaks, Placements, Sampling, undisturbed},
    steps::Steps,
};

/// What the machine reached, and how often everything was timed.
pub(super) struct Measured {
    pub(super) peaks: Peaks,
    /// Bytes a second that one core reads of each cache, innermost first, and of main memory.
    pub(super) caches: Vec<(Cache, f64)>,
    pub(super) memory_bytes_per_s: f64,
    pub(super) rounds: u32,
}

/// Where time allows. With half as many, masks of like times change places.
const LEAST_ROUNDS: u32 = 72;
const MOST_ROUNDS: u32 = 240;

/// Rounds stop when the sum of all times has changed by less than this share in the last [`LOOK_BACK`] of them.
const SETTLED: f64 = 0.002;
const LOOK_BACK: usize = 8;

/// Moments of a round at which peaks are measured: no product may be fitted faster than they are, so that a machine which is
/// busy at all of them would make every mask look slow.
const PEAKS_A_ROUND: usize = 4;

/// Larger than any cache that a core has for itself.
const MAIN_MEMORY: usize = 256 << 20;

/// Times every mask in turn, round after round, until each has been undisturbed a few times and these times hardly change.
pub(super) fn measure(drawn: &mut All, kernel: Kernel, arguments: &CalibrateArguments) -> Result<Measured, CliError> {
    let begun = Instant::now();
    let limit = Duration::from_secs(arguments.at_most.into());
    let largest = drawn.iter().map(|of| of.workload.values()).max().unwrap_or(0);
    let mut placements = Placements::of_values(largest, arguments.seed);
    let caches = template::caches().into_iter().map(|cache| (cache, 0.0)).collect();
    let mut measured = Measured { peaks: Peaks::default(), caches, memory_bytes_per_s: 0.0, rounds: 0 };
    let steps = Steps::new("calibration", MOST_ROUNDS.into());
    let (masks, mut samples, mut sums) = (drawn.iter().count(), Vec::new(), Vec::new());
    while measured.rounds < MOST_ROUNDS {
        measured.reach(kernel)?;
        for (at, of) in drawn.iter_mut().enumerate() {
            if at % (masks / PEAKS_A_ROUND).max(1) == 0 {
                measured.peaks.improve(kernel).map_err(MeasureError::from)?;
            }
            let sampling = Sampling { least: Duration::from_micros(100), inputs: Inputs::Hot };
            let (tensors, out) = placements.of_sample(measured.rounds as usize, at);
            let seconds = of.bench.sample(tensors, out, sampling)?;
            of.timings.add(seconds);
            samples.push(seconds);
        }
        measured.rounds += 1;
        let found = undisturbed(&samples, masks);
        let all_quiet = found.iter().all(|of| of.quiet);
        for (of, found) in drawn.iter_mut().zip(&found) {
            of.seconds = found.seconds;
        }
        sums.push(drawn.iter().map(|of| of.seconds).sum::<f64>());
        steps.advance(&format!("round {}", measured.rounds));
        let settled = match (sums.last(), sums.iter().rev().nth(LOOK_BACK)) {
            (Some(now), Some(before)) => (before - now).abs() < SETTLED * now,
            _ => false,
        };
        if begun.elapsed() > limit || (settled && all_quiet && measured.rounds >= LEAST_ROUNDS) {
            break;
        }
    }
    Ok(measured)
}

impl Measured {
    /// Measures bandwidths once more, and keeps what is better.
    fn reach(&mut self, kernel: Kernel) -> Result<(), MeasureError> {
        for (cache, best) in &mut self.caches {
            // A part, so that what else lies in the cache does not count.
            *best = best.max(peak::read_bytes_per_second(kernel, cache.bytes / 8 * 5)?);
        }
        if self.rounds < 2 {
            self.memory_bytes_per_s = self.memory_bytes_per_s.max(peak::read_bytes_per_second(kernel, MAIN_MEMORY)?);
        }
        Ok(())
    }
}
