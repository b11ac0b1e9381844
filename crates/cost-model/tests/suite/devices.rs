use std::path::Path;

use maskwright_blueprint::{AttentionShape, BlockSize, HeadMask, Linear, Precision, RonError, parse_ron};
use maskwright_cost_model::{CostError, CostModel, Dataflow, DeviceProfile, Softmax, Work};

use crate::{dense, self_attention};

fn read(text: &str) -> Result<DeviceProfile, RonError> {
    parse_ron(text, Path::new("mine.ron"))
}

/// A baked-in profile's text with one piece replaced.
fn changed(name: &str, from: &str, to: &str) -> String {
    let text = DeviceProfile::named(name).unwrap().to_ron();
    assert!(text.contains(from), "{from} is not in\n{text}");
    text.replacen(from, to, 1)
}

#[test]
fn every_baked_in_profile_is_sound_and_survives_its_own_file() {
    for name in DeviceProfile::names() {
        let profile = DeviceProfile::named(name).unwrap();
        assert_eq!(profile.name, name);
        assert_eq!(profile.problems(), Vec::<String>::new());
        assert_eq!(read(&profile.to_ron()).unwrap(), profile);
    }
}

#[test]
fn a_profile_with_a_missing_number_is_refused_with_its_place() {
    let text = changed("asic-p1", "static_watts", "statik_watts");
    let RonError::Syntax { message, line, help, .. } = read(&text).unwrap_err() else { panic!("a syntax error") };
    assert_eq!(&*message, "unknown key `statik_watts`");
    assert!(help.unwrap().starts_with("did you mean `static_watts`?"));
    assert!(text.lines().nth(line - 1).unwrap().contains("statik_watts"));

    let profile = DeviceProfile::named("asic-p1").unwrap().to_ron();
    let without: Vec<_> = profile.lines().filter(|line| !line.contains("\"asic-p1\"")).collect();
    assert!(read(&without.join("\n")).unwrap_err().to_string().contains("name"));
}

#[test]
fn a_negative_bandwidth_is_refused_on_its_line() {
    let text = changed("asic-p1", "9600000000.0", "-9600000000.0");
    let RonError::Syntax { line, .. } = read(&text).unwrap_err() else { panic!("a syntax error") };
    assert_eq!(text.lines().nth(line - 1).unwrap().trim(), "value: -9600000000.0,");
}

#[test]
fn impossible_profiles_are_refused_with_what_is_wrong() {
    for (name, from, to, says) in [
        (
            "asic-p1",
            "9600000000.0",
            "-9600000000.0",
            "-9600000000 is no figure of a device: each is zero, or from 1e-24 to 1e24",
        ),
        ("asic-p1", "9600000000.0", "0.0", "memory.DRAM.bytes_per_s is 0; it has to be more than zero"),
        ("asic-p1", "value: 16.0", "value: 15.5", "cores is a count: a whole number"),
        (
            "asic-p1",
            "value: 64.0",
            "value: 16.0",
            "matrix.macs_per_cycle times utilisation is higher at 2 bytes than at 1",
        ),
        ("asic-p1", "2097152", "1024", "memory level shared memory is not larger than local memory"),
        ("cpu-avx512", "value: 15.0", "value: 2.0", "energy.static_watts is not below energy.limit_watts"),
        ("jetson-agx-xavier", "value: 5.0", "value: 25.0", "mode 15W: static_watts is not below limit_watts"),
    ] {
        let error = read(&changed(name, from, to)).unwrap_err().to_string();
        assert!(error.contains(says), "{from} -> {to}: {error}");
        assert!(error.starts_with("mine.ron:"), "{error}");
    }
}

