//! What the files say, letter by letter.

use maskwright_blueprint::{Blueprint, Provenance};
use maskwright_export::Target;

use crate::blueprints::two_modules;

fn text(target: Target, blueprint: &Blueprint) -> String {
    String::from_utf8(target.export(blueprint).unwrap().bytes).unwrap()
}

#[test]
fn the_c_header_shows_tables_digest_and_checksum() {
    insta::assert_snapshot!(text(Target::CHeader, &two_modules("tiny")));
}

#[test]
fn the_rust_table_shows_tables_digest_and_checksum() {
    insta::assert_snapshot!(text(Target::RustTable, &two_modules("tiny")));
}

#[test]
fn files_are_named_after_the_model() {
    let names = Target::ALL.map(|target| target.export(&two_modules("../ViT B")).unwrap().file_name);
    assert_eq!(names, ["mask_vit_b.safetensors", "mask_vit_b.h", "mask_vit_b.rs"]);
}

#[test]
fn the_safetensors_file_holds_the_blueprint() {
    let blueprint = two_modules("tiny");
    let bytes = Target::Safetensors.export(&blueprint).unwrap().bytes;
    assert_eq!(Blueprint::from_safetensors(&bytes).unwrap(), blueprint);
}

#[test]
fn a_name_from_a_stranger_stays_inside_its_comment() {
    let mut blueprint = two_modules("x */ #error y ??/\\");
    blueprint.provenance = Provenance { origin: "\u{202e}\nint z;".into(), ..Provenance::default() };
    for target in [Target::CHeader, Target::RustTable] {
        let text = text(target, &blueprint);
        let head: Vec<_> = text.lines().take_while(|line| line.starts_with("//")).collect();
        assert!(head.iter().any(|line| line.starts_with("// model x _/ _error y __/_ sha256:")), "{head:?}");
        assert!(head.contains(&"// origin __int z;"), "{head:?}");
        assert!(text.is_ascii());
    }
}
