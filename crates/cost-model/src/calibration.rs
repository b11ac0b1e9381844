//! Fitting a profile to timings of real kernels on one machine.

use maskwright_blueprint::{Precision, Seconds};
use serde::{Deserialize, Serialize};

use crate::{
    CostError, CostModel, Dataflow, DeviceProfile, Figure, ModuleWork, Softmax, Units, Work,
    kernel_times::{self, RATES, Rates},
    least_squares::least_squares,
    machine::Machine,
    plan::{native_rows, packed_elements},
};

/// One timed call: all heads of one attention module of one example.
#[derive(Debug, Clone)]
pub struct Sample {
    pub module: ModuleWork,
    /// Measured, of a call that nothing else disturbed.
    pub seconds: Seconds,
}

/// A profile that was fitted to timings, and how well it predicts timings that it was not fitted to.
#[derive(Debug, Clone)]
pub struct Calibration {
    pub profile: DeviceProfile,
    pub held_out: PredictionError,
}

/// Predicted against measured times.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictionError {
    /// Pairs that were compared.
    pub samples: usize,
    /// Relative errors without their sign: mean, median, 95th percentile.
    pub mean: f64,
    pub median: f64,
    pub percentile_95: f64,
    /// Share of the predictions that are within a tenth of the measurement.
    pub within_tenth: f64,
    /// Spearman's: 1 when the predictions are in the measurements' order.
    pub rank_correlation: f64,
    /// How much slower the candidate with the least prediction is than the one with the least measurement.
    pub pick_regret: f64,
}

/// What the fit finds, each a coefficient of a count in [`counts`].
const COEFFICIENTS: usize = 10;

/// Fits what a profile says of one machine's products, softmax and overheads to timings, by non-negative least squares on
/// relative errors, and keeps everything else: peaks, memory, energy.
///
/// The template's units have to be [`Units::Shared`]: only then is time a sum. `note` becomes part of the source of each
/// fitted number: machine, threads, date.
pub fn calibrate(
    template: &DeviceProfile,
    fit: &[Sample],
    held_out: &[Sample],
    note: &str,
) -> Result<Calibration, CostError> {
    if template.units != Units::Shared || fit.len() < 2 * COEFFICIENTS || held_out.is_empty() {
        return Err(CostError::Calibration { fit: fit.len(), least: 2 * COEFFICIENTS, held_out: held_out.len() });
    }
    let machine = Machine::of(template);
    let rows: Vec<[f64; COEFFICIENTS]> = fit
        .iter()
        .map(|sample| {
            let measured = sample.seconds.0 * machine.hertz * machine.cores;
            counts(&machine, &sample.module).map(|count| count / measured)
        })
        .collect();
    let profile = fitted(
        template,
        &machine,
        least_squares(&rows, [0.0; COEFFICIENTS]),
        &format!("{} timings, {note}", fit.len()),
    );
    Calibration::of(profile, held_out)
}

