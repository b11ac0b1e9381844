//! Class scores of many examples, and what they say: which answers are right, and how far masks move them.

use std::borrow::Cow;

use burn::tensor::{Tensor, activation::log_softmax};
use maskwright_blueprint::{Blueprint, ModelShape};
use maskwright_transformer::Model;
use rayon::prelude::*;

use crate::{DenseModel, Effect, Examples, ImageFolderError, Treatment};

/// Tokens of one inference pass: bounds memory, changes nothing else.
const BATCH_TOKENS: usize = 8192;

/// Class scores that are held at once, 64 MiB: of more, examples are evaluated part by part.
pub(crate) const MOST_SCORES: usize = 1 << 24;

/// Log-probabilities that are kept, 256 MiB.
const MOST_KEPT: usize = 4 * MOST_SCORES;

/// The dense model's log-probabilities `[answers, classes]` of some examples, part by part.
pub(crate) enum Reference {
    Kept(Vec<Tensor<2>>),
    /// They are too many: computed each time.
    Anew,
}

impl Reference {
    pub(crate) fn of(dense: &DenseModel, examples: &Examples) -> Result<Self, ImageFolderError> {
        match count_scores(examples, &dense.model) > MOST_KEPT {
            true => Ok(Self::Anew),
            false => {
                let parts = parts(examples, &dense.model);
                let kept: Result<_, _> = parts.iter().map(|part| log_probabilities(dense, part)).collect();
                Ok(Self::Kept(kept?))
            }
        }
    }

    /// What masked class scores say of examples that are one part.
    ///
    /// # Panics
    /// When this is of examples that are more than one part.
    pub(crate) fn effect(&self, masked: Tensor<2>, examples: &Examples) -> Effect {
        let Self::Kept(parts) = self else { panic!("one part is kept") };
        let [reference] = &parts[..] else { panic!("{} parts are not one", parts.len()) };
        Effect { distortion: divergence(masked.clone(), reference), accuracy: share(&right_answers(masked, examples)) }
    }
}

/// How far `model` under a blueprint's masks is from the dense model on examples that the reference is of.
pub(crate) fn effect(
    dense: &DenseModel,
    model: &Model,
    blueprint: &Blueprint,
    examples: &Examples,
    reference: &Reference,
) -> Result<Effect, ImageFolderError> {
    let (mut right, mut distortion) = (Vec::with_capacity(examples.labels().len()), 0.0);
    for (at, part) in parts(examples, &dense.model).into_iter().enumerate() {
        let masked = logits(model, &dense.shape, &part, Treatment::Masked(blueprint))?;
        let weight = part.labels().len() as f64 / examples.labels().len() as f64;
        distortion += weight
            * match reference {
                Reference::Kept(kept) => divergence(masked.clone(), &kept[at]),
                Reference::Anew => divergence(masked.clone(), &log_probabilities(dense, &part)?),
            };
        right.extend(right_answers(masked, &part));
    }
    Ok(Effect { accuracy: share(&right), distortion })
}

/// Share of what is true.
pub(crate) fn share(answers: &[bool]) -> f64 {
    answers.iter().filter(|right| **right).count() as f64 / answers.len() as f64
}

/// Of each answer to the examples by a model of this shape, whether it is right.
pub(crate) fn answers(
    model: &Model,
    shape: &ModelShape,
    examples: &Examples,
    treatment: Treatment<'_>,
) -> Result<Vec<bool>, ImageFolderError> {
    let mut right = Vec::with_capacity(examples.labels().len());
    for part in parts(examples, model) {
        right.extend(right_answers(logits(model, shape, &part, treatment)?, &part));
    }
    Ok(right)
}

/// Hands over class scores `[answers, classes]` of the examples by a model of this shape, part by part, each with its
/// examples.
pub(crate) fn logits_by_part(
    model: &Model,
    shape: &ModelShape,
    examples: &Examples,
    treatment: Treatment<'_>,
    mut take: impl FnMut(&Examples, Tensor<2>),
) -> Result<(), ImageFolderError> {
    for part in parts(examples, model) {
        take(&part, logits(model, shape, &part, treatment)?);
    }
    Ok(())
}

