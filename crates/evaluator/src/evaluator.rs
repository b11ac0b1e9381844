use std::{fs, io, ops::ControlFlow, path::Path, sync::OnceLock};

use burn::tensor::{Device, Tensor, activation::log_softmax};
use maskwright_blueprint::{Blueprint, Digest, ModelShape, write_whole};
use maskwright_transformer::{
    Attention, CompiledMasks, Encoder, EncoderConfig, WeightsError, load_weights, weights_to_bytes,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Calibration, Examples, Recipe, Split, Task, TaskData, TaskError, TrainingError, TrainingProgress, train};

/// Examples of one inference pass: bounds memory, changes nothing else.
const BATCH: usize = 250;

/// Goes into the digest of every cached model: raised when the same recipe would give other weights.
const TRAINING: &str = "training 1, burn 0.22.1";

/// Why an evaluation could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluatorError {
    #[error("no such model can be built: {0}")]
    Model(String),
    #[error("no training can follow this recipe: {0}")]
    Recipe(String),
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
    pub encoder: Encoder,
    pub shape: ModelShape,
    pub data: TaskData,
    /// Whether the weights came from the cache.
    pub cached: bool,
}

impl DenseModel {
    /// Trains a model, or takes it from `cache`, where it lies under a digest of architecture, data, recipe and seed.
    ///
    /// A cache file that does not load is trained anew and replaced.
    pub fn obtain(
        name: &str,
        config: &EncoderConfig,
        task: &Task,
        recipe: &Recipe,
        seed: u64,
        cache: &Path,
        watch: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
    ) -> Result<Self, EvaluatorError> {
        config.check().map_err(EvaluatorError::Model)?;
        recipe.check().map_err(EvaluatorError::Recipe)?;
        let data = task.load()?;
        data.check_model(config)?;
        let key = Digest::of([format!("{TRAINING} {config:?} {recipe:?} {seed}"), data.train.digest().to_string()]);
        let path = cache.join(format!("{name}-{}.safetensors", key.short()));
        let mut encoder = config.init(seed, &Device::flex());
        let cached = path.exists() && load_weights(&mut encoder, &path).is_ok();
        if !cached {
            encoder = config.init(seed, &Device::flex().autodiff());
            let examples = data.train.clone().with_mirrored();
            encoder = train(encoder, &examples, recipe, None, None, seed, watch)?;
            let write_error = |source| EvaluatorError::Write { path: path.clone(), source };
            fs::create_dir_all(cache).map_err(write_error)?;
            write_whole(&path, &weights_to_bytes(&encoder)).map_err(write_error)?;
        }
        let shape = config.shape(&encoder, name);
        Ok(Self { encoder, shape, data, cached })
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
    /// Dense class scores on the training examples, for distillation.
    teacher: OnceLock<Tensor<2>>,
}

impl Evaluator {
    /// `loop_examples` of the validation examples drive the search, the others select.
    pub fn new(dense: DenseModel, loop_examples: usize) -> Self {
        let (loop_examples, selection) = dense.data.validation.split_at(loop_examples);
        let loop_reference = log_softmax(logits(&dense.encoder, &loop_examples, None), 1);
        Self {
            dense,
            loop_examples,
            selection,
            loop_reference,
            selection_reference: OnceLock::new(),
            teacher: OnceLock::new(),
        }
    }

    /// The model that blueprints must fit.
    pub fn shape(&self) -> &ModelShape {
        &self.dense.shape
    }

    /// The dense model's weights.
    pub fn dense(&self) -> &Encoder {
        &self.dense.encoder
    }

    /// What each of several blueprints does to the dense model on the loop's examples, in their order.
    pub fn measure(&self, blueprints: &[Blueprint]) -> Vec<Effect> {
        let of = |blueprint| self.effect(blueprint, &self.loop_examples, &self.loop_reference);
        blueprints.par_iter().map(of).collect()
    }

    /// What a blueprint does to the dense model on the selection split, to which no search has fitted itself.
    pub fn select(&self, blueprint: &Blueprint) -> Effect {
        let dense = || log_softmax(logits(self.dense(), &self.selection, None), 1);
        self.effect(blueprint, &self.selection, self.selection_reference.get_or_init(dense))
    }

    fn effect(&self, blueprint: &Blueprint, examples: &Examples, reference: &Tensor<2>) -> Effect {
        let masked = logits(self.dense(), examples, Some(blueprint));
        Effect { accuracy: right(masked.clone(), examples), distortion: divergence(masked, reference) }
    }

    /// Share of a split's examples that `model` labels rightly, under masks or dense.
    pub fn accuracy(&self, model: &Encoder, masks: Option<&Blueprint>, split: Split) -> f64 {
        let examples = self.examples(split);
        right(logits(model, examples, masks), examples)
    }

    /// Attention statistics of the dense model on the first `count` training examples.
    pub fn calibrate(&self, count: usize, seed: u64) -> Calibration {
        Calibration::measure(&self.dense.encoder, &self.dense.shape, &self.dense.data.train, count, seed)
    }

    /// The dense model after training under a blueprint's masks with fake quantisation, towards labels and the dense
    /// model's own class scores.
    pub fn fine_tune(
        &self,
        blueprint: &Blueprint,
        recipe: &Recipe,
        seed: u64,
        watch: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
    ) -> Result<Encoder, EvaluatorError> {
        let train_on = &self.dense.data.train;
        let teacher = self.teacher.get_or_init(|| logits(&self.dense.encoder, train_on, None));
        let model = self.dense.encoder.clone();
        Ok(train(model, train_on, recipe, Some(blueprint), Some(teacher), seed, watch)?)
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
fn right(logits: Tensor<2>, examples: &Examples) -> f64 {
    let found = logits.argmax(1).into_data().convert::<i32>();
    let found: Vec<i32> = found.try_to_vec().expect("just converted to i32");
    let right = found.iter().zip(examples.labels()).filter(|(found, label)| **found as u32 == **label).count();
    right as f64 / examples.len() as f64
}

/// Mean `KL(reference || masked)` in nats, from class scores and log-probabilities `[examples, classes]`.
fn divergence(masked: Tensor<2>, reference: &Tensor<2>) -> f64 {
    let divergence = (reference.clone().exp() * (reference.clone() - log_softmax(masked, 1))).sum_dim(1).mean();
    f64::from(divergence.into_scalar::<f32>())
}

/// Class scores `[examples, classes]` of all examples.
fn logits(model: &Encoder, examples: &Examples, masks: Option<&Blueprint>) -> Tensor<2> {
    let device = Device::flex();
    let masks = masks.map(|blueprint| CompiledMasks::new(blueprint, &device));
    let indices: Vec<usize> = (0..examples.len()).collect();
    let parts = indices.par_chunks(BATCH).map(|batch| {
        let attention = masks.as_ref().map_or(Attention::Dense, Attention::Masked);
        model.forward(examples.batch(batch, &device), attention)
    });
    Tensor::cat(parts.collect(), 0)
}
