use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Tensor,
};
use maskwright_blueprint::{Digest, write_whole};
use maskwright_transformer::{Attention, Model, Targets, adamw, cross_entropy, load_weights, weights_to_bytes};
use rand::{SeedableRng, rngs::ChaCha12Rng, seq::SliceRandom};
use rayon::prelude::*;

use crate::{
    Examples, ImageFolderError, Recipe,
    training_checkpoint::{self as checkpoint, Best, CheckpointFault, Place, Reached},
    treatment::{Treated, Treatment},
};

/// Goes into the name of every training: raised when the same training would give other weights.
const VERSION: &str = "training 9, burn 0.22.1";

/// Each batch is cut into this many parts that are computed side by side. Not the number of cores: the same weights
/// come out on every machine with the same arithmetic.
const SHARDS: usize = 2;

/// Texts of like length are batched together among as many batches, so that little of a batch is padding.
const BATCHES_SORTED: usize = 16;

/// How long a training runs at most without writing a checkpoint.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);

/// After a training step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingProgress {
    pub step: u64,
    pub steps: u64,
    /// Of this step's batches; none while another process trains the same, which is waited for.
    pub loss: Option<f64>,
}

impl fmt::Display for TrainingProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.loss {
            Some(loss) => write!(f, "loss {loss:.3}"),
            None => f.write_str("another process trains the same: waiting for it"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    #[error(
        "{name}: the {} at step {step} of {steps}: lower `{section}.learning_rate`, or check the data{}",
        if loss.is_finite() { "gradient is no number".into() } else { format!("loss is {loss}") },
        kept(checkpoint)
    )]
    NotFinite {
        /// Of the training, and of the part of a configuration that holds its recipe.
        name: String,
        section: &'static str,
        loss: f64,
        step: u64,
        steps: u64,
        checkpoint: Option<Kept>,
    },
    #[error("{fault}{}", kept(checkpoint))]
    Images {
        /// An image that does not decode, or has changed.
        fault: ImageFolderError,
        checkpoint: Option<Kept>,
    },
    #[error("interrupted at step {step} of {steps}")]
    Interrupted { step: u64, steps: u64 },
    #[error("the training's checkpoint in {} cannot be {}: {reason}", path.display(), if *writing { "written" } else { "read (remove that folder to train anew)" })]
    Checkpoint { path: PathBuf, writing: bool, reason: String },
}

/// The last state that was written down, all of whose weights are numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub path: PathBuf,
    /// Steps that led to it.
    pub steps: u64,
}

fn kept(checkpoint: &Option<Kept>) -> String {
    checkpoint.as_ref().map_or(String::new(), |Kept { path, steps }| {
        format!("; the state after {steps} steps is kept in {}", path.display())
    })
}

/// One training: what a model is to learn, from what, and how.
pub struct Training<'a> {
    /// For errors: its name, and the part of a configuration that holds `recipe`.
    pub name: &'a str,
    pub section: &'static str,
    pub examples: &'a Examples,
    pub recipe: &'a Recipe,
    /// How attention is computed meanwhile; masks with fake quantisation.
    pub treatment: Treatment<'a>,
    /// What `recipe.distillation` follows.
    pub teacher: Option<Teacher<'a>>,
    /// A model's accuracy on examples that it does not train on, after each epoch; for `recipe.patience`.
    pub judge: Option<Judge<'a>>,
    pub seed: u64,
    /// Where the trained weights are kept, and the state of a training that was stopped.
    pub store: Option<Store<'a>>,
}

/// A dense model's opinion of the examples.
#[derive(Clone, Copy)]
pub enum Teacher<'a> {
    /// Its class scores, one row for each answer.
    Scores(&'a Tensor<2>),
    /// The model, asked at each step: for examples whose scores would take too much memory.
    Model(&'a Model),
}

/// What decides between epochs.
#[derive(Clone, Copy)]
pub struct Judge<'a> {
    /// Not trained on.
    pub examples: &'a Examples,
    /// A model's accuracy on them.
    pub accuracy: &'a (dyn Fn(&Model) -> Result<f64, ImageFolderError> + Sync),
}

