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
