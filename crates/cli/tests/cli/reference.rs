use std::{fs, path::Path};

use crate::program::Folder;

#[test]
fn the_reference_page_is_what_the_program_prints() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    let page = fs::read_to_string(page).unwrap();
    assert!(
        page == Folder::new().run(["reference"]).good(),
        "docs/reference/cli.md is not what the program says; refresh it with the command in its first line"
    );
}

#[test]
fn every_command_says_what_it_is_for() {
    let page = Folder::new().run(["reference"]).good();
    for section in page.split("\n## ").skip(1) {
        let (name, help) = section.split_once("```text\n").unwrap();
        assert!(!help.starts_with("Usage"), "no sentence for {name}");
    }
}