/// As [`calibrate`], and fits [`KernelTimes`](crate::KernelTimes) beside it: what our own kernels
/// take. The timings are of those, with their inputs in the caches; those to fit are of blocks computed as their masks say,
/// none more finely.
///
/// What the units reach is fitted to blocks of at least a native tile, as units know no smaller ones.
pub fn calibrate_kernels(
    template: &DeviceProfile,
    fit: &[Sample],
    held_out: &[Sample],
    note: &str,
) -> Result<Calibration, CostError> {
    let machine = Machine::of(template);
    let whole_tiles =
        |sample: &&Sample| sample.module.heads.iter().all(|head| head.block_size.tokens() >= machine.tile_queries);
    let whole_tiles: Vec<Sample> = fit.iter().filter(whole_tiles).cloned().collect();
    let mut profile = calibrate(template, &whole_tiles, held_out, note)?.profile;
    // Each account has timings enough of its own.
    let least = 2 * (RATES + 1);
    let by_vectors = |sample: &&Sample| {
        let ModuleWork { shape, heads, .. } = &sample.module;
        heads.iter().any(|head| machine.multiplies_by_vectors(head.block_size, shape.head_dim, head.is_single()))
    };
    let of_vectors = fit.iter().filter(by_vectors).count();
    let others = fit.len() - of_vectors;
    let fewest = if profile.matrix.heads.is_some() { of_vectors.min(others) } else { fit.len() };
    if fewest < least {
        return Err(CostError::Calibration { fit: fewest, least, held_out: held_out.len() });
    }
    // What was fitted before is no part of the model that is fitted now.
    (profile.kernels, profile.vector_kernels) = (None, None);
    // What a call costs beside its heads: the model's own share of it is not fitted.
    profile.overheads.launch_seconds.value = 0.0;
    let model = CostModel::new(&profile, Dataflow::Flash, 1)?;
    // No product of vectors is faster than the unit's.
    let floors = [kernel_times::floors(&machine); 2];
    let floors = std::array::from_fn(|at| floors.as_flattened().get(at).copied().unwrap_or(0.0));
    let rows: Vec<[f64; COLUMNS]> = fit
        .iter()
        .map(|Sample { module, seconds }| {
            // As `CostModel::module` has it once kernels are timed.
            let first_load = match kernel_times::fits_the_caches(&machine, &module.shape) {
                true => 0.0,
                false => model.module(&module.shape, module.softmax).seconds().0.min(0.5 * seconds.0),
            };
            let measured = (seconds.0 - first_load) * machine.hertz * machine.cores;
            let counts = kernel_times::counts(&machine, module);
            std::array::from_fn(|at| counts.as_flattened().get(at).copied().unwrap_or(1.0) / measured)
        })
        .collect();
    let found = least_squares(&rows, floors);
    let figure =
        |value: f64| Figure { value, source: format!("fitted to {} timings, {note}", fit.len()), verified: true };
    profile.kernels = Some(Rates::times(std::array::from_fn(|at| found[at]), figure));
    if profile.matrix.heads.is_some() {
        profile.vector_kernels = Some(Rates::times(std::array::from_fn(|at| found[RATES + at]), figure));
    }
    profile.overheads.launch_seconds = figure(found[COLUMNS - 1] / machine.hertz / machine.cores);
    Calibration::of(profile, held_out)
}

/// What our kernels are fitted to: [`kernel_times::counts`], and a call.
const COLUMNS: usize = 2 * RATES + 1;

impl Calibration {
    fn of(profile: DeviceProfile, held_out: &[Sample]) -> Result<Self, CostError> {
        let model = CostModel::new(&profile, Dataflow::Flash, 1)?;
        let pairs = held_out.iter().map(|sample| {
            let work = Work { modules: vec![sample.module.clone()], linears: vec![], elementwise: 0 };
            Ok((model.attention(&work)?.seconds, sample.seconds))
        });
        let held_out = PredictionError::of(&pairs.collect::<Result<Vec<_>, CostError>>()?);
        Ok(Self { profile, held_out })
    }
}

/// Cycles of one core that each coefficient is multiplied with: products at the peak rate by precision, softmax in floating
/// point and in integers, blocks, runs, rows, packed elements, calls.
fn counts(machine: &Machine, module: &ModuleWork) -> [f64; COEFFICIENTS] {
    let mut counts = [0.0; COEFFICIENTS];
    counts[9] = 1.0;
    let shape = &module.shape;
    for head in &module.heads {
        for band in head.bands_of(machine.tile_queries) {
            let queries = machine.padded_queries(band.queries);
            for (precision, keys) in Precision::ALL.into_iter().zip(band.keys_by_precision()) {
                if keys == 0 {
                    continue;
                }
                let padded = f64::from(keys.next_multiple_of(machine.tile_keys));
                counts[precision.index()] +=
                    2.0 * padded * queries * f64::from(shape.head_dim) / machine.peak_rate(precision);
                let integer = precision == Precision::Int8 && module.softmax == Softmax::Integer;
                counts[if integer { 4 } else { 3 }] += f64::from(keys) * queries / machine.lanes;
                counts[6] += 1.0;
            }
        }
        counts[5] += head.active_blocks() as f64;
        counts[7] += native_rows(machine, head);
        counts[8] += packed_elements(head, shape);
    }
    counts
}

