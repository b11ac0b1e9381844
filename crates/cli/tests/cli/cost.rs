use std::fs;

use crate::program::Folder;

const CLOUD: &str = "batch=64,heads=12,tokens=4096,head_dim=64";

#[test]
fn every_blueprint_is_priced_on_every_device() {
    let folder = Folder::with_blueprint();
    let priced =
        folder.run(["cost", "tiny.ron", "tiny.ron", "-d", "rk3588s2", "-d", "cpu-avx512", "--json"]).result("cost");
    let devices: Vec<&str> = priced.as_array().unwrap().iter().map(|of| of["device"].as_str().unwrap()).collect();
    assert_eq!(devices, ["rk3588s2", "cpu-avx512", "rk3588s2", "cpu-avx512"]);
    assert_eq!(priced[0]["attention"], priced[2]["attention"]);
    assert_eq!(priced[0]["attention"]["kind"], "predicted");
}

#[test]
fn energy_never_exceeds_what_the_device_can_draw() {
    let folder = Folder::with_blueprint();
    let priced = folder.run(["cost", "tiny.ron", "-d", "rk3588s2", "--json"]).result("cost");
    let of = |name: &str| &priced[0]["attention"][name];
    let (joules, seconds) = (of("joules")["high"].as_f64().unwrap(), of("seconds").as_f64().unwrap());
    assert!(joules <= 11.0 * seconds, "{joules} J in {seconds} s at 11 W"); // limit_watts of the profile
}

#[test]
fn the_table_says_that_it_is_predicted() {
    let text = Folder::with_blueprint().run(["cost", "tiny.ron", "-d", "rk3588s2"]).good();
    assert!(text.contains("predicted") && text.contains("nothing here is measured"), "{text}");
    assert!(text.contains("density 64.0 %"), "{text}");
}

#[test]
fn attention_and_end_to_end_are_two_tables_with_the_dense_model_in_both() {
    let text = Folder::with_blueprint().run(["cost", "tiny.ron", "-d", "rk3588s2", "-d", "h200"]).good();
    let names: Vec<&str> =
        text.lines().filter(|line| line.contains("limited by")).map(|line| line.split("  ").next().unwrap()).collect();
    let table = ["rk3588s2: dense", "rk3588s2: density 64.0 %", "h200: dense", "h200: density 64.0 %"];
    assert_eq!(names, [table, table].concat());
    assert!(text.find("\nattention ").unwrap() < text.find("\nend to end ").unwrap(), "{text}");
}

/// FuseMax's published run: 0.0297004 s, 1.61061e9 bytes, 30.898 J.
#[test]
fn bare_attention_needs_no_blueprint() {
    let arguments = ["cost", "--shape", CLOUD, "--device", "flat-cloud", "--dataflow", "fuse-max", "--json"];
    let result = Folder::new().run(arguments).result("cost");
    let number = |name: &str| result[name].as_f64().unwrap();
    assert!((number("seconds") / 0.0297004 - 1.0).abs() < 0.005);
    assert!((number("dram_bytes") / 1.61061e9 - 1.0).abs() < 0.01);
    let joules = |name: &str| result["joules"][name].as_f64().unwrap();
    assert!((joules("value") / 30.898 - 1.0).abs() < 0.1);
    assert!(joules("low") < joules("value") && joules("value") < joules("high"));
    assert!(number("peak_watts") >= joules("value") / number("seconds"));
    assert_eq!(result["bound"], "limited by vector unit: softmax");
    assert_eq!(result["precision"], 2); // the finest that the device has
}

#[test]
fn bare_attention_is_a_table_for_people_over_any_number_of_devices() {
    let shape = "heads=12,tokens=197,head_dim=64";
    let text = Folder::new().run(["cost", "--shape", shape, "-d", "h200", "-d", "mas-edge"]).good();
    for says in ["h200, 32 bit", "mas-edge, 16 bit", "predicted", "12 heads of width 64, 197 x 197 tokens, batch 1"] {
        assert!(text.contains(says), "no {says} in\n{text}");
    }
    let stderr = Folder::new().run(["cost", "--shape", shape, "-d", "h200", "-d", "mas-edge", "--json"]).refused();
    assert!(stderr.contains("is about one device, not 2"), "{stderr}");
}

#[test]
fn an_integer_softmax_changes_the_price_of_8_bit_attention_alone() {
    let seconds = |precision: &str, softmax| {
        let shape = format!("heads=1,tokens=1024,head_dim=128,precision={precision}");
        let arguments = ["cost", "--shape", &shape, "-d", "rk3588s2", "--softmax", softmax, "--json"];
        Folder::new().run(arguments).result("cost")["seconds"].as_f64().unwrap()
    };
    // Published: 5.90 ms and 2.77 ms.
    assert!(seconds("1", "float") > 1.9 * seconds("1", "integer"));
    assert_eq!(seconds("2", "float"), seconds("2", "integer"));
}

