use std::{fs, ops::ControlFlow, path::Path};

use maskwright_transformer::Backend;

use crate::{
    DenseModel, EvaluatorError, Examples, Fold, ModelSource, Recipe, Store, Task, Teacher, Training, TrainingError,
    TrainingProgress, Treatment,
    class_scores::{answers, logits},
};

/// A cross-validation: a model trained dense on each fold and seed, then fine-tuned under each treatment, and asked about
/// the examples that it was not trained on, and about the test split.
pub struct Study<'a> {
    /// Of the model, for file names.
    pub name: &'a str,
    pub source: &'a ModelSource,
    pub task: &'a Task,
    pub backend: Backend,
    /// Of the dense models.
    pub training: &'a Recipe,
    /// Of every treatment alike, towards labels and the fold's own dense model.
    pub fine_tune: &'a Recipe,
    pub treatments: &'a [(String, Treatment<'a>)],
    /// Parts of training and validation examples, each held out once.
    pub folds: usize,
    pub seeds: &'a [u64],
    /// Trained weights are kept here, so that a study that was stopped goes on.
    pub store: &'a Path,
}

/// One model's answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// `dense`, or the treatment's name.
    pub treatment: String,
    /// From 0.
    pub fold: usize,
    pub seed: u64,
    /// Whether each example of the held-out part was answered rightly, in the order of the fold's examples.
    pub held_out: Vec<bool>,
    /// The same for the test split.
    pub test: Vec<bool>,
}

/// Where a study is.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyProgress {
    /// Trainings that are finished, and all of them.
    pub done: usize,
    pub all: usize,
    /// What is trained now: `fold 2 seed 1 dense`.
    pub now: String,
    /// Steps of this training.
    pub steps: u64,
    /// None before its first step: told once of each training, also of one whose weights are kept from before.
    pub training: Option<TrainingProgress>,
}

/// The row of the model before any treatment.
const DENSE: &str = "dense";

impl Study<'_> {
    /// All trials, by seed, fold and treatment, the dense model first. Refused for tasks whose examples ask for several
    /// answers.
    pub fn run(&self, watch: &mut dyn FnMut(StudyProgress) -> ControlFlow<()>) -> Result<Vec<Trial>, EvaluatorError> {
        if let Task::Translation { name, .. } = self.task {
            return Err(EvaluatorError::NoSingleAnswer { task: name.clone() });
        }
        fs::create_dir_all(self.store).map_err(|source| EvaluatorError::Write { path: self.store.into(), source })?;
        let (mut trials, mut done) = (Vec::new(), 0);
        let all = self.seeds.len() * self.folds * (1 + self.treatments.len());
        for &seed in self.seeds {
            let DenseModel { model: untrained, shape, data, .. } =
                DenseModel::untrained(self.name, self.source, self.task, self.backend, seed)?;
            let pool = data.train.followed_by(&data.validation);
            // The folds are the same for every seed: what differs is the training alone.
            for (number, fold) in Fold::stratified(pool.labels(), self.folds, 0).into_iter().enumerate() {
                let (train, held_out) = (pool.select(&fold.train), pool.select(&fold.held_out));
                let trial = |treatment: &str, model: &_, of: Treatment<'_>| -> Result<Trial, EvaluatorError> {
                    Ok(Trial {
                        treatment: treatment.into(),
                        fold: number,
                        seed,
                        held_out: answers(model, &shape, &held_out, of)?,
                        test: answers(model, &shape, &data.test, of)?,
                    })
                };
                let augmented = data.augmented(&train);
                let mut training = |examples: &Examples, recipe, treatment, teacher, name: &str, model| {
                    let now = format!("seed {seed}, fold {} of {}, {name}", number + 1, self.folds);
                    let training = Training {
                        name: &now,
                        section: if name == DENSE { "model.training" } else { "fine_tune" },
                        examples,
                        recipe,
                        treatment,
                        teacher,
                        // Early stopping must not see what is held out, so it is left out here.
                        judge: None,
                        seed,
                        store: Some(Store { folder: self.store, prefix: self.name }),
                    };
                    let steps = training.recipe.steps(examples.len());
                    let mut told = |training| watch(StudyProgress { done, all, now: now.clone(), steps, training });
                    if told(None).is_break() {
                        return Err(TrainingError::Interrupted { step: 0, steps }.into());
                    }
                    let trained = training.run(model, &mut |training| told(Some(training)))?;
                    done += 1;
                    Ok::<_, EvaluatorError>(trained)
                };
                let dense =
                    training(&augmented, self.training, Treatment::Dense, None, DENSE, untrained.clone())?.model;
                let teacher = logits(&dense, &shape, &train, Treatment::Dense)?;
                let mut found = vec![trial(DENSE, &dense, Treatment::Dense)?];
                for (name, treatment) in self.treatments {
                    let tuned = training(
                        &train,
                        self.fine_tune,
                        *treatment,
                        Some(Teacher::Scores(&teacher)),
                        name,
                        dense.clone(),
                    )?
                    .model;
                    found.push(trial(name, &tuned, *treatment)?);
                }
                trials.extend(found);
            }
        }
        Ok(trials)
    }
}
