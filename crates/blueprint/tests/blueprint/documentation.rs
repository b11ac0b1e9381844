//! What `docs/blueprint.md` shows is true.

use std::path::Path;

use maskwright_blueprint::{BlockSize, Blueprint, parse_ron};

const PAGE: &str = include_str!("../../../../docs/blueprint.md");

/// The page's example, and the rest of the page behind it.
fn example() -> (Blueprint, &'static str) {
    let (_, page) = PAGE.split_once("```ron\n").unwrap();
    let (text, rest) = page.split_once("```\n").unwrap();
    let blueprint: Blueprint = parse_ron(text, Path::new("docs/blueprint.md")).unwrap();
    assert_eq!(blueprint.to_ron(), text, "the example is written as the program writes it");
    (blueprint, rest)
}

#[test]
fn the_example_has_the_digest_and_density_that_the_page_states() {
    let (blueprint, rest) = example();
    assert!(rest.contains(&format!("\n{}\n", blueprint.digest())));
    assert_eq!(blueprint.density(), 410.0 / 578.0);
    assert!(rest.contains("410 of\n578, or 0.7093"));
}

#[test]
fn the_page_names_every_key() {
    let (blueprint, rest) = example();
    let text = blueprint.to_ron();
    let keys = text.lines().filter_map(|line| line.trim().split_once(": ")).map(|(key, _)| key);
    for key in keys.filter(|key| !["rows", "inputs", "outputs", "count", "shape"].contains(key)) {
        let named = [format!("`{key}`"), format!(".{key}`"), format!("`{key}.")].iter().any(|name| rest.contains(name));
        assert!(named, "the page says nothing of `{key}`");
    }
}

#[test]
fn the_page_shows_the_refined_tensor() {
    let (blueprint, rest) = example();
    let bytes = blueprint.to_safetensors();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mask = tensors.tensor("mask.l0").unwrap();
    assert_eq!(mask.shape(), [2, BlockSize::B8.cover(17) as usize, 3]);
    let rows: Vec<_> = mask.data()[..9].chunks(3).map(|row| format!("{} {} {}", row[0], row[1], row[2])).collect();
    assert!(rest.contains(&format!("```text\n{}\n```", rows.join("\n"))));
}
