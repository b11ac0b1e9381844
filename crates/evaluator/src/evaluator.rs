use std::{fs, io, ops::ControlFlow, path::Path, sync::OnceLock};

use burn::tensor::Tensor;
use maskwright_blueprint::{Blueprint, Digest, ModelShape};
use maskwright_transformer::{
    Backend, BackendError, CheckpointError, CompiledMasks, Loaded, Model, Tokeniser, WeightsError, load_weights,
    weights_digest,
};
use serde::{Deserialize, Serialize};

use crate::{
    Calibration, Caveats, Examples, ImageFolderError, Judge, ModelSource, Recipe, Split, Store, Task, TaskData,
    TaskError, Teacher, TestFigures, Trained, Training, TrainingError, TrainingProgress, Translated, Treatment,
    class_scores::{MOST_SCORES, Reference, answers, count_scores, effect, logits, share},
    second_measure::accuracy_and_second,
    shared_layers::SharedLayers,
};

/// Why an evaluation could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluatorError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Of an image that is decoded when it is asked for.
    #[error(transparent)]
    Images(#[from] ImageFolderError),
    #[error(transparent)]
    Training(#[from] TrainingError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(
        "cross-validation asks of each example whether it was answered rightly, and `{task}` asks for translations, which \
         have an answer for each token: give a task with classes"
    )]
    NoSingleAnswer { task: String },
    #[error("{} cannot be written", path.display())]
    Write {
        path: std::path::PathBuf,
        #[source]
        source: io::Error,
    },
}

impl EvaluatorError {
    /// The same, saying which row of the answer was fine-tuned.
    pub fn of_row(mut self, row: &str) -> Self {
        if let Self::Training(TrainingError::NotFinite { name, .. }) = &mut self {
            *name = format!("fine-tuning: {row}");
        }
        self
    }
}

/// A trained dense model with the examples it was trained on.
#[derive(Debug)]
pub struct DenseModel {
    pub model: Model,
    pub shape: ModelShape,
    pub data: TaskData,
    /// What turned the task's texts into tokens, if it has texts.
    pub tokeniser: Option<Tokeniser>,
    /// Whether the weights came from the cache.
    pub cached: bool,
    /// Names of tensors that a checkpoint lacks and that were drawn: a classifier's.
    pub drawn: Vec<String>,
    /// How many tensors of a checkpoint the model has no use for.
    pub ignored: usize,
}

impl DenseModel {
    /// A model with its first weights, and the examples as it reads them.
    pub fn untrained(
        name: &str,
        source: &ModelSource,
        task: &Task,
        backend: Backend,
        seed: u64,
    ) -> Result<Self, EvaluatorError> {
        Self::untrained_with(name, source, task, backend, seed, None)
    }

    /// The same with a vocabulary that was learnt before, if there is one.
    pub fn untrained_with(
        name: &str,
        source: &ModelSource,
        task: &Task,
        backend: Backend,
        seed: u64,
        vocabulary: Option<Tokeniser>,
    ) -> Result<Self, EvaluatorError> {
        let Loaded { model, drawn, ignored } = source.build(task.classes()?, seed, &backend.device()?)?;
        let tokeniser = match vocabulary {
            Some(learnt) => Some(learnt),
            None => source.tokeniser(&model, task)?,
        };
        let data = task.load(&model, tokeniser.as_ref())?;
        Ok(Self { shape: model.shape(name), model, data, tokeniser, cached: false, drawn, ignored: ignored.len() })
    }

    /// Steps of a training by `recipe`.
    pub fn steps(&self, recipe: &Recipe) -> u64 {
        recipe.steps(self.data.count_augmented(&self.data.train))
    }