/// A folder of trained weights. Each training has a name of its own there, made from everything that decides its outcome.
#[derive(Debug, Clone, Copy)]
pub struct Store<'a> {
    pub folder: &'a Path,
    /// How its files begin, for people.
    pub prefix: &'a str,
}

/// A model after training.
#[derive(Debug, Clone)]
pub struct Trained {
    pub model: Model,
    /// Whether the same training had been done before, and its weights were kept.
    pub kept: bool,
}

impl Training<'_> {
    /// Trains a model, or takes its weights from the store. Same model, examples, recipe, masks and seed: same weights,
    /// also after any number of stops.
    pub fn run(
        &self,
        mut model: Model,
        watch: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
    ) -> Result<Trained, TrainingError> {
        let Some(Store { folder, prefix }) = self.store else {
            return Ok(Trained { model: self.train(model, None, CHECKPOINT_EVERY, watch)?, kept: false });
        };
        let key = self.key(&model);
        let weights = folder.join(format!("{prefix}-{}.safetensors", key.short()));
        // A file that does not load is made anew and replaced.
        let is_kept = |model: &mut Model| weights.is_file() && load_weights(model, &weights).is_ok();
        if is_kept(&mut model) {
            return Ok(Trained { model, kept: true });
        }
        let lock = weights.with_extension("lock");
        let _locked = self.locked(&lock, watch)?;
        // Whoever still waits finds the weights, too.
        let unlock = || drop(fs::remove_file(&lock));
        if is_kept(&mut model) {
            unlock();
            return Ok(Trained { model, kept: true }); // by whom we waited for
        }
        let state = weights.with_extension("training");
        let model = self.train(model, Some((&state, key)), CHECKPOINT_EVERY, watch)?;
        write_whole(&weights, &weights_to_bytes(&model))
            .map_err(|error| CheckpointFault(error.to_string()).at(&weights, true))?;
        checkpoint::remove(&state);
        unlock();
        Ok(Trained { model, kept: false })
    }

    /// Holds `path` for itself, as soon as no other process does: two that write one state would spoil it for each other. Where
    /// a file system knows no locks, nobody waits.
    fn locked(
        &self,
        path: &Path,
        watch: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
    ) -> Result<File, TrainingError> {
        let fault = |error: io::Error| CheckpointFault(error.to_string()).at(path, true);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(fault)?;
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(fault)?;
        let steps = self.recipe.steps(self.examples.len());
        while let Err(TryLockError::WouldBlock) = file.try_lock() {
            if watch(TrainingProgress { step: 0, steps, loss: None }).is_break() {
                return Err(TrainingError::Interrupted { step: 0, steps });
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(file)
    }

    /// Writes its state at least as often as `every`, as long as the loss is a number.
    fn train(
        &self,
        model: Model,
        state: Option<(&Path, Digest)>,
        every: Duration,
        watch: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
    ) -> Result<Model, TrainingError> {
        let steps = self.recipe.steps(self.examples.len());
        let treated = self.treatment.on(&model.shape("").modules, &model.device().autodiff());
        let model = model.train().map(&mut Numbered::default());
        let optimiser = adamw(self.recipe.weight_decay, Some(self.recipe.clip), &model.device());
        let mut reached = Reached { model, optimiser, place: Place::default(), best: None };
        if let Some((folder, key)) = state {
            reached = checkpoint::read(folder, key, reached).map_err(|fault| fault.at(folder, false))?;
        }
        let write = |reached: &Reached| match state {
            Some((folder, key)) => checkpoint::write(folder, key, reached).map_err(|fault| fault.at(folder, true)),
            None => Ok(()),
        };
        // Steps that led to the state that is written down, if one is: the step after it may be the one that goes wrong.
        let mut kept = (reached.place.steps > 0).then_some(reached.place.steps);
        let kept_of = |steps| state.zip(steps).map(|((folder, _), steps)| Kept { path: folder.into(), steps });
        let not_finite = |loss, step, kept: Option<u64>| {
            let checkpoint = kept_of(kept.filter(|kept| *kept < step));
            TrainingError::NotFinite { name: self.name.into(), section: self.section, loss, step, steps, checkpoint }
        };
        let images = |fault, kept| TrainingError::Images { fault, checkpoint: kept_of(kept) };
        let mut written = Instant::now();
        let mut generator = ChaCha12Rng::seed_from_u64(self.seed);
        let mut order: Vec<usize> = (0..self.examples.len()).collect();
        for epoch in 0..self.recipe.epochs {
            let batches = self.batches(&mut order, &mut generator);
            let groups: Vec<&[Vec<usize>]> = batches.chunks(self.recipe.accumulate as usize).collect();
            for (at, group) in groups.iter().enumerate() {
                let step = u64::from(epoch) * groups.len() as u64 + at as u64;
                if step < reached.place.steps || reached.place.stopped {
                    continue; // done before the stop
                }
                let (loss, gradients) = match self.gradients(&reached.model, &treated, group) {
                    Ok(found) => found,
                    Err(fault) => {
                        if is_finite(&reached.model) {
                            write(&reached)?;
                            kept = Some(step);
                        }
                        return Err(images(fault, kept));
                    }
                };
                if !loss.is_finite() || !are_finite(&gradients, &reached.model) {
                    return Err(not_finite(loss, step, kept));
                }
                // Now that its loss is known to be a number, this state may replace an earlier one. It does so at the end of an
                // epoch that will be judged, too: an image of the judge's that does not decode ends the training.
                let judged = at + 1 == groups.len() && self.recipe.patience.is_some() && self.judge.is_some();
                if written.elapsed() >= every || judged {
                    write(&reached)?;
                    (written, kept) = (Instant::now(), Some(step));
                }
                let learning_rate = self.recipe.learning_rate_at(step, steps);
                let Reached { model, mut optimiser, place, best } = reached;
                let model = optimiser.step(learning_rate, model, gradients);
                let step = step + 1;
                reached = Reached { model, optimiser, place: Place { steps: step, ..place }, best };
                if at + 1 == groups.len() {
                    reached = self.judged(reached).map_err(|fault| images(fault, kept))?;
                }
                if watch(TrainingProgress { step, steps, loss: Some(loss) }).is_break() {
                    if is_finite(&reached.model) {
                        write(&reached)?;
                    }
                    return Err(TrainingError::Interrupted { step, steps });
                }
            }
        }
        let model = reached.best.map_or(reached.model, |best| best.model).valid();
        match is_finite(&model) {
            true => Ok(model),
            false => Err(not_finite(f64::NAN, steps, kept)),
        }
    }

    /// At the end of an epoch: whether it was the best, and whether it was the last.
    fn judged(&self, reached: Reached) -> Result<Reached, ImageFolderError> {
        let (Some(patience), Some(judge)) = (self.recipe.patience, self.judge) else { return Ok(reached) };
        let Reached { model, optimiser, place, best } = reached;
        let accuracy = (judge.accuracy)(&model.clone().valid())?;
        Ok(match best {
            Some(best) if accuracy <= best.accuracy => {
                let without_gain = place.without_gain + 1;
                let place = Place { without_gain, stopped: without_gain >= patience, ..place };
                Reached { model, optimiser, place, best: Some(best) }
            }
            _ => {
                let best = Best { model: model.clone(), accuracy };
                Reached { model, optimiser, place: Place { without_gain: 0, ..place }, best: Some(best) }
            }
        })
    }

    /// The examples in batches for one epoch; `order` goes on from the epoch before.
    fn batches(&self, order: &mut [usize], generator: &mut ChaCha12Rng) -> Vec<Vec<usize>> {
        order.shuffle(generator);
        let batch = self.recipe.batch as usize;
        let mut sorted = order.to_vec();
        let length = |at: &usize| self.examples.length(*at);
        if sorted.iter().all(|at| length(at) == length(&sorted[0])) {
            return sorted.chunks(batch).map(<[usize]>::to_vec).collect();
        }
        let mut batches = Vec::new();
        for pool in sorted.chunks_mut(BATCHES_SORTED * batch) {
            pool.sort_by_key(length); // stable
            batches.extend(pool.chunks(batch).map(<[usize]>::to_vec));
        }
        batches.shuffle(generator);
        batches
    }

    /// Mean loss and gradients of some batches, each weighted by its answers.
    fn gradients(
        &self,
        model: &Model,
        treated: &Treated,
        batches: &[Vec<usize>],
    ) -> Result<(f64, GradientsParams), ImageFolderError> {
        let all: usize = batches.iter().map(|batch| self.examples.count_answers(batch)).sum();
        let mut sum = GradientsAccumulator::new();
        let mut loss = 0.0;
        for batch in batches {
            let shard_size = batch.len().div_ceil(SHARDS);
            let shard = |shard: &[usize]| self.shard(model, treated, shard, all);
            let shards: Result<Vec<_>, _> = batch.par_chunks(shard_size).map(shard).collect();
            for (value, gradients) in shards? {
                loss += value;
                sum.accumulate(model, gradients);
            }
        }
        Ok((loss, sum.grads()))
    }

    /// What some examples add to the loss of a step over `all` answers, and its gradients.
    fn shard(
        &self,
        model: &Model,
        treated: &Treated,
        shard: &[usize],
        all: usize,
    ) -> Result<(f64, GradientsParams), ImageFolderError> {
        // Leaves of its own: two graphs that share leaves cannot run backward side by side.
        let device = model.device().autodiff();
        let model = model.clone().fork(&device);
        let logits = model.forward(self.examples.batch(shard, &device)?, treated.attention()); // [answers, classes]
        let share = self.recipe.distillation;
        let teacher = self.teacher.filter(|_| share > 0.0);
        let targets = Targets {
            labels: self.examples.labels_of(shard),
            smoothing: self.recipe.label_smoothing,
            teacher: match teacher {
                Some(teacher) => Some((teacher.scores(self.examples, shard)?, share as f32)),
                None => None,
            },
        };
        let loss = cross_entropy(logits, targets);
        let loss = loss.mul_scalar(self.examples.count_answers(shard) as f64 / all as f64);
        let value = f64::from(loss.clone().into_scalar::<f32>());
        Ok((value, GradientsParams::from_grads(loss.backward(), &model)))
    }

    /// Of everything that decides the outcome: a checkpoint of another training is not followed.
    fn key(&self, model: &Model) -> Digest {
        let teacher = match self.teacher {
            Some(Teacher::Scores(scores)) => scores.to_data().bytes().to_vec(),
            Some(Teacher::Model(model)) => model.shape("").digest.to_string().into_bytes(),
            None => Vec::new(),
        };
        let judge = self.judge.filter(|_| self.recipe.patience.is_some());
        let judged = judge.map_or(String::new(), |judge| judge.examples.digest().to_string());
        Digest::of([
            format!("{VERSION} on {:?} {:?} {} {}", model.device(), self.recipe, self.seed, self.treatment.key())
                .into_bytes(),
            self.examples.digest().to_string().into_bytes(),
            model.shape("").digest.to_string().into_bytes(),
            judged.into_bytes(),
            teacher,
        ])
    }
}

impl CheckpointFault {
    fn at(self, folder: &Path, writing: bool) -> TrainingError {
        TrainingError::Checkpoint { path: folder.into(), writing, reason: self.0 }
    }
}

/// Gives each parameter its place as its name, so that an optimiser's state fits the same model in another process.
#[derive(Default)]
struct Numbered(u64);

impl ModuleMapper for Numbered {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1;
        let (_, tensor, mapper) = param.consume();
        Param::from_mapped_value(ParamId::from(self.0), tensor, mapper)
    }
}

