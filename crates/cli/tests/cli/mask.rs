use std::fs;

use crate::program::{BLUEPRINT, Folder};

#[test]
fn show_draws_every_head_under_its_caption() {
    insta::assert_snapshot!(Folder::with_blueprint().run(["mask", "show", "tiny.ron"]).good());
}

#[test]
fn show_draws_one_head_on_request() {
    let text = Folder::with_blueprint().run(["mask", "show", "tiny.ron", "--head", "0.1"]).good();
    assert!(text.contains("module 0 head 1: 8-token blocks, 20 x 20 tokens, density 0.44\n2..\n.2.\n4.1\n"), "{text}");
    assert!(!text.contains("head 0:"), "{text}");
}

#[test]
fn a_head_that_is_not_there_is_answered_with_those_that_are() {
    let folder = Folder::with_blueprint();
    let refused = |head| folder.run(["mask", "show", "tiny.ron", "--head", head]).refused();
    assert!(refused("0.2").contains("tiny.ron has no head 0.2: module 0 has heads 0 to 1"));
    assert!(refused("1.0").contains("tiny.ron has no head 1.0: it has modules 0 to 0"));
    assert!(refused("one").contains("`one` is no head: write module and head with a dot between, such as `0.3`"));
}

#[test]
fn check_says_what_each_file_holds() {
    let text = Folder::with_blueprint().run(["mask", "check", "tiny.ron"]).good();
    assert_eq!(text, "ok  tiny.ron: tiny, density 64.0 %, blocks of 8, 16 tokens\n"); // (336 + 176) / 800
}

#[test]
fn check_has_a_json_document() {
    let checked = Folder::with_blueprint().run(["mask", "check", "tiny.ron", "--json"]).result("mask check");
    assert_eq!(checked[0]["density"], 0.64);
    assert_eq!(checked[0]["block_sizes"], serde_json::json!([8, 16]));
}

#[test]
fn check_tells_of_every_wrong_file() {
    let folder = Folder::with_blueprint().with("a.ron", "(version: 2)").with("b.ron", "(");
    let stderr = folder.run(["mask", "check", "a.ron", "tiny.ron", "b.ron"]).refused();
    assert!(stderr.contains("a.ron:1") && stderr.contains("b.ron:1"), "{stderr}");
    assert!(stderr.contains("2 of 3 files are no valid blueprint"), "{stderr}");
}

#[test]
fn a_mistyped_key_is_shown_where_it_stands() {
    let folder = Folder::new().with("typo.ron", &BLUEPRINT.replace("block_size: 16", "blok_size: 16"));
    insta::assert_snapshot!(folder.run(["mask", "show", "typo.ron"]).refused());
}

#[test]
fn a_block_size_of_24_is_shown_where_it_stands() {
    let folder = Folder::new().with("size.ron", &BLUEPRINT.replace("block_size: 16", "block_size: 24"));
    insta::assert_snapshot!(folder.run(["mask", "check", "size.ron"]).refused());
}

#[test]
fn an_empty_row_is_shown_where_it_stands() {
    let folder = Folder::new().with("row.ron", &BLUEPRINT.replace(r#"".2.""#, r#""...""#));
    insta::assert_snapshot!(folder.run(["mask", "check", "row.ron"]).refused());
}

#[test]
fn a_missing_file_is_named_with_its_cause() {
    let stderr = Folder::new().run(["mask", "show", "gone.ron"]).refused();
    assert!(stderr.contains("gone.ron cannot be read"), "{stderr}");
    assert!(stderr.contains("No such file or directory"), "{stderr}");
    assert!(stderr.contains("paths begin at the folder that the command runs in"), "{stderr}");
}

#[test]
fn a_safetensors_file_of_something_else_is_refused() {
    let folder = Folder::new().with("weights.safetensors", "not a safetensors file");
    let stderr = folder.run(["mask", "show", "weights.safetensors"]).refused();
    assert!(stderr.contains("weights.safetensors is no blueprint in safetensors form"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn a_name_that_is_no_text_is_told_in_json_all_the_same() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let folder = Folder::with_blueprint();
    let name = OsStr::from_bytes(b"odd\xff.ron");
    fs::copy(folder.path("tiny.ron"), folder.path("").join(name)).unwrap();
    let checked =
        folder.run([OsStr::new("mask"), OsStr::new("check"), name, OsStr::new("--json")]).result("mask check");
    assert_eq!(checked[0]["file"], "odd\u{fffd}.ron");
}

#[test]
fn list_shows_what_a_library_holds_and_what_is_known_of_it() {
    let folder = Folder::with_blueprint();
    let listed = folder.run(["mask", "list", ".", "--json"]).result("mask list");
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!((&listed[0]["model"], &listed[0]["density"]), (&"tiny".into(), &0.64.into()));
    let text = folder.run(["mask", "list", "."]).good();
    assert!(text.lines().count() == 3 && text.contains("64.0 %"), "{text}");
    assert!(folder.run(["mask", "list"]).good().starts_with("no blueprints in masks;"));
    assert!(folder.run(["mask", "list", "nowhere"]).refused().contains("nowhere cannot be read"));
}