/// The template with fitted numbers; what no timing said anything about stays.
fn fitted(template: &DeviceProfile, machine: &Machine, found: [f64; COEFFICIENTS], note: &str) -> DeviceProfile {
    let mut profile = template.clone();
    let set = |figure: &mut Figure, value: f64| {
        *figure = Figure { value, source: format!("fitted to {note}"), verified: true };
    };
    // A coarser precision is at least as fast as a finer one, which the device could use instead: as fast as its own peak
    // allows, and where that is less, the finer one is no faster.
    let (mut reached, mut finer) = ([0.0; Precision::ALL.len()], 0.0);
    for precision in profile.precisions().into_iter().rev() {
        let peak = machine.peak_rate(precision);
        let own = if found[precision.index()] > 0.0 { (1.0 / found[precision.index()]).min(1.0) } else { 1.0 };
        finer = (peak * own).max(finer).min(peak);
        reached[precision.index()] = finer;
    }
    let mut coarser = f64::INFINITY;
    for precision in profile.precisions() {
        coarser = reached[precision.index()].min(coarser);
        if let Some(figure) = profile.matrix.utilisation.get_mut(&precision) {
            set(figure, coarser / machine.peak_rate(precision));
        }
    }
    let (vector, overheads) = (&mut profile.vector, &mut profile.overheads);
    if found[3] > 0.0 {
        set(&mut vector.softmax_lane_cycles, found[3]);
    }
    let float = vector.softmax_lane_cycles.value;
    let integer = if found[4] > 0.0 { found[4] } else { vector.integer_softmax_lane_cycles.value };
    set(&mut vector.integer_softmax_lane_cycles, integer.min(float));
    set(&mut overheads.block_cycles, found[5]);
    set(&mut overheads.run_cycles, found[6]);
    set(&mut overheads.row_cycles, found[7]);
    set(&mut overheads.pack_cycles, found[8]);
    set(&mut overheads.launch_seconds, found[9] / machine.hertz / machine.cores);
    profile
}

impl PredictionError {
    /// Of pairs of a predicted and a measured time; of none, every figure is zero.
    pub fn of(pairs: &[(Seconds, Seconds)]) -> Self {
        let mut errors: Vec<f64> =
            pairs.iter().map(|(predicted, measured)| (*predicted / *measured - 1.0).abs()).collect();
        errors.sort_by(f64::total_cmp);
        let count = errors.len().max(1) as f64;
        let quantile = |share: f64| errors.get((share * (count - 1.0)).round() as usize).copied().unwrap_or(0.0);
        let picked = pairs.iter().min_by(|a, b| a.0.0.total_cmp(&b.0.0));
        let best = pairs.iter().min_by(|a, b| a.1.0.total_cmp(&b.1.0));
        Self {
            samples: pairs.len(),
            mean: errors.iter().sum::<f64>() / count,
            median: quantile(0.5),
            percentile_95: quantile(0.95),
            within_tenth: errors.iter().filter(|error| **error <= 0.1).count() as f64 / count,
            rank_correlation: rank_correlation(pairs),
            pick_regret: picked.zip(best).map_or(0.0, |(picked, best)| picked.1 / best.1 - 1.0),
        }
    }
}

/// Spearman's rank correlation; equal values share the mean of their ranks.
fn rank_correlation(pairs: &[(Seconds, Seconds)]) -> f64 {
    let ranks = |value: fn(&(Seconds, Seconds)) -> f64| {
        let values: Vec<f64> = pairs.iter().map(value).collect();
        let rank = |of: f64| {
            let below = values.iter().filter(|other| **other < of).count() as f64;
            let equal = values.iter().filter(|other| **other == of).count() as f64;
            below + (equal - 1.0) / 2.0
        };
        values.iter().map(|value| rank(*value)).collect::<Vec<_>>()
    };
    let (predicted, measured) = (ranks(|pair| pair.0.0), ranks(|pair| pair.1.0));
    let middle = (pairs.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - middle) * (b - middle)).sum::<f64>();
    let spread = (product(&predicted, &predicted) * product(&measured, &measured)).sqrt();
    if spread > 0.0 { product(&predicted, &measured) / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_four_predictions_are_what_a_reader_counts() {
        let pairs = [(1.0, 1.0), (2.1, 2.0), (3.0, 4.0), (2.9, 5.0)].map(|(a, b)| (Seconds(a), Seconds(b)));
        let error = PredictionError::of(&pairs);
        assert_eq!(error.samples, 4);
        assert_eq!(error.within_tenth, 0.5); // 0 %, 5 %, 25 %, 42 %
        assert!((error.mean - (0.0 + 0.05 + 0.25 + 0.42) / 4.0).abs() < 1e-12);
        assert!((error.rank_correlation - 0.8).abs() < 1e-12); // one neighbouring pair swapped: 1 - 6 * 2 / 60
        assert_eq!(error.pick_regret, 0.0);
    }
}