    /// Trains the model, or takes it from `cache`, where it lies under a digest of first weights, data, recipe and seed.
    ///
    /// A cache file that does not load is trained anew and replaced.
    pub fn trained(
        self,
        recipe: &Recipe,
        seed: u64,
        cache: &Path,
        watch: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
    ) -> Result<Self, EvaluatorError> {
        let Self { model, shape, data, tokeniser, drawn, ignored, .. } = self;
        fs::create_dir_all(cache).map_err(|source| EvaluatorError::Write { path: cache.into(), source })?;
        let training = Training {
            name: "dense training",
            section: "model.training",
            examples: &data.augmented(&data.train),
            recipe,
            treatment: Treatment::Dense,
            teacher: None,
            judge: Some(Judge {
                examples: &data.validation,
                accuracy: &|model| Ok(share(&answers(model, &shape, &data.validation, Treatment::Dense)?)),
            }),
            seed,
            store: Some(Store { folder: cache, prefix: &shape.name }),
        };
        let Trained { model, kept } = training.run(model, watch)?;
        Ok(Self { shape: model.shape(&shape.name), model, data, tokeniser, cached: kept, drawn, ignored })
    }

    /// The same examples with the weights of a file, which must be those of a model of this architecture. All of them come
    /// from there: nothing is left that was drawn.
    pub fn with_weights(mut self, path: &Path) -> Result<Self, EvaluatorError> {
        load_weights(&mut self.model, path)?;
        self.shape = self.model.shape(&self.shape.name);
        (self.drawn, self.ignored) = (Vec::new(), 0);
        Ok(self)
    }

    /// What was cut, passed over and drawn to make it and its examples.
    pub fn caveats(&self) -> Caveats {
        Caveats::of(self)
    }

    /// Of the weights alone.
    pub fn weights_digest(&self) -> Digest {
        weights_digest(&self.model)
    }
}

/// What masks do to the dense model's answers, with fine-tuning or without.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Share of answers that are right.
    pub accuracy: f64,
    /// Mean `KL(dense || masked)` over all answers, in nats.
    pub distortion: f64,
}

/// Measures what masks do to one dense model on one task.
pub struct Evaluator {
    dense: DenseModel,
    loop_examples: Examples,
    selection: Examples,
    loop_reference: OnceLock<Reference>,
    /// On the examples that select.
    selection_reference: OnceLock<Reference>,
    shared_layers: SharedLayers,
    /// Dense class scores on the training examples, for distillation, where they can be held at once.
    teacher: OnceLock<Tensor<2>>,
}

