//! Trainings that are stopped, that stop themselves, and that cannot go on.

use std::{fs, ops::ControlFlow, path::Path, sync::Mutex};

use burn::tensor::{Device, Tensor, TensorData};
use maskwright_evaluator::{
    EvaluatorError, Examples, Judge, Kept, Recipe, Store, Teacher, Training, TrainingError, Treatment,
};
use maskwright_transformer::{
    Attention, EncoderConfig, EncoderInput, Model, load_weights, weights_digest, weights_to_bytes,
};

/// Sequences of eight symbols whose label is the first.
fn examples(count: u32) -> Examples {
    let sequence = |at| (0..8).map(|place| (at * 7 + place * (at % 5)) % 4).collect();
    let sequences: Vec<Vec<u32>> = (0..count).map(sequence).collect();
    Examples::sequences(&sequences, (0..count).map(|at| (at * 7) % 4).collect())
}

fn model() -> Model {
    model_of(1, 3)
}

fn model_of(layers: u32, seed: u64) -> Model {
    let input = EncoderInput::Tokens { length: 8, vocabulary: 4 };
    let config = EncoderConfig { input, width: 16, layers, heads: 2, mlp: 16, classes: 4 };
    Model::Encoder(config.init(seed, &Device::flex()))
}

fn training<'a>(examples: &'a Examples, recipe: &'a Recipe, folder: Option<&'a Path>) -> Training<'a> {
    Training {
        name: "tiny",
        section: "model.training",
        examples,
        recipe,
        treatment: Treatment::Dense,
        teacher: None,
        judge: None,
        seed: 5,
        store: folder.map(|folder| Store { folder, prefix: "tiny" }),
    }
}

