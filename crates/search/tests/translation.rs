//! A search for a translator, from sentences to a blueprint that is measured again with its own weights and vocabulary.

use std::{fs, path::Path};

use maskwright_blueprint::{BlockSize, Blueprint, Precision};
use maskwright_evaluator::{ModelSource, ParallelFiles, Recipe, Task};
use maskwright_search::{
    Budget, Kappa, ModelConfig, Search, SearchConfig, SearchError, Silent, Space, Tolerance, VOCABULARY,
    cross_validate, evaluate,
};
use maskwright_transformer::{Tokeniser, TranslatorConfig};

/// Numbers of two to ten digits, and the same in words.
fn spelling(folder: &Path) -> Task {
    const WORDS: [&str; 4] = ["one", "two", "three", "four"];
    let row = |at: usize| {
        let digit = |place: usize| (at * 7 + at / 13 * place + place * place) % 4;
        let digits: Vec<usize> = (0..at % 9 + 2).map(digit).collect();
        let source: Vec<String> = digits.iter().map(|digit| (digit + 1).to_string()).collect();
        let target: Vec<&str> = digits.iter().map(|digit| WORDS[*digit]).collect();
        format!("{}\t{}\n", source.join(" "), target.join(" "))
    };
    let path = folder.join("pairs.tsv");
    fs::write(&path, format!("digits\twords\n{}", (0..300).map(row).collect::<String>())).unwrap();
    let files = || ParallelFiles::Table { path: path.clone(), source: "digits".into(), target: "words".into() };
    Task::Translation { name: "spelling".into(), train: files(), validation: None, test: files(), most: None }
}

fn config(task: Task) -> SearchConfig {
    let translator = TranslatorConfig {
        vocabulary: 280,
        width: 32,
        encoder_layers: 1,
        decoder_layers: 1,
        heads: 2,
        mlp: 32,
        source_length: 16,
        target_length: 16,
    };
    let training = Recipe { epochs: 30, batch: 16, learning_rate: 5e-3, ..Recipe::default() };
    SearchConfig {
        model: ModelConfig {
            name: "speller".into(),
            source: ModelSource::NewTranslator { translator },
            training: training.clone(),
        },
        task,
        space: Space { block_sizes: vec![BlockSize::B8], precisions: vec![Precision::Int8, Precision::Single] },
        budget: Budget::Density(0.8),
        tolerance: Tolerance::Absolute(0.05),
        evaluations: 12,
        loop_examples: 15,
        calibration_examples: 32,
        kappa: Kappa::Scan(4),
        finalists: 2,
        fine_tune: Recipe { epochs: 3, distillation: 0.5, ..training },
        baselines: Vec::new(),
        ..SearchConfig::default()
    }
}

#[test]
fn a_searched_translator_is_measured_in_bleu_and_measured_again_from_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(spelling(folder.path()));
    let search = Search::start(config.clone(), "spelling.ron", folder.path()).unwrap();
    let run = search.directory().to_owned();
    let outcome = search.run(&mut Silent).unwrap();
    let dense = outcome.dense.translation.unwrap();
    assert!(dense.bleu > 90.0 && dense.chrf > 90.0, "{dense:?}");
    assert!(outcome.table.iter().all(|row| row.translation.is_some()), "{:?}", outcome.table);
    // A word is a token, an end is a token: 33 times 2 + 3 + … + 10 words, then 2, 3 and 4, and 300 ends.
    assert_eq!((outcome.details.test_examples, outcome.details.test_answers), (300, Some(33 * 54 + 9 + 300)));
    let right = outcome.samples.iter().filter(|sample| sample.dense == sample.reference).count();
    assert!(outcome.samples.len() == 8 && right > 4, "{:?}", outcome.samples);
    let searched = outcome.table.iter().find(|row| row.name == "searched").unwrap();

    let file = run.join("best/searched.ron");
    let vocabulary = file.with_extension(VOCABULARY);
    let provenance = Blueprint::load(&file).unwrap().provenance;
    assert_eq!(provenance.vocabulary, Some(Tokeniser::load(&vocabulary).unwrap().digest()));
    let recorded = provenance.accuracy.unwrap().translation.unwrap();
    assert_eq!((recorded.dense, Some(recorded.masked)), (dense, searched.translation));
    let measured = evaluate(&file, &config, &folder.path().join("cache"), &mut Silent).unwrap();
    assert!(measured.fine_tuned);
    assert_eq!((measured.masked, measured.translation), (searched.accuracy, Some(recorded)));

    // Another vocabulary would measure other sentences, and so would one that is learnt anew.
    let evaluated_again = || evaluate(&file, &config, &folder.path().join("cache"), &mut Silent);
    let kept = fs::read(&vocabulary).unwrap();
    fs::write(&vocabulary, Tokeniser::learn(["eins zwei"].into_iter(), 280).unwrap().to_json()).unwrap();
    let refused = evaluated_again().unwrap_err();
    assert!(matches!(refused, SearchError::OtherVocabulary { .. }), "{refused}");
    fs::remove_file(&vocabulary).unwrap();
    let refused = evaluated_again().unwrap_err();
    assert!(matches!(refused, SearchError::NoVocabulary { .. }), "{refused}");
    fs::write(&vocabulary, kept).unwrap();

    let refused = cross_validate(&file, &config, 2, &[1], folder.path(), &mut Silent).unwrap_err();
    assert!(matches!(refused, SearchError::NoSingleAnswer { .. }), "{refused}");
}
