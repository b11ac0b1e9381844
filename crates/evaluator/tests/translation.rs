//! A translator that starts from nothing: from parallel text to decoded sentences, dense and masked.

use std::{fs, ops::ControlFlow, path::Path};

use burn::tensor::Device;
use maskwright_blueprint::{
    AttentionKind, AttentionShape, BlockMask, BlockSize, Blueprint, HeadId, HeadMask, ModelShape, Precision, Provenance,
};
use maskwright_evaluator::{
    DenseModel, Evaluator, EvaluatorError, ModelSource, ParallelFiles, Recipe, Split, Store, Study, Task, TaskError,
    Teacher, Training, TrainingError, Treatment,
};
use maskwright_transformer::{
    Attention, Backend, EncoderConfig, EncoderInput, Inputs, Tokeniser, TranslatorConfig, weights_digest,
};
use tempfile::TempDir;

const DIGITS: [&str; 4] = ["one", "two", "three", "four"];

/// `1 3 2` is to become `one three two`: numbers of one to `longest` digits.
fn spelling(count: usize, longest: usize) -> (TempDir, Task) {
    let folder = tempfile::tempdir().unwrap();
    let row = |at: usize| {
        let digits: Vec<usize> =
            (0..at % longest + 1).map(|place| (at * 7 + at / 13 * place + place * place) % 4).collect();
        let source: Vec<String> = digits.iter().map(|digit| (digit + 1).to_string()).collect();
        let target: Vec<&str> = digits.iter().map(|digit| DIGITS[*digit]).collect();
        format!("{}\t{}\n", source.join(" "), target.join(" "))
    };
    let rows: String = (0..count).map(row).collect();
    let path = folder.path().join("pairs.tsv");
    fs::write(&path, format!("digits\twords\n{rows}")).unwrap();
    (folder, task(&path))
}

fn task(path: &Path) -> Task {
    let files = || ParallelFiles::Table { path: path.into(), source: "digits".into(), target: "words".into() };
    Task::Translation { name: "spelling".into(), train: files(), validation: None, test: files(), most: None }
}

fn source(source_length: u32) -> ModelSource {
    let translator = TranslatorConfig {
        vocabulary: 280,
        width: 32,
        encoder_layers: 1,
        decoder_layers: 1,
        heads: 2,
        mlp: 32,
        source_length,
        target_length: 16,
    };
    ModelSource::NewTranslator { translator }
}

fn recipe(epochs: u32) -> Recipe {
    Recipe { epochs, batch: 16, learning_rate: 5e-3, label_smoothing: 0.1, distillation: 0.5, ..Recipe::default() }
}

/// Blocks on the diagonal alone, and the whole source for cross-attention.
fn diagonal(shape: &ModelShape, precision: Precision) -> Blueprint {
    let mask = |of: &AttentionShape| {
        let full = HeadMask::dense(of, BlockSize::B8, precision).blocks;
        let diagonal = |at: usize| at / full.columns() == at % full.columns();
        let kept = |at| (of.kind == AttentionKind::CrossAttention || diagonal(at)).then_some(precision);
        let blocks = BlockMask::new(full.columns(), (0..full.cells().len()).map(kept).collect()).unwrap();
        vec![HeadMask { block_size: BlockSize::B8, blocks }; of.heads as usize]
    };
    let masks = shape.modules.iter().map(|module| mask(&module.shape)).collect();
    Blueprint::new(shape.clone(), masks, Provenance::default()).unwrap()
}

