use std::{
    num::NonZeroUsize,
    path::Path,
    time::{Duration, Instant},
};

use maskwright_blueprint::{BlockSize, Blueprint, Measured, Seconds};
use maskwright_cost_model::DeviceProfile;
use maskwright_kernels::{Int8Softmax, Kernel, Promotion};

use super::finest;
use crate::{
    arguments::CostArguments,
    error::CliError,
    measure::{Bench, Host, Inputs, MeasureError, Placements, Sampling, Workload, undisturbed},
    steps::Steps,
};

/// Samples of each module at least, which is what progress counts.
const LEAST_ROUNDS: usize = 15;

/// For so long samples are taken at least: where a core's other thread is somebody else's, a host takes .1 to 2 seconds to move
/// that away.
const LEAST: Duration = Duration::from_secs(2);

/// Samples of hot calls last at least this long.
const SAMPLE: Duration = Duration::from_micros(200);

/// A module that is timed, under its masks or dense.
struct Timed {
    /// Times that an example passes through the module.
    windows: f64,
    bench: Bench,
}

/// Runs the attention of a blueprint's modules on this machine, and the dense one in turn with it: sums of the middle ones of
/// the least disturbed samples, inputs in the caches.
pub(super) fn measure(
    blueprint: &Blueprint,
    device: &DeviceProfile,
    arguments: &CostArguments,
) -> Result<Measured, CliError> {
    let kernel = Kernel::from_environment().map_err(MeasureError::from)?;
    let host = Host::of(kernel);
    let record = device
        .calibrated
        .as_ref()
        .filter(|record| record.cpu == host.cpu)
        .ok_or_else(|| CliError::OtherMachine { device: device.name.clone(), cpu: host.cpu.clone() })?;
    let threads = NonZeroUsize::new(record.threads as usize).unwrap_or(NonZeroUsize::MIN);
    let softmax: Int8Softmax = arguments.softmax.into();
    let dense = Blueprint::dense(blueprint.model().clone(), BlockSize::B32, finest(device));
    let (mut all, mut values) = (Vec::new(), 0);
    for blueprint in [blueprint, &dense] {
        for (module, masks) in blueprint.model().modules.iter().zip(blueprint.masks()) {
            let workload = Workload::of(module.shape, masks.clone())?;
            values = values.max(workload.values());
            let bench = Bench::new(&workload, kernel, threads, softmax, Promotion::default())?;
            all.push(Timed { bench, windows: f64::from(module.shape.windows) });
        }
    }
    let mut placements = Placements::of_values(values, 1);
    let (begun, steps) = (Instant::now(), Steps::new("measuring", LEAST_ROUNDS as u64));
    let (mut samples, mut rounds) = (Vec::new(), 0);
    while rounds < LEAST_ROUNDS || begun.elapsed() < LEAST {
        for (at, timed) in all.iter_mut().enumerate() {
            let (tensors, out) = placements.of_sample(rounds, at);
            let sampling = Sampling { least: SAMPLE, inputs: Inputs::Hot };
            samples.push(timed.bench.sample(tensors, out, sampling)?);
        }
        rounds += 1;
        if rounds <= LEAST_ROUNDS {
            steps.advance("");
        }
    }
    let found = undisturbed(&samples, all.len());
    let times: Vec<f64> = all.iter().zip(found).map(|(timed, of)| timed.windows * of.seconds).collect();
    let (masked, whole) = times.split_at(blueprint.model().modules.len());
    let [seconds, dense] = [masked, whole].map(|times| Seconds(times.iter().sum()));
    Ok(Measured {
        cpu: host.cpu,
        kernel: kernel.name().into(),
        threads: threads.get() as u32,
        seconds,
        speedup: dense / seconds,
    })
}

/// Puts what was measured into the blueprint's file.
pub(super) fn record(path: &Path, mut blueprint: Blueprint, measured: Measured) -> Result<(), CliError> {
    if path.extension().is_none_or(|extension| extension != "ron") {
        return Err(CliError::RecordForm { path: path.into() });
    }
    blueprint.provenance.measured = Some(measured);
    maskwright_blueprint::write_whole(path, blueprint.to_ron().as_bytes())
        .map_err(|source| CliError::Write { path: path.into(), source })
}
