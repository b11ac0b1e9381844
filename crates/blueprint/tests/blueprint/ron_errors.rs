//! Each mistake in a RON file is reported at its place, with what is allowed there.

use std::path::Path;

use maskwright_blueprint::{Blueprint, RonError, parse_ron};

use crate::models::two_heads;

/// Message with file, line and column; the marked text; the help.
fn report(text: &str) -> String {
    match parse_ron::<Blueprint>(text, Path::new("b.ron")) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => {
            let message = error.to_string();
            let RonError::Syntax { text, at, line, column, help, .. } = error else { panic!("{message}") };
            let whole_line = text.lines().nth(line - 1).unwrap_or_default();
            let mut report = format!("{message}\n{whole_line}\n{}", " ".repeat(column - 1));
            report += &"^".repeat(text[at].chars().count().max(1));
            if let Some(help) = help {
                report += &format!("\nhelp: {help}");
            }
            report
        }
    }
}

/// The report on the shared blueprint after one change, which must find its place.
fn after(from: &str, to: &str) -> String {
    let text = two_heads().to_ron();
    assert!(text.contains(from), "nothing to change:\n{text}");
    report(&text.replacen(from, to, 1))
}

#[test]
fn a_wrong_block_size_is_shown_where_it_stands() {
    insta::assert_snapshot!(after("block_size: 16", "block_size: 24"));
}

#[test]
fn a_row_without_blocks_is_shown_where_it_stands() {
    insta::assert_snapshot!(after("\".2.\"", "\"...\""));
}

#[test]
fn a_wrong_glyph_is_shown_in_its_row() {
    insta::assert_snapshot!(after("\"41\"", "\"4x\""));
}

#[test]
fn a_row_of_another_length_is_shown_where_it_stands() {
    insta::assert_snapshot!(after("\".2.\"", "\".2\""));
}

#[test]
fn a_row_ahead_of_the_diagonal_is_shown_at_the_end_of_its_mask() {
    insta::assert_snapshot!(after("\"2..\"", "\"..2\""));
}

#[test]
fn a_missing_mask_is_shown_at_the_end_of_its_module() {
    insta::assert_snapshot!(after("heads: 2", "heads: 3"));
}

#[test]
fn masks_for_one_module_too_many_are_shown_where_they_start_to_be_too_many() {
    insta::assert_snapshot!(after("    ],\n  ],\n  provenance", "    ],\n    [], [], [],\n  ],\n  provenance"));
}

#[test]
fn masks_before_the_model_are_checked_too() {
    let text = two_heads().to_ron().replacen("heads: 2", "heads: 3", 1);
    let (head, rest) = text.split_once("  model:").unwrap();
    let (model, rest) = rest.split_once("  masks:").unwrap();
    let (masks, tail) = rest.split_once("  provenance:").unwrap();
    let turned = format!("{head}  masks:{masks}  model:{model}  provenance:{tail}");
    assert!(report(&turned).contains("module 0 has 3 heads, the blueprint 2 masks for it"));
}

#[test]
fn a_mistyped_key_gets_the_nearest_one() {
    insta::assert_snapshot!(after("block_size:", "blocksize:"));
}

#[test]
fn a_mistyped_name_gets_the_nearest_one() {
    insta::assert_snapshot!(after("SelfAttention", "SelfAtention"));
}

#[test]
fn a_key_that_resembles_none_gets_the_list() {
    insta::assert_snapshot!(after("version: 1", "größe: 1"));
}

#[test]
fn columns_count_characters_and_not_bytes() {
    insta::assert_snapshot!(after("origin: \"hand\"", "origin: \"größer\", sede: Some(7)"));
}

#[test]
fn a_newer_version_is_named() {
    insta::assert_snapshot!(after("version: 1", "version: 2"));
}

#[test]
fn a_missing_key_is_named() {
    insta::assert_snapshot!(after("    elementwise: 640,\n", ""));
}

#[test]
fn a_key_given_twice_is_named() {
    insta::assert_snapshot!(after("version: 1,", "version: 1, version: 1,"));
}

#[test]
fn a_negative_number_is_shown_where_it_stands() {
    insta::assert_snapshot!(after("queries: 20", "queries: -20"));
}

#[test]
fn a_text_in_place_of_a_number_is_shown_where_it_stands() {
    insta::assert_snapshot!(after("queries: 20", "queries: \"20\""));
}

#[test]
fn a_wrong_digest_is_shown_where_it_stands() {
    insta::assert_snapshot!(after("sha256:227cc5f92f2bd77ff402f062ae73e820", "sha256:"));
}

#[test]
fn self_attention_over_two_lengths_is_shown_at_the_end_of_its_model() {
    insta::assert_snapshot!(after("queries: 20", "queries: 40"));
}

#[test]
fn a_missing_comma_is_shown_where_it_belongs() {
    insta::assert_snapshot!(after("elementwise: 640,\n  ),\n", "elementwise: 640,\n  )\n"));
}

#[test]
fn a_missing_file_is_named() {
    let error = Blueprint::load(Path::new("no/such/blueprint.ron")).unwrap_err();
    assert_eq!(error.to_string(), "no/such/blueprint.ron cannot be read");
}

#[test]
fn figures_and_names_that_nothing_has_are_refused() {
    let text = two_heads().to_ron();
    let with = |provenance: &str| {
        let from = text.find("provenance: (").unwrap();
        report(&format!("{}provenance: ({provenance}),\n)", &text[..from]))
    };
    let predicted = |figures: &str| {
        with(&format!(
            "predicted: Some((device: \"d\", dataflow: \"flash\", batch: 1, {figures}, end_to_end_speedup: 1, joules: 1))"
        ))
    };
    for (report, told) in [
        (with(r#"origin: "\u{1b}[31m""#), "names hold no control characters"),
        (
            predicted("seconds: -1.0, speedup: 2.0"),
            "predicted.seconds, of the figures and names that it carries, is -1",
        ),
        (predicted("seconds: 1.0, speedup: NaN"), "is NaN; it is zero or more, and finite"),
        (
            with(r#"accuracy: Some((split: "test", examples: 1, dense: 0.5, masked: 7.8, drop: 0.0))"#),
            "accuracy.masked, of the figures and names that it carries, is 7.8; it is a share of one",
        ),
    ] {
        assert!(report.contains(told), "{report}");
    }
}
