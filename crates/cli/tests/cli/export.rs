use std::fs;

use crate::program::Folder;

#[test]
fn a_c_header_is_written_into_the_folder() {
    let folder = Folder::with_blueprint();
    let written = folder.run(["export", "tiny.ron", "-t", "c-header", "--out", "firmware", "--json"]).result("export");
    assert_eq!(written["file"], "firmware/mask_tiny.h");
    let header = fs::read_to_string(folder.path("firmware/mask_tiny.h")).unwrap();
    assert_eq!(written["bytes"], header.len());
    assert!(header.contains(written["blueprint_digest"].as_str().unwrap()));
}

#[test]
fn the_safetensors_form_draws_the_same_masks() {
    let folder = Folder::with_blueprint();
    folder.run(["export", "tiny.ron", "-t", "safetensors"]).good();
    let masks = |file| folder.run(["mask", "show", file]).good().split_once('\n').unwrap().1.to_owned();
    assert_eq!(masks("mask_tiny.safetensors"), masks("tiny.ron"));
}

#[test]
fn an_unknown_target_is_answered_with_the_nearest_and_nothing_is_written() {
    let folder = Folder::with_blueprint();
    let stderr = folder.run(["export", "tiny.ron", "-t", "c-heade", "--out", "firmware"]).refused();
    assert!(stderr.contains("did you mean `c-header`?"), "{stderr}");
    assert_eq!(folder.entries(), ["tiny.ron"]);
}
