use std::{num::NonZeroUsize, path::Path, time::Duration};

use maskwright_blueprint::{BlockSize, Blueprint, Measured, Seconds};
use maskwright_cost_model::DeviceProfile;
use maskwright_kernels::{Int8Softmax, Kernel, Promotion};

use super::finest;
use crate::{
    arguments::CostArguments,
    error::CliError,
    measure::{Bench, Floats, Host, Inputs, MeasureError, Sampling, Tensors, Timings, Workload},
    steps::Steps,
};

/// Samples of each module.
const SAMPLES: u64 = 15;

/// Samples of hot calls last at least this long.
const SAMPLE: Duration = Duration::from_micros(200);

/// A module that is timed, under its masks or dense.
struct Timed {
    /// Times that an example passes through the module.
    windows: f64,
    bench: Bench,
    timings: Timings,
}

/// Runs the attention of a blueprint's modules on this machine, and the dense one in turn with it: sums of medians, inputs
/// in the caches.
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
    let (mut masked, mut whole, mut values) = (Vec::new(), Vec::new(), 0);
    for (to, blueprint) in [(&mut masked, blueprint), (&mut whole, &dense)] {
        for (module, masks) in blueprint.model().modules.iter().zip(blueprint.masks()) {
            let workload = Workload::of(module.shape, masks.clone())?;
            values = values.max(workload.values());
            let bench = Bench::new(&workload, kernel, threads, softmax, Promotion::default())?;
            to.push(Timed { bench, windows: f64::from(module.shape.windows), timings: Timings::default() });
        }
    }
    let tensors = Tensors::of_values(values, 1);
    let mut out = Floats::zeroed(values);
    let steps = Steps::new("measuring", SAMPLES);
    for _ in 0..SAMPLES {
        for timed in masked.iter_mut().chain(&mut whole) {
            let sampling = Sampling { least: SAMPLE, inputs: Inputs::Hot };
            timed.timings.add(timed.bench.sample(&tensors, &mut out, sampling)?);
        }
        steps.advance("");
    }
    let sum = |of: &[Timed]| Seconds(of.iter().map(|timed| timed.windows * timed.timings.median()).sum());
    let (seconds, dense) = (sum(&masked), sum(&whole));
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