#[test]
fn a_bad_shape_is_refused_with_what_is_allowed() {
    for (shape, says) in [
        ("heads=12,token=512,head_dim=64", "did you mean `tokens`?"),
        ("heads=12,tokens=512", "`head_dim` is missing"),
        ("heads=12,tokens=0,head_dim=64", "`tokens` is a whole number from 1"),
        ("heads=12,tokens=9000000,head_dim=64", "the number of query tokens is 1 to 4194304, not 9000000"),
        ("heads=12,tokens=512,head_dim=64,precision=1", "mas-edge does not compute at 8 bit: it supports 16 bit"),
        ("heads=12,tokens=512,head_dim=64,batch=70000", "a batch holds 1 to 65536 examples, not 70000"),
    ] {
        let stderr = Folder::new().run(["cost", "--shape", shape, "-d", "mas-edge"]).refused();
        assert!(stderr.contains(says), "{shape}: {stderr}");
    }
}

#[test]
fn a_timeline_shows_all_three_units() {
    let folder = Folder::with_blueprint();
    let text = folder.run(["cost", "tiny.ron", "-d", "rk3588s2", "--timeline", "out.svg"]).good();
    assert!(text.contains("in block.0.attention, predicted: out.svg"), "{text}");
    let svg = fs::read_to_string(folder.path("out.svg")).unwrap();
    for says in ["matrix unit", "vector unit", "DRAM", "flash on rk3588s2, one core, predicted", "% busy"] {
        assert!(svg.contains(says), "no {says} in the picture");
    }
    let shape = "heads=4,tokens=256,head_dim=64";
    folder.run(["cost", "--shape", shape, "-d", "mas-edge", "--dataflow", "mas", "--timeline", "mas.svg"]).good();
    assert!(fs::read_to_string(folder.path("mas.svg")).unwrap().contains("C2.8"));
}

#[test]
fn a_blueprint_stands_beside_what_it_replaces() {
    let folder = Folder::with_blueprint();
    let result = folder.run(["cost", "--compare", "tiny.ron", "-d", "rk3588s2", "--svg", "out.svg", "--json"]);
    let result = result.result("cost");
    let entries = result["entries"].as_array().unwrap();
    let names: Vec<&str> = entries.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!((names.len(), names[0], names[13]), (14, "dense", "tiny.ron"));
    let alone = folder.run(["cost", "tiny.ron", "-d", "rk3588s2", "--json"]).result("cost");
    assert_eq!(entries[13]["seconds"], alone[0]["attention"]["seconds"]);
    assert_eq!(entries[0]["seconds"], alone[0]["dense_attention"]["seconds"]);
    let svg = fs::read_to_string(folder.path("out.svg")).unwrap();
    assert!(
        svg.contains("attention of 1 layer on rk3588s2, 32 bit, batch 1: predicted time") && svg.contains("tiny.ron")
    );
}

#[test]
fn the_family_is_one_table_for_a_shape() {
    let shape = "heads=12,tokens=512,head_dim=64";
    let text = Folder::new().run(["cost", "--compare", "--shape", shape, "-d", "h200", "--layers", "6"]).good();
    assert_eq!(text.lines().filter(|line| line.contains("limited by")).count(), 13, "{text}");
    for says in ["latency", "energy", "peak power", "bandwidth", "per byte", "Linformer", "6 layers", "predicted"] {
        assert!(text.contains(says), "no {says} in\n{text}");
    }
}

#[test]
fn a_blueprint_for_another_shape_does_not_compare() {
    let folder = Folder::with_blueprint();
    let shape = "heads=12,tokens=512,head_dim=64";
    let stderr = folder.run(["cost", "--compare", "tiny.ron", "--shape", shape, "-d", "rk3588s2"]).refused();
    assert!(stderr.contains("block.0.attention has 2 heads of width 8, 20 x 20 tokens"), "{stderr}");
    let stderr = folder.run(["cost", "tiny.ron", "--shape", shape, "-d", "rk3588s2"]).refused();
    assert!(stderr.contains("give blueprints or `--shape`"), "{stderr}");
}

#[test]
fn an_unknown_device_is_answered_with_the_nearest() {
    insta::assert_snapshot!(Folder::with_blueprint().run(["cost", "tiny.ron", "-d", "rk3588"]).refused());
}

#[test]
fn a_precision_that_the_device_lacks_is_refused_by_name_and_place() {
    let stderr = Folder::with_blueprint().run(["cost", "tiny.ron", "-d", "mas-edge"]).refused();
    assert!(stderr.contains("tiny.ron: module 0 head 0, block row 0, column 0"), "{stderr}");
    assert!(stderr.contains("mas-edge does not compute at 8 bit: it supports 16 bit"), "{stderr}");
}

#[test]
fn an_unknown_dataflow_is_answered_with_the_nearest() {
    let stderr = Folder::with_blueprint().run(["cost", "tiny.ron", "-d", "rk3588s2", "--dataflow", "flush"]).refused();
    assert!(stderr.contains("did you mean `flash`?"), "{stderr}");
}
