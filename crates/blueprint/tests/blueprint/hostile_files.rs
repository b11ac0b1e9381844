//! Files from strangers end in an error, never in a panic or in memory without bound.

use std::path::Path;

use maskwright_blueprint::{Blueprint, RonError, parse_ron};
use proptest::{collection::vec, prelude::*};
use serde::Deserialize;

use crate::models::two_heads;

fn read(text: &str) -> Result<Blueprint, RonError> {
    parse_ron(text, Path::new("b.ron"))
}

#[test]
fn every_cut_of_a_blueprint_is_refused() {
    let text = two_heads().to_ron();
    let text = text.trim_end();
    for end in 0..text.len() {
        assert!(read(&text[..end]).is_err(), "cut after {end} of {} bytes", text.len());
    }
}

#[test]
fn every_cut_of_a_safetensors_file_is_refused() {
    let bytes = two_heads().to_safetensors();
    for end in 0..bytes.len() {
        assert!(Blueprint::from_safetensors(&bytes[..end]).is_err(), "cut after {end} of {} bytes", bytes.len());
    }
}

#[test]
fn a_million_brackets_do_not_exhaust_the_stack() {
    for bracket in ["[", "(", "{", "Some(", "/*"] {
        let deep = bracket.repeat(1_000_000);
        assert!(read(&deep).is_err());
        assert!(read(&format!("(version: 1, masks: {deep}")).is_err());
    }
}

#[test]
fn nesting_beyond_the_limit_is_named() {
    #[derive(Debug, Deserialize)]
    struct List(#[expect(dead_code, reason = "only its depth matters")] Vec<List>);

    let error = parse_ron::<List>(&"([".repeat(1000), Path::new("deep.ron")).unwrap_err();
    assert!(error.to_string().ends_with(": nested deeper than 64 levels"), "{error}");
}

#[test]
fn a_ron_file_of_more_than_64_mib_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len((64 << 20) + 1).unwrap(); // sparse: takes no room
    let error = Blueprint::load(file.path()).unwrap_err();
    assert!(error.to_string().ends_with("is larger than 67108864 bytes, more than any file of this kind needs"));
}

#[test]
fn a_safetensors_file_of_more_than_256_mib_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len((256 << 20) + 1).unwrap();
    let error = Blueprint::load_safetensors(file.path()).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "the file is larger than 268435456 bytes, more than any blueprint needs");
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [0xff, 0xfe, 0x00, 0x80]).unwrap();
    assert!(matches!(Blueprint::load(file.path()), Err(RonError::Io { .. })));
}

#[test]
fn a_model_that_promises_four_billion_heads_is_refused_at_its_masks() {
    let text = two_heads().to_ron().replacen("heads: 2", "heads: 4294967295", 1);
    let error = read(&text).unwrap_err().to_string();
    assert!(error.ends_with("module 0 has 4294967295 heads, the blueprint 2 masks for it"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn garbage_is_refused(text in ".*", bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(read(&text).is_err());
        prop_assert!(Blueprint::from_safetensors(&bytes).is_err());
    }

    /// Whatever one changed byte makes of a file, what is read is a blueprint that goes round.
    #[test]
    fn a_changed_byte_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = two_heads().to_ron().into_bytes();
        let place = at.index(text.len());
        text[place] = byte;
        if let Some(blueprint) = String::from_utf8(text).ok().and_then(|text| read(&text).ok()) {
            prop_assert_eq!(read(&blueprint.to_ron()).unwrap(), blueprint);
        }

        let mut bytes = two_heads().to_safetensors();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        if let Ok(blueprint) = Blueprint::from_safetensors(&bytes) {
            prop_assert_eq!(Blueprint::from_safetensors(&blueprint.to_safetensors()).unwrap(), blueprint);
        }
    }
}
