use crate::program::Folder;

#[test]
fn the_list_names_the_profiles() {
    let text = Folder::new().run(["device", "list"]).good();
    assert!(text.contains("rk3588s2") && text.contains("jetson-agx-xavier"), "{text}");
}

#[test]
fn a_shown_profile_can_be_used_as_one_of_your_own() {
    let folder = Folder::with_blueprint();
    let ron = folder.run(["device", "show", "rk3588s2", "--ron"]).good();
    let folder = folder.with("mine.ron", &ron.replacen("\"rk3588s2\"", "\"mine\"", 1));
    assert!(folder.run(["device", "check", "mine.ron"]).good().starts_with("ok  mine.ron: mine, "));
    let price = |device| folder.run(["cost", "tiny.ron", "-d", device, "--json"]).result("cost")[0]["attention"].take();
    assert_eq!(price("mine.ron"), price("rk3588s2"));
}

#[test]
fn every_figure_is_shown_with_its_source() {
    let text = Folder::new().run(["device", "show", "rk3588s2"]).good();
    let line = text.lines().find(|line| line.starts_with("energy.limit_watts")).unwrap();
    let words: Vec<&str> = line.split_whitespace().take(3).collect();
    assert_eq!(words, ["energy.limit_watts", "11", "no"]);
    assert!(line.contains("board at full load"), "{line}");
}

#[test]
fn an_inconsistent_profile_is_refused_with_the_place() {
    let folder = Folder::new();
    let ron = folder.run(["device", "show", "rk3588s2", "--ron"]).good();
    let folder = folder.with("bad.ron", &ron.replacen("clock_hz:", "clock_herz:", 1));
    let stderr = folder.run(["device", "check", "bad.ron"]).refused();
    assert!(stderr.contains("unknown key `clock_herz`") && stderr.contains("did you mean `clock_hz`?"), "{stderr}");
}

#[test]
fn a_calibrated_profile_of_another_version_says_how_to_get_one() {
    let folder = Folder::new();
    let ron = folder.run(["device", "show", "rk3588s2", "--ron"]).good();
    // What another version counted is unknown here, and read first.
    let old = ron.replacen("clock_hz:", "clock_herz:", 1) + "//\n";
    let old = old.replacen("\n)\n//\n", "\n  calibrated: Some(()),\n)\n", 1);
    let stderr = folder.with("host.ron", &old).run(["device", "check", "host.ron"]).refused();
    assert!(stderr.contains("unknown key `clock_herz`") && stderr.contains("did you mean `clock_hz`?"), "{stderr}");
    assert!(stderr.contains("`maskwright device calibrate`"), "{stderr}");
}

#[test]
fn a_missing_number_and_a_negative_one_are_shown_where_they_stand() {
    let folder = Folder::new();
    let ron = folder.run(["device", "show", "rk3588s2", "--ron"]).good();
    let folder = folder.with("missing.ron", &ron.replacen("    value: 2350000000.0,\n", "", 1));
    let folder = folder.with("negative.ron", &ron.replacen("value: 34000000000.0", "value: -34000000000.0", 1));
    let stderr = folder.run(["device", "check", "missing.ron"]).refused();
    assert!(stderr.contains("key `value` is missing") && stderr.contains("missing.ron:7:"), "{stderr}");
    let line = 1 + ron.lines().position(|line| line.contains("34000000000.0")).unwrap();
    let stderr = folder.run(["cost", "--shape", "heads=1,tokens=64,head_dim=64", "-d", "negative.ron"]).refused();
    assert!(stderr.contains("-34000000000 is no figure of a device"), "{stderr}");
    assert!(stderr.contains(&format!("negative.ron:{line}:")), "{stderr}");
}