#[test]
fn a_translator_learns_to_spell_and_keeps_to_its_masks_while_decoding() {
    let (folder, task) = spelling(400, 9);
    let learnt = DenseModel::untrained("speller", &source(16), &task, Backend::Flex, 1).unwrap();
    let dense = learnt.trained(&recipe(30), 1, folder.path(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((dense.data.train.len(), dense.data.validation.len()), (360, 40));
    let evaluator = Evaluator::new(dense, 20);
    let translated = |masks| evaluator.translate(evaluator.dense(), masks, Split::Test).unwrap();
    let found = translated(None);
    assert!(found.quality.bleu > 90.0, "{:?} {:?}", found.quality, &found.texts[..5]);
    assert!(evaluator.accuracy(evaluator.dense(), Treatment::Dense, Split::Test).unwrap() > 0.95);
    // All blocks in single precision are dense attention, and what is decoded is the same.
    let all = Blueprint::dense(evaluator.shape().clone(), BlockSize::B8, Precision::Single);
    assert_eq!(translated(Some(&all)), found);
    assert!(evaluator.measure(std::slice::from_ref(&all)).unwrap()[0].distortion.abs() < 1e-6);
    // A token of the decoder's second row of blocks no longer sees the first eight.
    let diagonal = diagonal(evaluator.shape(), Precision::Single);
    let effect = evaluator.select(evaluator.dense(), &diagonal).unwrap();
    assert!(effect.distortion > 1e-4, "{effect:?}");
    let tuned = evaluator
        .fine_tune(Treatment::Masked(&diagonal), &recipe(4), 1, folder.path(), &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let tuned = evaluator.translate(&tuned, Some(&diagonal), Split::Test).unwrap();
    assert!(tuned.quality.bleu > 90.0, "{:?}", tuned.quality);
}

#[test]
fn a_loss_counts_the_real_tokens_of_a_batch_and_no_padding() {
    let (_folder, task) = spelling(40, 9);
    let dense = DenseModel::untrained("speller", &source(16), &task, Backend::Flex, 1).unwrap();
    let train = &dense.data.train;
    let places = [0, 1, 2, 3, 4, 5];
    let batch = train.batch(&places, &Device::flex()).unwrap();
    let Inputs::Translation(inputs) = &batch else { panic!("{batch:?}") };
    let lengths = inputs.lengths.clone().unwrap();
    let answers: usize = lengths.iter().sum();
    assert!(inputs.target.dims()[1] * places.len() > answers, "some of the batch is padding");
    let scores = dense.model.forward(batch, Attention::Dense);
    assert_eq!(scores.dims(), [answers, 280]);
    assert_eq!(train.labels_of(&places).len(), answers);
    // One by one, without padding, each translation gets the scores that it has in the batch.
    let mut at = 0;
    for (place, length) in places.into_iter().zip(lengths) {
        let alone = dense.model.forward(train.batch(&[place], &Device::flex()).unwrap(), Attention::Dense);
        let together = scores.clone().slice_dim(0, at..at + length);
        let difference = (alone - together).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-5, "example {place} is off by {difference}");
        at += length;
    }
}

#[test]
fn calibration_passes_over_padding_of_sources_and_of_targets() {
    let (_folder, task) = spelling(60, 9);
    let evaluator = Evaluator::new(DenseModel::untrained("speller", &source(16), &task, Backend::Flex, 1).unwrap(), 3);
    let calibration = evaluator.calibrate(54, 1).unwrap();
    for (module, of) in evaluator.shape().modules.iter().enumerate() {
        for head in 0..of.shape.heads {
            let blocks = calibration.head(HeadId { module: module as u32, head }).blocks(BlockSize::B8);
            let sums: Vec<f32> = blocks.mass.chunks(blocks.columns).map(|row| row.iter().sum()).collect();
            assert!(
                sums.iter().all(|sum| (sum - 1.0).abs() < 1e-5),
                "{}: a row of real queries has 1: {sums:?}",
                of.name
            );
            assert!(blocks.influence.iter().sum::<f32>() > 0.0, "{}: skipping a block would move the loss", of.name);
        }
    }
}

#[test]
fn a_translators_training_that_was_stopped_ends_with_the_same_bits() {
    let (folder, task) = spelling(60, 9);
    let dense = DenseModel::untrained("speller", &source(16), &task, Backend::Flex, 1).unwrap();
    let recipe = recipe(2);
    let half = Blueprint::dense(dense.shape.clone(), BlockSize::B8, Precision::Half);
    let training = |folder| Training {
        name: "speller",
        section: "fine_tune",
        examples: &dense.data.train,
        recipe: &recipe,
        treatment: Treatment::Masked(&half),
        teacher: Some(Teacher::Model(&dense.model)),
        judge: None,
        seed: 5,
        store: folder,
    };
    let run = |store, stop| {
        training(store).run(dense.model.clone(), &mut |progress| match progress.step == stop {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    };
    let whole = run(None, 0).unwrap();
    let store = Some(Store { folder: folder.path(), prefix: "tuned" });
    assert!(matches!(run(store, 3), Err(TrainingError::Interrupted { step: 3, steps: 8 })));
    assert_eq!(weights_digest(&run(store, 0).unwrap().model), weights_digest(&whole.model));
}

#[test]
fn scores_that_were_kept_teach_what_the_model_teaches() {
    let (_folder, task) = spelling(40, 9);
    let dense = DenseModel::untrained("speller", &source(16), &task, Backend::Flex, 1).unwrap();
    let train = &dense.data.train;
    let all: Vec<usize> = (0..train.len()).collect();
    let kept = dense.model.forward(train.batch(&all, &Device::flex()).unwrap(), Attention::Dense);
    let recipe = Recipe { distillation: 1.0, ..recipe(1) };
    let losses = |teacher| {
        let mut losses = Vec::new();
        let training = Training {
            name: "speller",
            section: "fine_tune",
            examples: train,
            recipe: &recipe,
            treatment: Treatment::Dense,
            teacher: Some(teacher),
            judge: None,
            seed: 5,
            store: None,
        };
        training
            .run(dense.model.clone(), &mut |progress| {
                losses.extend(progress.loss);
                ControlFlow::Continue(())
            })
            .unwrap();
        losses
    };
    let (kept, asked) = (losses(Teacher::Scores(&kept)), losses(Teacher::Model(&dense.model)));
    assert_eq!(kept.len(), 3);
    assert!(kept.iter().zip(&asked).all(|(a, b)| (a - b).abs() < 1e-4), "{kept:?} {asked:?}");
}

#[test]
fn the_same_sentences_give_the_same_vocabulary_and_a_kept_one_is_used_again() {
    let (folder, task) = spelling(60, 9);
    let learnt = || DenseModel::untrained("speller", &source(16), &task, Backend::Flex, 1).unwrap();
    let json = learnt().tokeniser.unwrap().to_json();
    assert_eq!(learnt().tokeniser.unwrap().to_json(), json);
    // Of other words, so that the task's own are cut into other pieces.
    let path = folder.path().join("kept.tokenizer.json");
    let others = Tokeniser::learn(["eins zwei drei", "zwei drei vier"].into_iter(), 280).unwrap();
    fs::write(&path, others.to_json()).unwrap();
    let with_kept = || {
        let kept = Tokeniser::load(&path).unwrap();
        DenseModel::untrained_with("speller", &source(16), &task, Backend::Flex, 1, Some(kept)).unwrap()
    };
    let kept = with_kept();
    assert_eq!(kept.tokeniser.as_ref().unwrap().digest(), others.digest());
    assert_ne!(kept.data.digest(), learnt().data.digest());
    assert_eq!(kept.data.digest(), with_kept().data.digest());
}

#[test]
fn sentences_that_were_cut_are_counted() {
    let (_folder, task) = spelling(40, 9);
    // A digit is one token and the end another: of 40 sources, the four each of 5 to 9 digits do not fit into five tokens.
    let DenseModel { data, .. } = DenseModel::untrained("speller", &source(5), &task, Backend::Flex, 1).unwrap();
    let (cut, all) = data.truncated().unwrap();
    assert_eq!(all, 2 * (40 + 40));
    let long = |examples: usize| (0..examples).filter(|at| at % 9 + 1 > 4).count();
    assert_eq!(cut, 2 * long(40));
}

#[test]
fn pairs_that_lack_a_side_are_counted() {
    let (folder, _) = spelling(1, 1);
    let path = folder.path().join("gaps.tsv");
    let rows = "1\tone\n2 \t\n".repeat(20);
    fs::write(&path, format!("digits\twords\n{rows}")).unwrap();
    let DenseModel { data, .. } =
        DenseModel::untrained("speller", &source(16), &task(&path), Backend::Flex, 1).unwrap();
    assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (18, 2, 20));
    assert_eq!(data.empty_pairs(), 20 + 20, "of the training file and of the same file as test");
}

#[test]
fn a_study_refuses_translations_before_anything_is_trained() {
    let (folder, task) = spelling(40, 3);
    let (source, recipe) = (source(16), recipe(1));
    let study = Study {
        name: "speller",
        source: &source,
        task: &task,
        backend: Backend::Flex,
        training: &recipe,
        fine_tune: &recipe,
        treatments: &[],
        folds: 2,
        seeds: &[1],
        store: folder.path(),
    };
    let refused = study.run(&mut |progress| panic!("{progress:?}")).unwrap_err();
    assert!(matches!(&refused, EvaluatorError::NoSingleAnswer { task } if task == "spelling"), "{refused}");
}

#[test]
fn bad_input_gives_one_clear_error() {
    let (folder, task_of_digits) = spelling(40, 3);
    let path = folder.path().join("broken.tsv");
    fs::write(&path, "digits\twords\n1\tone\n2\n").unwrap();
    let refused =
        |source: &ModelSource, task: &Task| match DenseModel::untrained("speller", source, task, Backend::Flex, 1) {
            Err(error) => error,
            Ok(_) => panic!("it was taken"),
        };
    let error = refused(&source(16), &task(&path)).to_string();
    assert!(error.starts_with("line 3 of ") && error.ends_with("has 1 fields, the first row names 2"), "{error}");
    // A model that does not translate, and a translator with another task.
    let input = EncoderInput::Tokens { length: 16, vocabulary: 60 };
    let encoder = EncoderConfig { input, width: 8, layers: 1, heads: 1, mlp: 8, classes: 2 };
    let error = refused(&ModelSource::New { encoder }, &task_of_digits);
    assert!(matches!(&error, EvaluatorError::Task(TaskError::Unfit { .. })), "{error}");
    let error = refused(&source(2), &task_of_digits).to_string();
    assert!(error.starts_with("2 tokens leave no room for text beside 2 special ones"), "{error}");
    let error = refused(&source(16), &Task::BlockRecall).to_string();
    assert!(error.starts_with("the model reads texts to translate, the task gives `block-recall`"), "{error}");
    let ModelSource::NewTranslator { translator } = source(16) else { unreachable!() };
    for (wrong, told) in [
        (TranslatorConfig { vocabulary: 100, ..translator }, "a vocabulary of 100"),
        (TranslatorConfig { source_length: 3, ..translator }, "sentences of 3 tokens"),
        (TranslatorConfig { heads: 3, ..translator }, "width 32 is no multiple of 3 heads"),
        (TranslatorConfig { width: 1 << 24, heads: 1, ..translator }, "parameters"),
    ] {
        let why = ModelSource::NewTranslator { translator: wrong }.check().unwrap_err();
        assert!(why.contains(told), "{why}");
    }
}