#[test]
fn a_rounding_between_the_rates_of_two_precisions_is_no_fault() {
    // As a fit leaves it that gives a coarser precision the rate of a finer one, which is faster by itself.
    let mut profile = DeviceProfile::named("cpu-avx512").unwrap();
    let reach = |profile: &mut DeviceProfile, precision, rate: f64, reached: f64| {
        profile.matrix.macs_per_cycle.get_mut(&precision).unwrap().value = rate;
        profile.matrix.utilisation.get_mut(&precision).unwrap().value = reached / rate;
    };
    let roundings = (1..1000).map(|n| (n as f64).mul_add(0.037, 20.0)).filter(|rate| rate * (19.3 / rate) > 19.3);
    for rate in roundings.clone() {
        reach(&mut profile, Precision::Half, 19.3, 19.3);
        reach(&mut profile, Precision::Single, rate, 19.3);
        assert_eq!(profile.problems(), Vec::<String>::new(), "{rate}");
    }
    assert!(roundings.count() > 0);
    reach(&mut profile, Precision::Single, 30.0, 19.4);
    assert!(profile.problems()[0].contains("is higher at 4 bytes than at 2"));
}

#[test]
fn a_precision_that_the_device_lacks_is_refused_by_name() {
    let model = CostModel::new(&DeviceProfile::named("myriad-x").unwrap(), Dataflow::Flash, 1).unwrap();
    let work = Work::bare(&self_attention(1, 32, 8), BlockSize::B16, Precision::Int8).unwrap();
    let error = model.attention(&work).unwrap_err();
    assert!(matches!(error, CostError::Precision { precision: Precision::Int8, .. }));
    assert_eq!(
        error.to_string(),
        "myriad-x does not compute at 8 bit: it supports 16 bit; choose one of these for the mask's blocks"
    );
}

#[test]
fn slower_power_modes_are_slower_and_stay_within_their_watts() {
    let shape = self_attention(12, 512, 64);
    let price = |name: &str| dense(name, Dataflow::Flash, 1, &shape, Precision::Half, Softmax::Float);
    let modes = ["10W", "15W", "30W"].map(|mode| price(&format!("jetson-agx-xavier@{mode}")));
    for (cost, limit) in modes.iter().zip([10.0, 15.0, 30.0]) {
        assert!(cost.peak_watts.0 <= limit, "{}", cost.peak_watts);
    }
    assert!(modes[0].seconds > modes[1].seconds && modes[1].seconds > modes[2].seconds);
    assert!(modes[2].seconds > price("jetson-agx-xavier").seconds);
    let error = DeviceProfile::named("jetson-agx-xavier@20W").unwrap_err().to_string();
    assert_eq!(error, "`jetson-agx-xavier` has no mode `20W`: did you mean `10W`? allowed here: `10W`, `15W`, `30W`");
}

#[test]
fn a_fingerprint_is_that_of_the_numbers() {
    let profile = DeviceProfile::named("rk3588s2").unwrap();
    assert_eq!(profile.fingerprint(), read(&profile.to_ron()).unwrap().fingerprint());
    let faster = read(&changed("rk3588s2", "34000000000.0", "35000000000.0")).unwrap();
    assert_ne!(profile.fingerprint(), faster.fingerprint());
}

#[test]
fn peaks_are_those_of_the_data_sheets() {
    // Operations a second at the peak: two for each MAC.
    let peak = |name: &str, precision: Precision| {
        let profile = DeviceProfile::named(name).unwrap();
        2.0 * profile.matrix.macs_per_cycle[&precision].value * profile.cores.value * profile.clock_hz.value
    };
    for (name, precision, published) in [
        ("jetson-agx-xavier", Precision::Single, 1.41e12),
        ("jetson-agx-xavier", Precision::Half, 11.3e12),
        ("jetson-agx-xavier", Precision::Int8, 22.6e12),
        ("rk3588s2", Precision::Single, 211e9),
        ("rk3588s2", Precision::Half, 422e9),
        ("rk3588s2", Precision::Int8, 845e9),
        ("cpu-avx512", Precision::Single, 118e9),
        ("cpu-avx512", Precision::Half, 236e9),
        ("cpu-avx512", Precision::Int8, 473e9),
        ("h200", Precision::Half, 989e12),
    ] {
        let off = peak(name, precision) / published - 1.0;
        assert!(off.abs() < 0.01, "{name} at {precision}: off by {:.1} %", 100.0 * off);
    }
}