impl Evaluator {
    /// `loop_examples` of the validation examples drive the search, the others select.
    pub fn new(dense: DenseModel, loop_examples: usize) -> Self {
        let (loop_examples, selection) = dense.data.validation.split_at(loop_examples);
        Self {
            dense,
            loop_examples,
            selection,
            loop_reference: OnceLock::new(),
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
    pub fn measure(&self, blueprints: &[Blueprint]) -> Result<Vec<Effect>, EvaluatorError> {
        let (model, examples) = (self.dense(), &self.loop_examples);
        let reference = once(&self.loop_reference, || Reference::of(&self.dense, examples))?;
        let scores = count_scores(examples, model);
        if scores > MOST_SCORES {
            let effects = blueprints.iter().map(|of| effect(&self.dense, model, of, examples, reference));
            return Ok(effects.collect::<Result<_, _>>()?);
        }
        // As many side by side as there is memory for; layers are shared all the same.
        let together = (MOST_SCORES / scores.max(1)).max(1);
        let mut effects = Vec::with_capacity(blueprints.len());
        for some in blueprints.chunks(together) {
            let masked = self.shared_layers.logits(model, self.shape(), examples, some)?;
            effects.extend(masked.into_iter().map(|masked| reference.effect(masked, examples)));
        }
        Ok(effects)
    }

    /// Share of the layers that [`Evaluator::measure`] did not have to compute so far, because candidates had the masks of
    /// all layers up to them in common.
    pub fn reused_layers(&self) -> f64 {
        self.shared_layers.reused()
    }

    /// How far `model` under a blueprint's masks, fine-tuned under them or the dense model's own weights, is from the dense
    /// model on the selection split, to which no search has fitted itself.
    pub fn select(&self, model: &Model, blueprint: &Blueprint) -> Result<Effect, EvaluatorError> {
        let reference = once(&self.selection_reference, || Reference::of(&self.dense, &self.selection))?;
        Ok(effect(&self.dense, model, blueprint, &self.selection, reference)?)
    }

    /// Share of a split's answers that `model` gives rightly, its attention treated so.
    pub fn accuracy(&self, model: &Model, treatment: Treatment<'_>, split: Split) -> Result<f64, EvaluatorError> {
        Ok(share(&answers(model, self.shape(), self.examples(split), treatment)?))
    }

    /// What is reported of `model`, under masks or dense: this reads the test split.
    pub fn test(&self, model: &Model, masks: Option<&Blueprint>) -> Result<TestFigures, EvaluatorError> {
        let treatment = masks.map_or(Treatment::Dense, Treatment::Masked);
        let (accuracy, second) = accuracy_and_second(model, self.shape(), &self.dense.data, treatment)?;
        let translation = self.translate(model, masks, Split::Test).map(|found| found.quality);
        Ok(TestFigures { accuracy, second, translation })
    }

    /// What `model` translates a split to, under masks or dense, by greedy decoding; none for tasks that ask for a class.
    pub fn translate(&self, model: &Model, masks: Option<&Blueprint>, split: Split) -> Option<Translated> {
        self.translate_examples(model, masks, self.examples(split))
    }

    /// The same for some examples of a split.
    pub fn translate_examples(
        &self,
        model: &Model,
        masks: Option<&Blueprint>,
        examples: &Examples,
    ) -> Option<Translated> {
        let (Model::Marian(translator), Some(tokeniser)) = (model, &self.dense.tokeniser) else { return None };
        let device = model.device();
        let masks = match masks {
            Some(blueprint) => CompiledMasks::new(blueprint, &device),
            None => CompiledMasks::dense(&self.shape().modules, &device),
        };
        Translated::by(translator, tokeniser, self.shape(), examples, &masks)
    }

    /// What was cut, passed over and drawn to make the dense model and its examples.
    pub fn caveats(&self) -> Caveats {
        self.dense.caveats()
    }

    /// What turns the task's texts into tokens, and tokens into texts.
    pub fn tokeniser(&self) -> Option<&Tokeniser> {
        self.dense.tokeniser.as_ref()
    }

    /// Attention statistics of the dense model on the first `count` training examples.
    pub fn calibrate(&self, count: usize, seed: u64) -> Result<Calibration, EvaluatorError> {
        Ok(Calibration::measure(&self.dense.model, &self.dense.shape, &self.dense.data.train, count, seed)?)
    }

    /// The dense model after training with its attention treated so, masks with fake quantisation, towards labels and the
    /// dense model's own class scores. Weights go to `store` and are taken from there when they are known.
    pub fn fine_tune(
        &self,
        treatment: Treatment<'_>,
        recipe: &Recipe,
        seed: u64,
        store: &Path,
        watch: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
    ) -> Result<Model, EvaluatorError> {
        let train_on = &self.dense.data.train;
        let teacher = match count_scores(train_on, self.dense()) > MOST_SCORES {
            true => Teacher::Model(self.dense()),
            false => {
                let dense = || logits(self.dense(), self.shape(), train_on, Treatment::Dense);
                Teacher::Scores(once(&self.teacher, dense)?)
            }
        };
        fs::create_dir_all(store).map_err(|source| EvaluatorError::Write { path: store.into(), source })?;
        let training = Training {
            name: "fine-tuning",
            section: "fine_tune",
            examples: train_on,
            recipe,
            treatment,
            teacher: Some(teacher),
            // Not the selection split, which decides between finished models.
            judge: Some(Judge {
                examples: &self.loop_examples,
                accuracy: &|model| Ok(share(&answers(model, self.shape(), &self.loop_examples, treatment)?)),
            }),
            seed,
            store: Some(Store { folder: store, prefix: "tuned" }),
        };
        Ok(training.run(self.dense.model.clone(), watch)?.model)
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

/// What was made before, or is made now.
fn once<T, E>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
    match cell.get() {
        Some(made) => Ok(made),
        None => {
            let made = make()?;
            Ok(cell.get_or_init(|| made))
        }
    }
}
