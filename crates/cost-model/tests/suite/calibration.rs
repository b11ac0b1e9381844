use std::{collections::BTreeMap, path::Path, sync::Arc};

use maskwright_blueprint::{
    AttentionKind, AttentionShape, BlockMask, BlockSize, HeadMask, Precision, Seconds, parse_ron,
};
use maskwright_cost_model::{
    Bound, CostModel, Dataflow, DeviceProfile, Figure, HeadWork, KernelTimes, MatrixHeads, ModuleWork, Sample, Softmax,
    Work, calibrate, calibrate_kernels,
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
            windows: 1,
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
fn a_coarse_precision_that_is_slower_takes_nothing_from_a_finer_one() {
    let (template, core) = (DeviceProfile::named("cpu-avx512").unwrap(), unknown_core());
    let mut fit = timings(&core, &[128, 512], 0.0);
    fit.retain(|sample| sample.module.heads[0].blocks.iter().filter(|blocks| **blocks > 0).count() == 1);
    // 16-bit products that are put together from other instructions.
    for sample in fit.iter_mut().filter(|sample| sample.module.heads[0].blocks[Precision::Half.index()] > 0) {
        sample.seconds = sample.seconds * 4.0;
    }
    let profile = calibrate(&template, &fit, &fit, "a test").unwrap().profile;
    let share = |precision| profile.matrix.utilisation[&precision].value;
    assert!(share(Precision::Single) > 0.8, "{:?}", profile.matrix.utilisation);
    assert_eq!(profile.problems(), Vec::<String>::new());
}

#[test]
fn a_calibration_without_enough_timings_is_refused() {
    let template = DeviceProfile::named("cpu-avx512").unwrap();
    let held_out = Sample { seconds: Seconds(1.0), ..timings(&template, &[64], 0.0).remove(0) };
    let error = calibrate(&template, &[], &[held_out], "a test").unwrap_err().to_string();
    assert!(error.contains("20 timings to fit"), "{error}");
}

/// A core whose kernels take what no utilisation of units explains: a head, a tile and a run pay for beginning, and writing
/// outputs takes as long as many products. Packing is cheap, and so is a run, so that computing a block at a finer precision
/// never pays in heads of 64 features.
pub(crate) fn core_with_kernels() -> DeviceProfile {
    let figure = |value: f64| Figure { value, source: "a test".into(), verified: false };
    let by_precision = |of: [f64; 3]| Precision::ALL.into_iter().zip(of.map(figure)).collect::<BTreeMap<_, _>>();
    let mut core = unknown_core();
    core.kernels = Some(KernelTimes {
        product_cycles: by_precision([0.036, 0.068, 0.13]),
        softmax_cycles: by_precision([0.5, 0.6, 0.9]),
        integer_softmax_cycles: figure(0.4),
        block_cycles: figure(20.0),
        run_cycles: figure(60.0),
        mix_cycles: figure(80.0),
        tile_cycles: figure(240.0),
        output_cycles: figure(12.0),
        head_cycles: figure(700.0),
        pack_cycles: by_precision([0.08, 0.05, 0.1]),
        pack_key_cycles: figure(5.0),
        far_byte_cycles: figure(0.01),
        farther_byte_cycles: figure(0.005),
        crowded_byte_cycles: figure(0.02),
        far_word_cycles: figure(0.5),
        load_cycles: figure(0.05),
    });
    core
}

#[test]
fn a_fit_to_timings_of_kernels_finds_what_they_take() {
    let (template, core) = (DeviceProfile::named("cpu-avx512").unwrap(), core_with_kernels());
    assert_eq!(core.problems(), Vec::<String>::new());
    // None of which is computed more finely.
    let fit = timings(&core, &[64, 128, 512], 0.01);
    let held_out = timings(&core, &[96, 256, 197], 0.0);
    let calibration = calibrate_kernels(&template, &fit, &held_out, "a test").unwrap();
    let error = calibration.held_out;
    assert!(error.mean < 0.02 && error.within_tenth == 1.0 && error.rank_correlation > 0.998, "{error:?}");
    assert_eq!(calibration.profile.problems(), Vec::<String>::new());
    let found = calibration.profile.kernels.as_ref().unwrap();
    // All heads are 64 wide, so that products and softmax cannot be told apart.
    let of_key = 64.0 * found.product_cycles[&Precision::Single].value + found.softmax_cycles[&Precision::Single].value;
    assert!((of_key / (64.0 * 0.13 + 0.9) - 1.0).abs() < 0.02, "{of_key}");
    // Units alone cannot say it.
    let units = calibrate(&template, &fit, &held_out, "a test").unwrap().held_out;
    assert!(units.mean > 4.0 * error.mean, "{units:?}");
}

/// 8- and 16-bit blocks of 8 are multiplied by vectors, in thrice the time that a unit for matrices takes of the others. Beside those, 32 bit takes
/// longer than alone, and so does beginning a head or a tile.
pub(crate) fn core_with_a_unit_for_matrices() -> DeviceProfile {
    let mut core = core_with_kernels();
    core.matrix.heads = Some(MatrixHeads { least_block: 16, head_dim_multiple: 32 });
    let unit = core.kernels.as_mut().unwrap();
    let mut vectors = unit.clone();
    for precision in [Precision::Int8, Precision::Half] {
        vectors.product_cycles.get_mut(&precision).unwrap().value *= 3.0;
    }
    unit.product_cycles.get_mut(&Precision::Single).unwrap().value *= 1.2;
    unit.softmax_cycles.get_mut(&Precision::Single).unwrap().value *= 1.5;
    (unit.head_cycles.value, unit.tile_cycles.value) = (1600.0, 400.0);
    core.vector_kernels = Some(vectors);
    core
}

#[test]
fn a_head_of_32_bit_alone_takes_what_vectors_take() {
    let core = core_with_a_unit_for_matrices();
    let kind = AttentionKind::SelfAttention;
    let shape = AttentionShape { kind, heads: 1, queries: 128, keys: 128, head_dim: 64, windows: 1 };
    let seconds = |core: &DeviceProfile, precision| {
        let work = Work::bare(&shape, BlockSize::B16, precision).unwrap();
        CostModel::new(core, Dataflow::Flash, 1).unwrap().attention(&work).unwrap().seconds
    };
    let mut slower = core.clone();
    slower.vector_kernels.as_mut().unwrap().head_cycles.value += 1000.0;
    for (precision, more) in [(Precision::Int8, 0.0), (Precision::Half, 0.0), (Precision::Single, 1000.0)] {
        let found = (seconds(&slower, precision).0 - seconds(&core, precision).0) * core.clock_hz.value;
        assert!((found - more).abs() < 1e-3, "{precision}: {found}");
    }
}

#[test]
fn heads_that_the_unit_for_matrices_leaves_to_vectors_have_an_account_of_their_own() {
    let (mut template, core) = (DeviceProfile::named("cpu-avx512").unwrap(), core_with_a_unit_for_matrices());
    assert_eq!(core.problems(), Vec::<String>::new());
    let fit = timings(&core, &[64, 128, 512], 0.01);
    let held_out = timings(&core, &[96, 256, 197], 0.0);
    let of_one = calibrate_kernels(&template, &fit, &held_out, "a test").unwrap();
    template.matrix.heads = core.matrix.heads;
    let of_two = calibrate_kernels(&template, &fit, &held_out, "a test").unwrap();
    assert!(of_two.held_out.mean < 0.02 && of_one.held_out.mean > 0.05, "{:?} {:?}", of_two.held_out, of_one.held_out);
    let again = parse_ron::<DeviceProfile>(&of_two.profile.to_ron(), Path::new("host.ron")).unwrap();
    assert_eq!((again.vector_kernels, of_one.profile.vector_kernels), (of_two.profile.vector_kernels, None));
}

#[test]
fn accounts_of_vectors_and_heads_that_are_left_to_them_go_together() {
    let problems = |change: fn(&mut DeviceProfile)| {
        let mut core = core_with_a_unit_for_matrices();
        change(&mut core);
        core.problems().join("\n")
    };
    let together =
        "vector_kernels are those of heads that matrix.heads leaves out: both are there beside kernels, or neither";
    assert_eq!(problems(|core| core.vector_kernels = None), together);
    assert_eq!(problems(|core| core.matrix.heads = None), together);
    assert_eq!(problems(|core| core.kernels = None), together);
    let zero = |core: &mut DeviceProfile| core.matrix.heads.as_mut().unwrap().head_dim_multiple = 0;
    assert_eq!(problems(zero), "matrix.heads.head_dim_multiple is 0; it has to be one or more");
}

#[test]
fn products_with_fewer_than_three_vectors_wait_for_loads() {
    // Of one row of 16 queries at 32 bit, all that loads cost, in words of one query.
    let words = |blocks: usize, head_dim: u32| {
        let shape = AttentionShape {
            kind: AttentionKind::CrossAttention,
            heads: 1,
            queries: 16,
            keys: 64,
            head_dim,
            windows: 1,
        };
        let cells = (0..4).map(|at| (at < blocks).then_some(Precision::Single)).collect();
        let mask = HeadMask { block_size: BlockSize::B16, blocks: BlockMask::new(4, cells).unwrap() };
        let seconds = |load: f64| {
            let mut core = core_with_kernels();
            core.kernels.as_mut().unwrap().load_cycles.value = load;
            let heads = vec![Arc::new(HeadWork::of(&mask, &shape))];
            let module = ModuleWork { name: "one row".into(), shape, softmax: Softmax::Float, heads };
            let work = Work { modules: vec![module], linears: vec![], elementwise: 0 };
            CostModel::new(&core, Dataflow::Flash, 1).unwrap().attention(&work).unwrap().seconds.0
        };
        let machine = core_with_kernels();
        (seconds(0.05) - seconds(0.0)) * machine.clock_hz.value / 0.05 / 16.0
    };
    // Half of each product's: 16 keys are missing to two vectors, 16 more, at a fifth, to a third.
    for (blocks, missing) in [(1, 16.0 + 3.2), (2, 3.2), (3, 0.0), (4, 0.0)] {
        let expected = missing * 64.0 / 2.0;
        assert!((words(blocks, 64) - expected).abs() < 1e-3, "{blocks} blocks: {}", words(blocks, 64));
    }
    // 32 features are two vectors, too, for each of 64 keys.
    assert!((words(4, 32) - 64.0 * 3.2 / 2.0).abs() < 1e-3, "{}", words(4, 32));
}

#[test]
fn what_lies_in_the_caches_does_not_wait_for_memory() {
    let core = core_with_kernels();
    let bound = |tokens: u32| {
        let kind = AttentionKind::SelfAttention;
        let shape = AttentionShape { kind, heads: 12, queries: tokens, keys: tokens, head_dim: 64, windows: 1 };
        let model = CostModel::new(&core, Dataflow::Flash, 1).unwrap();
        model.attention(&Work::bare(&shape, BlockSize::B16, Precision::Int8).unwrap()).unwrap()
    };
    assert_eq!(bound(1024).bound, Bound::MatrixUnit);
    assert!(bound(1024).terms.iter().all(|term| term.name != "memory"));
    // 4 KiB a token and head: a shape of which the caches hold nothing still counts what DRAM takes.
    let mut cramped = core.clone();
    cramped.memory.iter_mut().for_each(|level| level.bytes.value /= 4096.0);
    cramped.memory.last_mut().unwrap().bytes_per_s.value /= 1024.0;
    let model = CostModel::new(&cramped, Dataflow::Flash, 1).unwrap();
    let shape = AttentionShape {
        kind: AttentionKind::SelfAttention,
        heads: 12,
        queries: 512,
        keys: 512,
        head_dim: 64,
        windows: 1,
    };
    let cost = model.attention(&Work::bare(&shape, BlockSize::B16, Precision::Int8).unwrap()).unwrap();
    assert_eq!(cost.bound, Bound::Memory("DRAM".into()));
}

#[test]
fn a_fitted_profile_is_read_as_it_was_written() {
    let core = core_with_kernels();
    let text = core.to_ron();
    assert!(text.contains("product_cycles: {"), "{text}");
    assert_eq!(parse_ron::<DeviceProfile>(&text, Path::new("host.ron")).unwrap(), core);
    assert!(core.figures().iter().any(|(place, figure)| place == "kernels.product_cycles.1" && figure.value == 0.036));
}

#[test]
fn kernels_that_are_faster_than_the_peak_are_refused() {
    let mut core = core_with_kernels();
    let kernels = core.kernels.as_mut().unwrap();
    kernels.product_cycles.get_mut(&Precision::Single).unwrap().value = 0.12; // 2 / 16 at peak
    kernels.pack_cycles.remove(&Precision::Half);
    let problems = core.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("all of them") && problems[1].contains("product_cycles.4 is faster"), "{problems:?}");
}
