use std::{fs, io, ops::ControlFlow, path::Path, sync::OnceLock};

use burn::tensor::{Device, Tensor, activation::log_softmax};
use maskwright_blueprint::{Blueprint, Digest, ModelShape};
use maskwright_transformer::{CheckpointError, Model, WeightsError, load_weights, weights_digest};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    Calibration, Examples, Judge, ModelSource, Recipe, Split, Store, Task, TaskData, TaskError, Trained, Training,
    TrainingError, TrainingProgress, Treatment, shared_layers::SharedLayers,
};

/// Tokens of one inference pass: bounds memory, changes nothing else.
const BATCH_TOKENS: usize = 8192;

/// Why an evaluation could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluatorError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error(transparent)]
    Training(#[from] TrainingError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("{} cannot be written", path.display())]
    Write {
        path: std::path::PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A trained dense model with the examples it was trained on.
#[derive(Debug)]
pub struct DenseModel {
    pub model: Model,
    pub shape: ModelShape,
    pub data: TaskData,
    /// Whether the weights came from the cache.
    pub cached: bool,
}

impl DenseModel {
    /// A model with its first weights, and the examples as it reads them.
    pub fn untrained(name: &str, source: &ModelSource, task: &Task, seed: u64) -> Result<Self, EvaluatorError> {
        let model = source.build(task.classes()?, seed, &Device::flex())?;
        let tokeniser = source.tokeniser(&model)?;
        let data = task.load(&model, tokeniser.as_ref())?;
        Ok(Self { shape: model.shape(name), model, data, cached: false })
    }

    /// Trains a model, or takes it from `cache`, where it lies under a digest of first weights, data, recipe and seed.
    ///
    /// A cache file that does not load is trained anew and replaced.
    pub fn obtain(
        name: &str,
        source: &ModelSource,
        task: &Task,
        recipe: &Recipe,
        seed: u64,
        cache: &Path,
        watch: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
    ) -> Result<Self, EvaluatorError> {
        let Self { model, shape, data, .. } = Self::untrained(name, source, task, seed)?;
        fs::create_dir_all(cache).map_err(|source| EvaluatorError::Write { path: cache.into(), source })?;
        let training = Training {
            examples: &data.train.clone().with_mirrored(),
            recipe,
            treatment: Treatment::Dense,
            teacher: None,
            judge: Some(Judge {
                examples: &data.validation,
                accuracy: &|model| right(logits(model, &shape, &data.validation, Treatment::Dense), &data.validation),
            }),
            seed,
            store: Some(Store { folder: cache, prefix: name }),
        };
        let Trained { model, kept } = training.run(model, watch)?;
        Ok(Self { shape: model.shape(name), model, data, cached: kept })
    }

    /// The same examples with the weights of a file, which must be those of a model of this architecture.
    pub fn with_weights(mut self, path: &Path) -> Result<Self, EvaluatorError> {
        load_weights(&mut self.model, path)?;
        self.shape = self.model.shape(&self.shape.name);
        Ok(self)
    }

    /// Of the weights alone.
    pub fn weights_digest(&self) -> Digest {
        weights_digest(&self.model)
    }
}

/// What masks do to the dense model, without fine-tuning.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Share of examples labelled rightly.
    pub accuracy: f64,
    /// Mean `KL(dense || masked)` in nats.
    pub distortion: f64,
}

/// Measures what masks do to one dense model on one task.
pub struct Evaluator {
    dense: DenseModel,
    loop_examples: Examples,
    selection: Examples,
    /// Dense log-probabilities `[examples, classes]` on the loop's examples.
    loop_reference: Tensor<2>,
    /// The same on the examples that select.
    selection_reference: OnceLock<Tensor<2>>,
    shared_layers: SharedLayers,
    /// Dense class scores on the training examples, for distillation.
    teacher: OnceLock<Tensor<2>>,
}

impl Evaluator {
    /// `loop_examples` of the validation examples drive the search, the others select.
    pub fn new(dense: DenseModel, loop_examples: usize) -> Self {
        let (loop_examples, selection) = dense.data.validation.split_at(loop_examples);
        let loop_reference = log_softmax(logits(&dense.model, &dense.shape, &loop_examples, Treatment::Dense), 1);
        Self {
            dense,
            loop_examples,
            selection,
            loop_reference,
            selection_reference: OnceLock::new(),
            shared_layers: SharedLayers::default(),
            teacher: OnceLock::new(),
        }
    }

    /// The model that blueprints must fit.
    pub fn shape(&self) -> &ModelShape {
        &self.dense.shape
    }

    /// The dense model's weights.
    pub fn dense(&self) -> &Model {
        &self.dense.model
    }

    /// What each of several blueprints does to the dense model on the loop's examples, in their order.
    pub fn measure(&self, blueprints: &[Blueprint]) -> Vec<Effect> {
        let masked = self.shared_layers.logits(self.dense(), self.shape(), &self.loop_examples, blueprints);
        masked.into_iter().map(|masked| effect(masked, &self.loop_examples, &self.loop_reference)).collect()
    }

    /// Share of the layers that [`Evaluator::measure`] did not have to compute so far, because candidates had the masks of
    /// all layers up to them in common.
    pub fn reused_layers(&self) -> f64 {
        self.shared_layers.reused()
    }

    /// What a blueprint does to the dense model on the selection split, to which no search has fitted itself.
    pub fn select(&self, blueprint: &Blueprint) -> Effect {
        let dense = || log_softmax(self.logits(self.dense(), &self.selection, Treatment::Dense), 1);
        let masked = self.logits(self.dense(), &self.selection, Treatment::Masked(blueprint));
        effect(masked, &self.selection, self.selection_reference.get_or_init(dense))
    }

    /// Share of a split's examples that `model` labels rightly, under masks or dense.
    pub fn accuracy(&self, model: &Model, masks: Option<&Blueprint>, split: Split) -> f64 {
        let examples = self.examples(split);
        let treatment = masks.map_or(Treatment::Dense, Treatment::Masked);
        right(self.logits(model, examples, treatment), examples)
    }

    /// Attention statistics of the dense model on the first `count` training examples.
    pub fn calibrate(&self, count: usize, seed: u64) -> Calibration {
        Calibration::measure(&self.dense.model, &self.dense.shape, &self.dense.data.train, count, seed)
    }

    /// The dense model after training under a blueprint's masks with fake quantisation, towards labels and the dense
    /// model's own class scores. Weights go to `store` and are taken from there when they are known.
    pub fn fine_tune(
        &self,
        blueprint: &Blueprint,
        recipe: &Recipe,
        seed: u64,
        store: &Path,
        watch: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
    ) -> Result<Model, EvaluatorError> {
        let train_on = &self.dense.data.train;
        let teacher = self.teacher.get_or_init(|| self.logits(&self.dense.model, train_on, Treatment::Dense));
        fs::create_dir_all(store).map_err(|source| EvaluatorError::Write { path: store.into(), source })?;
        let training = Training {
            examples: train_on,
            recipe,
            treatment: Treatment::Masked(blueprint),
            teacher: Some(teacher),
            // Not the selection split, which decides between finished models.
            judge: Some(Judge {
                examples: &self.loop_examples,
                accuracy: &|model| {
                    right(self.logits(model, &self.loop_examples, Treatment::Masked(blueprint)), &self.loop_examples)
                },
            }),
            seed,
            store: Some(Store { folder: store, prefix: "tuned" }),
        };
        Ok(training.run(self.dense.model.clone(), watch)?.model)
    }

    fn logits(&self, model: &Model, examples: &Examples, treatment: Treatment<'_>) -> Tensor<2> {
        logits(model, self.shape(), examples, treatment)
    }

    /// The examples of a split.
    pub fn examples(&self, split: Split) -> &Examples {
        match split {
            Split::Train => &self.dense.data.train,
            Split::Loop => &self.loop_examples,
            Split::Selection => &self.selection,
            Split::Test => &self.dense.data.test,
        }
    }
}

/// Share of examples whose highest class score is their label's.
pub(crate) fn right(logits: Tensor<2>, examples: &Examples) -> f64 {
    let answers = answers(logits, examples);
    answers.iter().filter(|right| **right).count() as f64 / answers.len() as f64
}

/// Of each example, whether its highest class score is its label's.
pub(crate) fn answers(logits: Tensor<2>, examples: &Examples) -> Vec<bool> {
    let found = logits.argmax(1).into_data().convert::<i32>();
    let found: Vec<i32> = found.try_to_vec().expect("just converted to i32");
    found.iter().zip(examples.labels()).map(|(found, label)| *found as u32 == *label).collect()
}

/// What masked class scores say, beside the dense model's log-probabilities.
fn effect(masked: Tensor<2>, examples: &Examples, reference: &Tensor<2>) -> Effect {
    Effect { accuracy: right(masked.clone(), examples), distortion: divergence(masked, reference) }
}

/// Mean `KL(reference || masked)` in nats, from class scores and log-probabilities `[examples, classes]`.
fn divergence(masked: Tensor<2>, reference: &Tensor<2>) -> f64 {
    let divergence = (reference.clone().exp() * (reference.clone() - log_softmax(masked, 1))).sum_dim(1).mean();
    f64::from(divergence.into_scalar::<f32>())
}

/// Rows of a model's largest product, which its memory goes by.
fn tokens(shape: &ModelShape) -> usize {
    shape.linears.iter().map(|linear| linear.rows as usize).max().unwrap_or(1)
}

/// Class scores `[examples, classes]` of all examples by a model of this shape.
pub(crate) fn logits(model: &Model, shape: &ModelShape, examples: &Examples, treatment: Treatment<'_>) -> Tensor<2> {
    let device = Device::flex();
    let treated = treatment.on(&shape.modules, &device);
    let batches = batches(examples, shape);
    let parts = batches.par_iter().map(|batch| model.forward(examples.batch(batch, &device), treated.attention()));
    in_order(parts.collect(), &batches)
}

/// Each batch's rows, put in the order of the examples.
pub(crate) fn in_order(parts: Vec<Tensor<2>>, batches: &[Vec<usize>]) -> Tensor<2> {
    let together = Tensor::cat(parts, 0);
    // Row `places[at]` is example `at`.
    let mut places = vec![0; batches.iter().map(Vec::len).sum()];
    for (row, at) in batches.iter().flatten().enumerate() {
        places[*at] = row as i32;
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
