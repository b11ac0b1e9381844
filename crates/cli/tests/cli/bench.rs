use serde_json::Value;

use crate::program::Folder;

const QUICK: [&str; 11] = [
    "bench",
    "attention",
    "--heads",
    "2",
    "--tokens",
    "20,64",
    "--precisions",
    "fp32,mixed",
    "--repetitions",
    "2",
    "--json",
];

#[test]
fn a_row_for_each_case_has_the_named_fields_and_nothing_else() {
    let result = Folder::new().run(QUICK).result("bench attention");
    let rows = result["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2 * 3 * 2); // lengths, densities, precisions
    let mut named = [
        "heads",
        "tokens",
        "head_dim",
        "block_size",
        "density",
        "precision",
        "promoted",
        "threads",
        "inputs",
        "median_seconds",
        "p10_seconds",
        "p90_seconds",
        "gflops",
        "peak_fraction",
    ];
    named.sort_unstable();
    for row in rows {
        let mut fields: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, named);
        let number = |name: &str| row[name].as_f64().unwrap();
        assert!(number("p10_seconds") <= number("median_seconds") && number("median_seconds") <= number("p90_seconds"));
        // Two products of a multiply-accumulate for each computed score and feature, in billions.
        let operations = 4.0 * number("density") * number("heads") * number("tokens").powi(2) * number("head_dim");
        assert!((number("gflops") * number("median_seconds") * 1e9 / operations - 1.0).abs() < 1e-9);
        assert!(number("peak_fraction") > 0.0);
    }
    assert_eq!(rows[0]["precision"], "fp32");
    assert_eq!(rows[1]["precision"], "40/40/20");
    assert!(result["peak"]["fp32_operations_per_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn phases_are_shares_that_add_up_and_stand_in_a_table_of_their_own() {
    let mut with_phases = ["--phases"; QUICK.len() + 1];
    with_phases[..QUICK.len()].copy_from_slice(&QUICK);
    let result = Folder::new().run(with_phases).result("bench attention");
    for row in result["rows"].as_array().unwrap() {
        let shares = row["phases"].as_object().unwrap();
        assert_eq!(shares.len(), 5);
        assert!((shares.values().map(|share| share.as_f64().unwrap()).sum::<f64>() - 1.0).abs() < 1e-9);
    }
    let arguments = ["bench", "attention", "--tokens", "16", "--repetitions", "1", "--phases", "--softmax", "integer"];
    let text = Folder::new().run(arguments).good();
    assert!(text.contains("shares of the time on one thread, measured, with the integer softmax at 8 bit"), "{text}");
}

#[test]
fn rows_say_where_blocks_were_computed_more_finely_and_an_option_forbids_it() {
    // One 8-bit block of sixteen, the others single: no kernel packs its head at 8 bit for that.
    let lone = ["bench", "attention", "--heads", "1", "--tokens", "64", "--densities", "1", "--precisions", "1/0/99"];
    for (promotion, promoted, starred) in [("where-faster", 1.0 / 16.0, true), ("never", 0.0, false)] {
        let mut arguments = [""; 15];
        arguments[..10].copy_from_slice(&lone);
        arguments[10..].copy_from_slice(&["--repetitions", "1", "--promotion", promotion, "--phases"]);
        let text = Folder::new().run(arguments).good();
        let line =
            "at most 6.3 %, were computed at a finer precision, because that is faster; `--promotion never` forbids it";
        assert_eq!((text.contains(line), text.contains("1/0/99 *")), (starred, starred), "{text}");
        arguments[14] = "--json";
        let result = Folder::new().run(arguments).result("bench attention");
        assert_eq!(result["promotion"], promotion);
        assert_eq!(result["rows"][0]["promoted"], promoted);
    }
}

#[test]
fn the_table_names_machine_kernel_and_peak() {
    let arguments = ["bench", "attention", "--heads", "1", "--tokens", "16", "--repetitions", "1"];
    let text = Folder::new().run(arguments).good();
    for says in ["1 heads of width 64, kernel ", "measured", "that is the peak"] {
        assert!(text.contains(says), "no {says} in\n{text}");
    }
}

#[test]
fn what_cannot_be_timed_is_refused_with_what_is_allowed() {
    for (option, value, says) in [
        ("--precisions", "fp16", "`fp16` is no precision: use fp32, bf16, int8, mixed"),
        ("--densities", "0", "a density is a share above 0 and at most 1"),
        ("--block-sizes", "24", "block size is 8, 16 or 32 tokens, not 24"),
        ("--head-dim", "12", "head_dim is a multiple of 8 from 8 to 512, not 12"),
        ("--threads", "99999", "threads at once, not 99999"),
        ("--tokens", "0", "0 is not in 1..=65536"),
    ] {
        let stderr = Folder::new().run(["bench", "attention", option, value]).refused();
        assert!(stderr.contains(says), "{option} {value}: {stderr}");
    }
}

#[test]
fn a_calibrated_machine_is_the_host_and_what_it_takes_stands_beside_what_was_predicted() {
    let folder = Folder::with_blueprint();
    let stderr = folder.run(["cost", "tiny.ron", "-d", "rk3588s2", "--measure"]).refused();
    // Where lines end depends on the name of the CPU.
    let on_one_line = stderr.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
    assert!(on_one_line.contains("which profile rk3588s2 was not measured on"), "{stderr}");
    let written = folder.run(["device", "calibrate", "--at-most", "1", "--json"]).result("device calibrate");
    assert_eq!((&written["file"], &written["device"]), (&Value::from("host.ron"), &Value::from("host")));
    let record = &written["record"];
    let shapes = record["shapes"].as_array().unwrap();
    let all = shapes.len() as u64 * 8 * 6; // sets, candidates
    assert_eq!((record["held_out"]["samples"].as_u64(), all), (Some(all), 528));
    assert_eq!(record["break_even"].as_array().unwrap().len(), 3 * 3); // precisions, block sizes
    for (features, shortest) in [(16, 65), (32, 49), (64, 64), (80, 257), (128, 512)] {
        let of_width = shapes.iter().filter(|shape| shape["head_dim"] == features);
        assert_eq!(of_width.filter_map(|shape| shape["tokens"].as_u64()).min(), Some(shortest));
    }
    let of_shapes = |of: fn(&Value) -> &Value| shapes.iter().map(move |shape| of(shape).as_f64().unwrap());
    let least = of_shapes(|shape| &shape["error"]["rank_correlation"]).fold(1.0, f64::min);
    assert_eq!(record["least_rank_correlation"], least);
    assert_eq!(record["worst_pick_regret"], of_shapes(|shape| &shape["worst_pick_regret"]).fold(0.0, f64::max));
    let mean = of_shapes(|shape| &shape["error"]["mean"]).sum::<f64>() / shapes.len() as f64;
    assert!((record["held_out"]["mean"].as_f64().unwrap() / mean - 1.0).abs() < 1e-9);
    assert!(folder.run(["device", "check", "host.ron"]).good().starts_with("ok  host.ron: host, "));
    let priced = folder.run(["cost", "tiny.ron", "-d", "host", "--measure", "--record", "--json"]).result("cost");
    let measured = &priced[0]["measured"];
    assert!(measured["seconds"].as_f64().unwrap() > 0.0 && priced[0]["attention"]["kind"] == "predicted");
    let blueprint = std::fs::read_to_string(folder.path("tiny.ron")).unwrap();
    assert!(blueprint.contains("measured: Some(("), "{blueprint}");
    folder.run(["mask", "check", "tiny.ron"]).good();
    assert_eq!(folder.run(["cost", "tiny.ron", "-d", "host.ron", "--json"]).result("cost")[0]["device"], "host");
}
