//! Metrics against numbers that can be checked by hand, and against sacrebleu (`references/metrics.py`).

use maskwright_evaluator::{Bleu, accuracy, chrf, f1, top_k};
use serde_json::Value;

#[test]
fn bleu_and_chrf_are_those_of_sacrebleu() {
    let made: Value = serde_json::from_str(include_str!("references/translations.json")).unwrap();
    let texts = |value: &'_ Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let sets = made["sets"].as_array().unwrap();
    assert_eq!(sets.len(), 9);
    for set in sets {
        let translations = texts(&set["translations"]);
        let references: Vec<Vec<String>> = set["references"].as_array().unwrap().iter().map(texts).collect();
        let pairs = || {
            let references = references.iter().map(|of_one| of_one.iter().map(String::as_str).collect::<Vec<_>>());
            translations.iter().map(String::as_str).zip(references)
        };
        let bleu = Bleu::of(pairs());
        let figures = [bleu.score, bleu.brevity_penalty, chrf(pairs())].into_iter().chain(bleu.precisions);
        let expected = [&set["bleu"], &set["brevity_penalty"], &set["chrf"]];
        let expected = expected.into_iter().chain(set["precisions"].as_array().unwrap());
        for (figure, expected) in figures.zip(expected) {
            let expected = expected.as_f64().unwrap();
            assert!((figure - expected).abs() < 1e-9, "{}: {figure}, sacrebleu {expected}", set["name"]);
        }
        let tokens = [bleu.translation_tokens, bleu.reference_tokens];
        assert_eq!(serde_json::json!(tokens), set["tokens"], "{}", set["name"]);
    }
}

#[test]
fn accuracy_and_f1_of_eight_examples() {
    let (found, labels) = ([1, 1, 1, 0, 0, 1, 0, 0], [1, 1, 0, 0, 1, 1, 1, 0]);
    assert_eq!(accuracy(&found, &labels), 5.0 / 8.0);
    // Three found rightly of four found and of five that are there.
    assert_eq!(f1(&found, &labels, 1), 2.0 * 3.0 / 9.0);
    assert_eq!(f1(&[0, 0], &[0, 0], 1), 0.0);
}

#[test]
fn the_label_must_be_among_the_k_highest_scores() {
    let scores = [0.1, 0.5, 0.4, /* */ 0.3, 0.3, 0.4, /* */ f32::NAN, 0.0, 1.0];
    let labels = [2, 1, 0];
    assert_eq!([1, 2, 3].map(|k| top_k(&scores, 3, &labels, k)), [0.0, 1.0 / 3.0, 2.0 / 3.0]);
}
