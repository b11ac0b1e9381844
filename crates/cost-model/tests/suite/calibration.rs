use std::sync::Arc;

use maskwright_blueprint::{AttentionKind, AttentionShape, BlockMask, BlockSize, HeadMask, Precision, Seconds};
use maskwright_cost_model::{
    CostModel, Dataflow, DeviceProfile, HeadWork, ModuleWork, Sample, Softmax, Work, calibrate,
};

/// A mask whose blocks and precisions are scattered by a fixed rule.
fn mask(shape: &AttentionShape, block_size: BlockSize, density: u32, kind: u32) -> HeadMask {
    let (rows, columns) = (block_size.cover(shape.queries), block_size.cover(shape.keys));
    let cell = |at: u32| {
        let mixed = at.wrapping_mul(2_654_435_761) >> 16;
        let precision = match kind {
            3 => Precision::ALL[(mixed / 128 % 3) as usize],
            _ => Precision::ALL[kind as usize],
        };
        (at.is_multiple_of(columns) || mixed % 100 < density).then_some(precision)
    };
    HeadMask { block_size, blocks: BlockMask::new(columns as usize, (0..rows * columns).map(cell).collect()).unwrap() }
}

/// Calls over lengths, block sizes, densities and precisions, as long as `profile` says they take.
fn timings(profile: &DeviceProfile, lengths: &[u32], noise: f64) -> Vec<Sample> {
    let model = CostModel::new(profile, Dataflow::Flash, 1).unwrap();
    let mut samples = Vec::new();
    for &tokens in lengths {
        let shape = AttentionShape {
            kind: AttentionKind::CrossAttention,
            heads: 4,
            queries: tokens,
            keys: tokens,
            head_dim: 64,
        };
        for block_size in BlockSize::ALL {
            for density in [10, 30, 60, 100] {
                for kind in 0..4 {
                    let head = Arc::new(HeadWork::of(&mask(&shape, block_size, density, kind), &shape));
                    for softmax in [Softmax::Float, Softmax::Integer] {
                        let heads = vec![Arc::clone(&head); 4];
                        let module = ModuleWork { name: "timed".into(), shape, softmax, heads };
                        let work = Work { modules: vec![module.clone()], linears: vec![], elementwise: 0 };
                        let sign = if samples.len() % 2 == 0 { 1.0 } else { -1.0 };
                        let seconds = model.attention(&work).unwrap().seconds * (1.0 + sign * noise);
                        samples.push(Sample { module, seconds });
                    }
                }
            }
        }
    }
    samples
}

/// A core like `cpu-avx512` with other coefficients.
fn unknown_core() -> DeviceProfile {
    let mut core = DeviceProfile::named("cpu-avx512").unwrap();
    for (precision, share) in Precision::ALL.into_iter().zip([0.7, 0.8, 0.9]) {
        core.matrix.utilisation.get_mut(&precision).unwrap().value = share;
    }
    core.vector.softmax_lane_cycles.value = 14.0;
    core.vector.integer_softmax_lane_cycles.value = 4.0;
    core.overheads.block_cycles.value = 80.0;
    core.overheads.run_cycles.value = 250.0;
    core.overheads.row_cycles.value = 600.0;
    core.overheads.pack_cycles.value = 0.4;
    core
}

#[test]
fn a_fit_to_timings_of_a_core_predicts_lengths_that_were_not_timed() {
    let (template, core) = (DeviceProfile::named("cpu-avx512").unwrap(), unknown_core());
    // Every timing is 2 % off, half of them up.
    let fit = timings(&core, &[128, 512], 0.02);
    let held_out = timings(&core, &[64, 256, 1024], 0.0);
    let calibration = calibrate(&template, &fit, &held_out, "a test").unwrap();
    let error = calibration.held_out;
    assert_eq!(error.samples, 3 * 3 * 4 * 4 * 2);
    assert!(error.mean < 0.04 && error.within_tenth > 0.97, "{error:?}");
    assert!(error.rank_correlation > 0.995 && error.pick_regret < 0.02, "{error:?}");
    assert_eq!(calibration.profile.problems(), Vec::<String>::new());
    let source = &calibration.profile.overheads.block_cycles.source;
    assert_eq!(source, "fitted to 192 timings, a test");

    // The template itself would have been much further off.
    let model = CostModel::new(&template, Dataflow::Flash, 1).unwrap();
    let uncalibrated: f64 = held_out
        .iter()
        .map(|sample| {
            let work = Work { modules: vec![sample.module.clone()], linears: vec![], elementwise: 0 };
            (model.attention(&work).unwrap().seconds / sample.seconds - 1.0).abs()
        })
        .sum();
    assert!(uncalibrated / held_out.len() as f64 > 4.0 * error.mean);
}

#[test]
fn a_calibration_without_enough_timings_is_refused() {
    let template = DeviceProfile::named("cpu-avx512").unwrap();
    let held_out = Sample { seconds: Seconds(1.0), ..timings(&template, &[64], 0.0).remove(0) };
    let error = calibrate(&template, &[], &[held_out], "a test").unwrap_err().to_string();
    assert!(error.contains("20 timings to fit"), "{error}");
}
