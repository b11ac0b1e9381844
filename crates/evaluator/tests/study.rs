//! A cross-validation whose labels cannot be known: whatever is answered of examples that were held out is chance.

use std::{fs, ops::ControlFlow, path::Path};

use maskwright_blueprint::{BlockSize, Blueprint, Precision};
use maskwright_evaluator::{DenseModel, ModelSource, Recipe, Study, Task, Treatment};
use maskwright_transformer::{Backend, EncoderConfig, EncoderInput};
use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};

const CLASSES: u8 = 10;

/// Images of 8 x 8 pixels and their labels, all of them drawn.
fn write(folder: &Path, part: &str, count: u32, generator: &mut ChaCha12Rng) {
    let mut drawn = |count: u32, below: u8| (0..count).map(|_| generator.random_range(0..below)).collect::<Vec<u8>>();
    let idx = |shape: &[u32], bytes: Vec<u8>| {
        let lengths = shape.iter().flat_map(|length| length.to_be_bytes());
        [0, 0, 8, shape.len() as u8].into_iter().chain(lengths).chain(bytes).collect::<Vec<u8>>()
    };
    let (pixels, labels) = (drawn(count * 64, u8::MAX), drawn(count, CLASSES));
    fs::write(folder.join(format!("{part}-images-idx3-ubyte")), idx(&[count, 8, 8], pixels)).unwrap();
    fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), idx(&[count], labels)).unwrap();
}

#[test]
fn what_is_held_out_is_not_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut generator = ChaCha12Rng::seed_from_u64(11);
    for (part, count) in [("train", 120), ("validation", 40), ("test", 100)] {
        write(folder.path(), part, count, &mut generator);
    }
    let images = folder.path().into();
    let task = Task::Idx { name: "noise".into(), folder: images, mean: 0.5, deviation: 0.29, classes: 10 };
    let input = EncoderInput::Image { side: 8, patch: 4, channels: 1, overlap: 0 };
    let encoder = EncoderConfig { input, width: 32, layers: 1, heads: 2, mlp: 64, classes: 10 };
    let source = ModelSource::New { encoder };
    let shape = DenseModel::untrained("noise", &source, &task, Backend::Flex, 1).unwrap().shape;
    let whole = Blueprint::dense(shape, BlockSize::B8, Precision::Single);
    let recipe = Recipe { epochs: 60, batch: 40, learning_rate: 1e-2, ..Recipe::default() };
    let treatments = [("tuned".to_owned(), Treatment::Masked(&whole)), ("identity".to_owned(), Treatment::Identity)];
    let study = Study {
        name: "noise",
        source: &source,
        task: &task,
        backend: Backend::Flex,
        training: &recipe,
        fine_tune: &Recipe { epochs: 10, learning_rate: 1e-3, ..recipe.clone() },
        treatments: &treatments,
        folds: 2,
        seeds: &[1, 2],
        store: &folder.path().join("store"),
    };
    let mut losses = Vec::new();
    let trials = study.run(&mut |progress| {
        let last = progress.training.filter(|of| of.step == of.steps && progress.now.ends_with("dense"));
        losses.extend(last.and_then(|of| of.loss));
        ControlFlow::Continue(())
    });
    let trials = trials.unwrap();
    assert_eq!((trials.len(), losses.len()), (2 * 2 * 3, 2 * 2));
    // What is trained on is known by heart: a model that guesses has a loss of ln 10 = 2.3.
    assert!(losses.iter().all(|loss| *loss < 0.1), "{losses:?}");
    // Chance is 1 in 10. Over 160 examples, each held out once, that is 16 with a standard deviation of 3.8, and over 100
    // test examples 10 with one of 3; had half of what is held out been trained on, there were 88.
    for (treatment, seed) in ["dense", "tuned", "identity"].iter().flat_map(|name| [(name, 1), (name, 2)]) {
        let of: Vec<_> = trials.iter().filter(|of| of.treatment == **treatment && of.seed == seed).collect();
        let right = |answers: &[bool]| answers.iter().filter(|right| **right).count();
        let held_out: usize = of.iter().map(|of| right(&of.held_out)).sum();
        assert_eq!(of.iter().map(|of| of.held_out.len()).sum::<usize>(), 160);
        assert!((1..=35).contains(&held_out), "{treatment}, seed {seed}: {held_out} of 160");
        assert!(of.iter().all(|of| right(&of.test) <= 25), "{treatment}, seed {seed}: {of:?}");
    }
}