/// Whether every gradient by a weight is a number: their sums are, which are read all at once.
fn are_finite(gradients: &GradientsParams, model: &impl Module) -> bool {
    struct Sums<'a>(&'a GradientsParams, Vec<Tensor<1>>);
    impl ModuleVisitor for Sums<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.extend(self.0.get::<D>(param.id).map(Tensor::sum));
        }
    }
    let mut sums = Sums(gradients, Vec::new());
    model.visit(&mut sums);
    sums.1.is_empty() || Tensor::cat(sums.1, 0).sum().into_scalar::<f32>().is_finite()
}

/// Whether every weight is a number.
fn is_finite(model: &Model) -> bool {
    struct Finite(bool);
    impl ModuleVisitor for Finite {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 &= param.val().sum().into_scalar::<f32>().is_finite();
        }
    }
    let mut finite = Finite(true);
    model.visit(&mut finite);
    finite.0
}

impl Teacher<'_> {
    /// Of the examples at `indices`, `[answers, classes]`.
    fn scores(self, examples: &Examples, indices: &[usize]) -> Result<Tensor<2>, ImageFolderError> {
        Ok(match self {
            Self::Scores(all) => {
                let rows: Vec<i32> = indices.iter().flat_map(|at| examples.answers(*at)).map(|at| at as i32).collect();
                all.clone().select(0, Tensor::from_data(rows.as_slice(), &all.device()))
            }
            Self::Model(model) => model.forward(examples.batch(indices, &model.device())?, Attention::Dense),
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        nn::LinearConfig,
        tensor::{Device, TensorData},
    };
    use maskwright_transformer::{EncoderConfig, EncoderInput, weights_digest};

    use super::*;

    #[test]
    fn the_last_state_whose_loss_is_a_number_outlives_one_whose_loss_is_none() {
        let sequences: Vec<Vec<u32>> = (0..64).map(|at| vec![at % 4; 8]).collect();
        let examples = Examples::sequences(&sequences, (0..64).map(|at| at % 4).collect());
        let input = EncoderInput::Tokens { length: 8, vocabulary: 4 };
        let config = EncoderConfig { input, width: 8, layers: 1, heads: 1, mlp: 8, classes: 4 };
        let model = || Model::Encoder(config.init(3, &Device::flex()));
        let recipe = Recipe { epochs: 1, batch: 4, distillation: 0.5, ..Recipe::default() };
        let mut scores = vec![0.0f32; 64 * 4];
        scores[4 * 40] = f32::NAN; // the teacher has no opinion of one example
        let teacher = Tensor::<2>::from_data(TensorData::new(scores, [64, 4]), &Device::flex());
        let training = Training {
            name: "tiny",
            section: "fine_tune",
            examples: &examples,
            recipe: &recipe,
            treatment: Treatment::Dense,
            teacher: Some(Teacher::Scores(&teacher)),
            judge: None,
            seed: 5,
            store: None,
        };
        let folder = tempfile::tempdir().unwrap();
        let key = training.key(&model());
        let state = Some((folder.path(), key));
        let error = training.train(model(), state, Duration::ZERO, &mut |_| ControlFlow::Continue(())).unwrap_err();
        let TrainingError::NotFinite { step, checkpoint, .. } = error else { panic!("{error:?}") };
        assert!(step > 1, "the seed puts that example into a later batch");
        assert_eq!(checkpoint, Some(Kept { path: folder.path().into(), steps: step - 1 }));
        // It is what this training had reached one step before: the same step leads to the same weights.
        let weights = |folder: &Path, steps: u64| {
            let mut model = model();
            load_weights(&mut model, &folder.join(format!("{steps}-weights.safetensors"))).unwrap();
            weights_digest(&model)
        };
        let until = |stop: u64| {
            let whole = tempfile::tempdir().unwrap();
            let stopped = training.train(model(), Some((whole.path(), key)), CHECKPOINT_EVERY, &mut |progress| {
                if progress.step == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert!(matches!(stopped, Err(TrainingError::Interrupted { .. })));
            weights(whole.path(), stop)
        };
        assert_eq!(weights(folder.path(), step - 1), until(step - 1));
    }

    #[test]
    fn a_gradient_that_is_no_number_is_found_behind_a_loss_that_is_one() {
        let layer = LinearConfig::new(2, 1).init(&Device::flex().autodiff());
        let gradients = |loss: Tensor<1>| GradientsParams::from_grads(loss.backward(), &layer);
        let weights = layer.weight.val();
        assert!(are_finite(&gradients(weights.clone().sum()), &layer));
        let root = (weights.clone() - weights).sqrt().sum(); // 0, with a slope of no number
        assert_eq!(root.clone().into_scalar::<f32>(), 0.0);
        assert!(!are_finite(&gradients(root), &layer));
    }
}
