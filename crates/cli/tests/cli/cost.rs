use crate::program::Folder;

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
    assert!(text.contains("64.0 %"), "{text}");
}

#[test]
fn an_unknown_device_is_answered_with_the_nearest() {
    insta::assert_snapshot!(Folder::with_blueprint().run(["cost", "tiny.ron", "-d", "rk3588"]).refused());
}

#[test]
fn a_precision_that_the_device_lacks_is_refused_by_name() {
    let stderr = Folder::with_blueprint().run(["cost", "tiny.ron", "-d", "mas-edge"]).refused();
    assert!(stderr.contains("mas-edge does not compute at 8 bit: it supports 16 bit"), "{stderr}");
}

#[test]
fn an_unknown_dataflow_is_answered_with_the_nearest() {
    let stderr = Folder::with_blueprint().run(["cost", "tiny.ron", "-d", "rk3588s2", "--dataflow", "flush"]).refused();
    assert!(stderr.contains("did you mean `flash`?"), "{stderr}");
}
