//! A pretrained text model on texts of different lengths, from a table to a fine-tuned mask.

use std::{fs, ops::ControlFlow, path::PathBuf};

use maskwright_blueprint::{BlockSize, Blueprint, HeadId, Precision};
use maskwright_evaluator::{
    DenseModel, Evaluator, Labels, ModelSource, Recipe, Split, Task, TaskError, TextTable, Treatment,
};
use maskwright_transformer::{Backend, EncoderConfig, EncoderInput, Pooling};
use tempfile::TempDir;

fn tiny_bert() -> ModelSource {
    bert_for(16)
}

/// Which reads texts of at most `length` tokens.
fn bert_for(length: u32) -> ModelSource {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../transformer/tests/references/bert"));
    ModelSource::Pretrained { folder, length: Some(length), target_length: None, pooling: Pooling::Mean }
}

/// Sixty texts of one to twenty words; the label says whether their number is even.
fn counting() -> (TempDir, Task) {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..60).map(|at| format!("{}\t{}\n", at % 2, vec!["the"; at % 20 + 1].join(" "))).collect();
    let path = folder.path().join("texts.tsv");
    fs::write(&path, format!("label\ttext\n{rows}")).unwrap();
    let table = TextTable { text: "text".into(), second: None, label: "label".into(), labels: Labels::Numbers(2) };
    let task = Task::Texts { name: "counting".into(), train: path.clone(), validation: None, test: path, table };
    (folder, task)
}

#[test]
fn texts_are_parted_cut_and_counted() {
    let (_folder, task) = counting();
    let DenseModel { data, shape, .. } = DenseModel::untrained("tiny", &tiny_bert(), &task, Backend::Flex, 1).unwrap();
    assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (54, 6, 60));
    // A word is three tokens: four words and two special tokens fit, 5 to 20 words do not: 16 of 20 texts.
    assert_eq!(data.truncated(), Some((96, 120)));
    assert_eq!(shape.modules[0].shape.queries, 16);
}

#[test]
fn a_model_without_room_for_text_is_refused() {
    let (_folder, task) = counting();
    // A class token and two separators stand around a pair.
    let Err(error) = DenseModel::untrained("tiny", &bert_for(3), &task, Backend::Flex, 1) else {
        panic!("it was taken")
    };
    let text = error.to_string();
    assert!(text.starts_with("3 tokens leave no room for text beside 3 special ones: raise `length`"), "{text}");
    assert!(DenseModel::untrained("tiny", &bert_for(4), &task, Backend::Flex, 1).is_ok());
}

#[test]
fn padding_is_neither_answered_nor_calibrated() {
    let (_folder, task) = counting();
    let dense = DenseModel::untrained("tiny", &tiny_bert(), &task, Backend::Flex, 1).unwrap();
    let evaluator = Evaluator::new(dense, 3);
    let calibration = evaluator.calibrate(54, 1).unwrap();
    for head in 0..4 {
        let blocks = calibration.head(HeadId { module: 1, head }).blocks(BlockSize::B8);
        assert_eq!((blocks.rows, blocks.columns), (2, 2));
        for row in blocks.mass.chunks(2) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "the mass of a row of real queries is 1: {row:?}");
        }
    }
    // Under masks with every block active, answers are those of the dense model whatever a text's length.
    let all = Blueprint::dense(evaluator.shape().clone(), BlockSize::B8, Precision::Single);
    assert!(evaluator.measure(std::slice::from_ref(&all)).unwrap()[0].distortion.abs() < 1e-6);
    let dense = evaluator.accuracy(evaluator.dense(), Treatment::Dense, Split::Test).unwrap();
    assert_eq!(evaluator.accuracy(evaluator.dense(), Treatment::Masked(&all), Split::Test).unwrap(), dense);
    let store = tempfile::tempdir().unwrap();
    let recipe = Recipe { epochs: 1, batch: 9, ..Recipe::default() };
    let half = Blueprint::dense(evaluator.shape().clone(), BlockSize::B8, Precision::Half);
    let mut steps = 0;
    let tuned = evaluator.fine_tune(Treatment::Masked(&half), &recipe, 1, store.path(), &mut |progress| {
        assert!(progress.loss.is_some_and(f64::is_finite));
        steps += 1;
        ControlFlow::Continue(())
    });
    assert_eq!((tuned.is_ok(), steps), (true, 6));
}

#[test]
fn a_model_that_reads_no_text_is_refused() {
    let (_folder, task) = counting();
    let input = EncoderInput::Tokens { length: 16, vocabulary: 60 };
    let source =
        ModelSource::New { encoder: EncoderConfig { input, width: 8, layers: 1, heads: 1, mlp: 8, classes: 2 } };
    let model = source.build(Some(2), 1, &burn::tensor::Device::flex()).unwrap().model;
    let Err(TaskError::Unfit { model, task }) = task.load(&model, None) else { panic!("it was taken") };
    let expected =
        ("at most 16 tokens out of 60 and 2 classes", "texts, which take a model with a tokeniser, and 2 classes");
    assert_eq!((model.as_str(), task.as_str()), expected);
}