#[test]
fn a_training_that_was_stopped_three_times_ends_with_the_same_bits() {
    let (examples, recipe) = (examples(40), Recipe { epochs: 3, batch: 8, learning_rate: 1e-2, ..Recipe::default() });
    let whole = training(&examples, &recipe, None).run(model(), &mut |_| ControlFlow::Continue(())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stored = training(&examples, &recipe, Some(folder.path()));
    for stop in [2, 5, 11] {
        let error = stored.run(model(), &mut |progress| match progress.step == stop {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        assert!(matches!(error, Err(TrainingError::Interrupted { step, steps: 15 }) if step == stop));
    }
    let mut steps = Vec::new();
    let trained = stored.run(model(), &mut |progress| {
        steps.push(progress.step);
        ControlFlow::Continue(())
    });
    assert_eq!(steps, [12, 13, 14, 15]);
    let trained = trained.unwrap();
    assert_eq!(weights_digest(&trained.model), weights_digest(&whole.model));
    // Once more: the weights are there, and the state is gone.
    let again = stored.run(model(), &mut |_| panic!("nothing is left to train")).unwrap();
    assert!(again.kept && weights_digest(&again.model) == weights_digest(&whole.model));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn kept_weights_that_do_not_load_are_trained_anew_from_the_same_start() {
    let (examples, recipe) = (examples(16), Recipe { epochs: 1, batch: 8, learning_rate: 1e-2, ..Recipe::default() });
    let folder = tempfile::tempdir().unwrap();
    let stored = training(&examples, &recipe, Some(folder.path()));
    let whole = stored.run(model(), &mut |_| ControlFlow::Continue(())).unwrap();
    let kept = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    // Every tensor of this model, from another seed, and a layer too many.
    std::fs::write(kept, weights_to_bytes(&model_of(2, 9))).unwrap();
    let again = stored.run(model(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(!again.kept);
    assert_eq!(weights_digest(&again.model), weights_digest(&whole.model));
}

#[test]
fn a_state_larger_than_the_model_has_one_is_refused_unread() {
    let (examples, recipe) = (examples(40), Recipe { epochs: 3, batch: 8, learning_rate: 1e-2, ..Recipe::default() });
    let folder = tempfile::tempdir().unwrap();
    let stored = training(&examples, &recipe, Some(folder.path()));
    stored.run(model(), &mut |_| ControlFlow::Break(())).unwrap_err();
    let mut entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let state = entries.find(|path| path.is_dir()).unwrap(); // beside the lock
    let optimiser = fs::OpenOptions::new().write(true).open(state.join("1-optimiser.bpk")).unwrap();
    optimiser.set_len(1 << 30).unwrap(); // sparse: takes no room
    let text = stored.run(model(), &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(text.contains("1-optimiser.bpk: it holds more than ") && text.contains("train anew"), "{text}");
}

#[test]
fn patience_ends_a_training_and_takes_the_weights_of_its_best_epoch() {
    let examples = examples(40);
    let recipe = Recipe { epochs: 9, batch: 8, learning_rate: 1e-2, patience: Some(2), ..Recipe::default() };
    let seen = Mutex::new(Vec::new());
    let judge = |model: &Model| {
        let mut seen = seen.lock().unwrap();
        seen.push(weights_digest(model));
        Ok([0.5, 0.7, 0.6, 0.7, 0.9][seen.len() - 1])
    };
    let training =
        Training { judge: Some(Judge { examples: &examples, accuracy: &judge }), ..training(&examples, &recipe, None) };
    let trained = training.run(model(), &mut |_| ControlFlow::Continue(())).unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.len(), 4); // the second epoch was the best, and two more were no better
    assert_eq!(weights_digest(&trained.model), seen[1]);
}

#[test]
fn a_training_with_patience_that_was_stopped_goes_on_from_its_best_epoch() {
    let examples = examples(40);
    let recipe = Recipe { epochs: 9, batch: 8, learning_rate: 1e-2, patience: Some(2), ..Recipe::default() };
    // The accuracy after each epoch; the second is the best, and two more are no better.
    let run = |folder: &Path, judged: &Mutex<usize>, stop: Option<u64>| {
        let judge = |_: &Model| {
            *judged.lock().unwrap() += 1;
            Ok([0.5, 0.7, 0.6, 0.7][*judged.lock().unwrap() - 1])
        };
        let judge = Some(Judge { examples: &examples, accuracy: &judge });
        let training = Training { judge, ..training(&examples, &recipe, Some(folder)) };
        training.run(model(), &mut |progress| match Some(progress.step) == stop {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    };
    let (folder, judged) = (tempfile::tempdir().unwrap(), Mutex::new(0));
    let whole = run(folder.path(), &judged, None).unwrap();
    let (folder, judged) = (tempfile::tempdir().unwrap(), Mutex::new(0));
    for stop in [7, 10, 12, 15, 18] {
        assert!(matches!(run(folder.path(), &judged, Some(stop)), Err(TrainingError::Interrupted { .. })), "{stop}");
    }
    let resumed = run(folder.path(), &judged, None).unwrap();
    assert_eq!(*judged.lock().unwrap(), 4);
    assert_eq!(weights_digest(&resumed.model), weights_digest(&whole.model));
}

#[test]
fn a_loss_that_is_no_number_leaves_the_state_of_an_earlier_step_as_it_was() {
    let (examples, recipe) = (examples(64), Recipe { epochs: 1, batch: 4, distillation: 0.5, ..Recipe::default() });
    let mut scores = vec![0.0f32; 64 * 4];
    scores[4 * 40] = f32::NAN; // the teacher has no opinion of one example
    let teacher = Tensor::<2>::from_data(TensorData::new(scores, [64, 4]), &Device::flex());
    let folder = tempfile::tempdir().unwrap();
    let training =
        Training { teacher: Some(Teacher::Scores(&teacher)), ..training(&examples, &recipe, Some(folder.path())) };
    let run_until = |stop: u64| {
        let error = training.run(model(), &mut |progress| match progress.step == stop {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        error.unwrap_err()
    };
    // A minute has not passed, so nothing was written down.
    let TrainingError::NotFinite { checkpoint: None, step, .. } = run_until(0) else { panic!("a state is named") };
    assert!(step > 1, "the seed puts that example into a later batch");
    // Stopped after its first step: that state has a loss, the second step's.
    assert!(matches!(run_until(1), TrainingError::Interrupted { step: 1, .. }));
    let TrainingError::NotFinite { checkpoint: Some(kept), .. } = run_until(0) else { panic!("no state is named") };
    assert_eq!(kept.steps, 1);
    let mut last_good = model();
    load_weights(&mut last_good, &kept.path.join("1-weights.safetensors")).unwrap();
    assert_ne!(weights_digest(&last_good), weights_digest(&model()));
    let scores = last_good.forward(examples.batch(&[0], &Device::flex()).unwrap(), Attention::Dense);
    assert!(scores.sum().into_scalar::<f32>().is_finite());
    // Stopped before the step that goes wrong: what that state is worth is not known.
    assert!(matches!(run_until(step), TrainingError::Interrupted { .. }));
    assert!(matches!(run_until(0), TrainingError::NotFinite { checkpoint: None, .. }));
}

#[test]
fn a_training_waits_for_another_process_that_trains_the_same() {
    let (examples, recipe) = (examples(64), Recipe { epochs: 1, batch: 32, ..Recipe::default() });
    let folder = tempfile::tempdir().unwrap();
    let training = training(&examples, &recipe, Some(folder.path()));
    let first = training.run(model(), &mut |_| ControlFlow::Continue(())).unwrap();
    let weights = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
    let [weights] = &weights[..] else { panic!("{weights:?}") };
    let trained = fs::read(weights).unwrap();
    fs::remove_file(weights).unwrap();

    // The other one holds the lock, and comes to its end while it is waited for.
    let mut other = Some(fs::File::create(weights.with_extension("lock")).unwrap());
    other.as_ref().unwrap().lock().unwrap();
    let second = training.run(model(), &mut |progress| {
        assert_eq!(progress.loss, None, "nothing is trained twice");
        if other.take().is_some() {
            fs::write(weights, &trained).unwrap();
        }
        ControlFlow::Continue(())
    });
    let second = second.unwrap();
    assert!(other.is_none() && second.kept);
    assert_eq!(weights_digest(&second.model), weights_digest(&first.model));
}

#[test]
fn whoever_waits_for_another_process_can_be_interrupted() {
    let (examples, recipe) = (examples(64), Recipe { epochs: 1, batch: 32, ..Recipe::default() });
    let folder = tempfile::tempdir().unwrap();
    let training = training(&examples, &recipe, Some(folder.path()));
    training.run(model(), &mut |_| ControlFlow::Continue(())).unwrap();
    let weights = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(&weights).unwrap();
    let other = fs::File::create(weights.with_extension("lock")).unwrap();
    other.lock().unwrap();
    let stopped = training.run(model(), &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(TrainingError::Interrupted { step: 0, .. })), "{stopped:?}");
}

#[test]
fn two_batches_for_one_step_are_one_batch_of_twice_the_size() {
    let examples = examples(64);
    let weights = |batch, accumulate| {
        let recipe = Recipe { epochs: 1, batch, accumulate, learning_rate: 1e-3, ..Recipe::default() };
        let mut losses = Vec::new();
        let trained = training(&examples, &recipe, None).run(model(), &mut |progress| {
            losses.extend(progress.loss);
            ControlFlow::Continue(())
        });
        (losses, trained.unwrap())
    };
    let (large, small) = (weights(32, 1).0, weights(16, 2).0);
    assert_eq!((large.len(), small.len()), (2, 2));
    assert!(large.iter().zip(&small).all(|(a, b)| (a - b).abs() < 1e-5), "{large:?} {small:?}");
}

#[test]
fn a_loss_that_is_no_number_is_told_with_its_training_its_step_and_what_to_lower() {
    let (examples, recipe) = (examples(16), Recipe { epochs: 1, batch: 8, distillation: 0.5, ..Recipe::default() });
    let teacher = Tensor::<2>::full([16, 4], f32::NAN, &Device::flex());
    let folder = tempfile::tempdir().unwrap();
    let training =
        Training { teacher: Some(Teacher::Scores(&teacher)), ..training(&examples, &recipe, Some(folder.path())) };
    let error = training.run(model(), &mut |_| ControlFlow::Continue(())).unwrap_err();
    let expected = "tiny: the loss is NaN at step 0 of 2: lower `model.training.learning_rate`, or check the data";
    assert_eq!(error.to_string(), expected);
    assert_eq!(
        EvaluatorError::from(error).of_row("knapsack").to_string(),
        expected.replacen("tiny", "fine-tuning: knapsack", 1)
    );
    let error = TrainingError::NotFinite {
        name: "dense training".into(),
        section: "model.training",
        loss: f64::INFINITY,
        step: 70,
        steps: 90,
        checkpoint: Some(Kept { path: "cache/x.training".into(), steps: 60 }),
    };
    assert_eq!(
        error.to_string(),
        "dense training: the loss is inf at step 70 of 90: lower `model.training.learning_rate`, or check the data; the \
         state after 60 steps is kept in cache/x.training"
    );
}