#[test]
fn shapes_without_tokens_or_beyond_all_measure_are_refused() {
    let model = CostModel::new(&DeviceProfile::named("h200").unwrap(), Dataflow::Flat, 1).unwrap();
    for (shape, says) in [
        (self_attention(0, 32, 8), "the number of heads is 1 to 65536, not 0"),
        (self_attention(1, 0, 8), "the number of query tokens is 1 to 4194304, not 0"),
        (self_attention(1, 32, 0), "the head dimension is 1 to 65536, not 0"),
        (self_attention(1, u32::MAX, 8), "the number of query tokens is 1 to 4194304, not 4294967295"),
    ] {
        let error = Work::bare(&shape, BlockSize::B16, Precision::Half).unwrap_err().to_string();
        assert_eq!(error, says);
    }
    let (square, flat) = (self_attention(1, 16, 8), self_attention(1, 16, 0));
    let mask = HeadMask::dense(&square, BlockSize::B16, Precision::Half);
    assert!(model.head(&mask, &square, Softmax::Float).is_ok());
    let error = model.head(&mask, &flat, Softmax::Float).unwrap_err().to_string();
    assert_eq!(error, "the head dimension is 1 to 65536, not 0");
}

#[test]
fn windows_cost_what_as_many_examples_cost() {
    let profile = DeviceProfile::named("rk3588s2").unwrap();
    let seconds = |batch, windows| {
        let shape = AttentionShape { windows, ..self_attention(3, 49, 32) };
        let work = Work::bare(&shape, BlockSize::B16, Precision::Half).unwrap();
        CostModel::new(&profile, Dataflow::Flash, batch).unwrap().attention(&work).unwrap().seconds.0
    };
    assert_eq!(seconds(1, 64), seconds(64, 1));
    assert!(seconds(1, 64) > 8.0 * seconds(1, 1));
    assert_eq!(
        Work::bare(&AttentionShape { windows: 64, ..self_attention(3, 49, 32) }, BlockSize::B16, Precision::Half)
            .unwrap()
            .macs(),
        64 * 2 * 3 * 49 * 49 * 32
    );
}

#[test]
fn every_device_has_a_row_in_the_documentation() {
    let page = include_str!("../../../../docs/devices.md");
    for name in DeviceProfile::names() {
        assert!(page.contains(&format!("`{name}`")), "{name} is missing in docs/devices.md");
    }
}

#[test]
fn numbers_that_nobody_compared_with_their_source_are_listed() {
    let profile = DeviceProfile::named("flat-cloud").unwrap();
    let unverified = profile.unverified();
    assert!(unverified.iter().any(|(place, _)| place == "energy.limit_watts"));
    assert!(unverified.iter().all(|(place, figure)| !figure.verified && place != "clock_hz"));
    assert!(unverified.len() < profile.figures().len());
}

#[test]
fn linears_are_priced_at_the_precision_that_was_asked_for() {
    let jetson = CostModel::new(&DeviceProfile::named("jetson-agx-xavier").unwrap(), Dataflow::Flash, 1).unwrap();
    assert_eq!(jetson.linears(), Precision::Half);
    let linears = vec![Linear { rows: 512, inputs: 768, outputs: 3072, count: 1 }];
    let work = Work { modules: vec![], linears, elementwise: 0 };
    let seconds = |precision| jetson.clone().with_linears(precision).unwrap().end_to_end(&work).unwrap().seconds;
    assert!(
        seconds(Precision::Int8) < seconds(Precision::Half) && seconds(Precision::Half) < seconds(Precision::Single)
    );
    let controller = CostModel::new(&DeviceProfile::named("cortex-m7").unwrap(), Dataflow::Flash, 1).unwrap();
    assert_eq!(controller.linears(), Precision::Single); // it has no 16-bit arithmetic
    let error = controller.with_linears(Precision::Half).unwrap_err().to_string();
    assert!(error.starts_with("cortex-m7 does not compute at 16 bit: it supports 8 bit, 32 bit"), "{error}");
}