/// Class scores `[answers, classes]` of all examples by a model of this shape.
pub(crate) fn logits(
    model: &Model,
    shape: &ModelShape,
    examples: &Examples,
    treatment: Treatment<'_>,
) -> Result<Tensor<2>, ImageFolderError> {
    let device = model.device();
    let treated = treatment.on(&shape.modules, &device);
    let batches = batches(examples, shape);
    let forward = |batch: &Vec<usize>| Ok(model.forward(examples.batch(batch, &device)?, treated.attention()));
    let parts: Result<Vec<_>, _> = batches.par_iter().map(forward).collect();
    Ok(in_order(parts?, &batches, examples))
}

/// Scores that a model gives for all examples.
pub(crate) fn count_scores(examples: &Examples, model: &Model) -> usize {
    examples.labels().len() * model.classes() as usize
}

/// Each batch's rows, put in the order of the examples' answers.
pub(crate) fn in_order(parts: Vec<Tensor<2>>, batches: &[Vec<usize>], examples: &Examples) -> Tensor<2> {
    let together = Tensor::cat(parts, 0);
    // Row `places[at]` is answer `at`.
    let mut places = vec![0; examples.labels().len()];
    for (row, at) in batches.iter().flatten().flat_map(|at| examples.answers(*at)).enumerate() {
        places[at] = row as i32;
    }
    match places.is_sorted() {
        true => together,
        false => {
            let places = Tensor::from_data(places.as_slice(), &together.device());
            together.select(0, places)
        }
    }
}

/// All examples in batches of at most [`BATCH_TOKENS`]; texts of like length together, so that little of a batch is padding.
pub(crate) fn batches(examples: &Examples, shape: &ModelShape) -> Vec<Vec<usize>> {
    let tokens = tokens(shape);
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(|at| examples.length(*at)); // stable
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for at in order {
        // Examples come in order of length: the newest is the longest of its batch.
        let size = BATCH_TOKENS / examples.length(at).unwrap_or(tokens).max(1);
        match batches.last_mut().filter(|batch| batch.len() < size) {
            Some(batch) => batch.push(at),
            None => batches.push(vec![at]),
        }
    }
    batches
}

/// The examples in order, cut so that no part has more than [`MOST_SCORES`] scores, unless a single example has.
fn parts<'a>(examples: &'a Examples, model: &Model) -> Vec<Cow<'a, Examples>> {
    if count_scores(examples, model) <= MOST_SCORES {
        return vec![Cow::Borrowed(examples)];
    }
    let most = MOST_SCORES / model.classes() as usize;
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut answers = 0;
    for at in 0..examples.len() {
        let more = examples.answers(at).len();
        match parts.last_mut().filter(|_| answers + more <= most) {
            Some(part) => part.push(at),
            None => {
                parts.push(vec![at]);
                answers = 0;
            }
        }
        answers += more;
    }
    parts.iter().map(|part| Cow::Owned(examples.select(part))).collect()
}

fn log_probabilities(dense: &DenseModel, examples: &Examples) -> Result<Tensor<2>, ImageFolderError> {
    Ok(log_softmax(logits(&dense.model, &dense.shape, examples, Treatment::Dense)?, 1))
}

/// Of each answer, whether its highest class score is its label's.
fn right_answers(logits: Tensor<2>, examples: &Examples) -> Vec<bool> {
    found_classes(logits).iter().zip(examples.labels()).map(|(found, label)| found == label).collect()
}

/// Of each answer, the class of its highest score.
pub(crate) fn found_classes(logits: Tensor<2>) -> Vec<u32> {
    let found = logits.argmax(1).into_data().convert::<i32>();
    let found: Vec<i32> = found.try_to_vec().expect("just converted to i32");
    found.into_iter().map(|class| class as u32).collect()
}

/// Mean `KL(reference || masked)` in nats, from class scores and log-probabilities `[answers, classes]`.
fn divergence(masked: Tensor<2>, reference: &Tensor<2>) -> f64 {
    let divergence = (reference.clone().exp() * (reference.clone() - log_softmax(masked, 1))).sum_dim(1).mean();
    f64::from(divergence.into_scalar::<f32>())
}

/// Rows of a model's largest product, which its memory goes by.
fn tokens(shape: &ModelShape) -> usize {
    shape.linears.iter().map(|linear| linear.rows as usize).max().unwrap_or(1)
}
