use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use maskwright_blueprint::Provenance;
use maskwright_evaluator::{
    DropInterval, EvaluatorError, McNemar, Study, StudyProgress, Treatment, Trial, mean, standard_deviation,
};
use serde::Serialize;

use crate::{
    Candidate, DensityAgainstTime, Objective, Pricing, SearchConfig, SearchError, Stage, Watch,
    dense_model::{device_profile, untrained},
    evaluation,
    searcher::shuffled,
};

/// Draws of the bootstrap, and what its bounds enclose.
const RESAMPLES: usize = 10_000;
const CONFIDENCE: f64 = 0.95;

/// How a blueprint's masks fare over folds and seeds, beside the controls: *measured*.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CrossValidation {
    pub blueprint: String,
    pub model: String,
    pub task: String,
    pub folds: usize,
    pub seeds: Vec<u64>,
    /// Training and validation examples, each held out once a seed.
    pub examples: usize,
    pub test_examples: usize,
    /// What always answering the commonest class gets right, of held-out and of test examples.
    pub majority: f64,
    pub majority_test: f64,
    /// The dense model first, then the dense model fine-tuned, the masks, and the controls.
    pub rows: Vec<CrossValidationRow>,
    /// Predicted seconds of attention against density, over the blueprints beside this one.
    pub density: DensityAgainstTime,
}

/// One treatment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CrossValidationRow {
    pub treatment: String,
    /// Accuracies on the held-out parts, by seed and fold.
    pub held_out: Vec<f64>,
    pub mean: f64,
    /// Over folds and seeds; none of a single one.
    pub deviation: Option<f64>,
    /// Against the dense model of the same fold and seed, each example's answers averaged over the seeds; 95 %.
    pub drop: Option<DropInterval>,
    /// The same on the test split, each example's answers averaged over folds and seeds.
    pub test_drop: Option<DropInterval>,
    /// Mean accuracy on the test split.
    pub test: f64,
    /// McNemar's exact test on the held-out answers, one probability a seed.
    pub mcnemar: Vec<f64>,
}

/// Trains dense models on `folds` parts of the training and validation examples with each of `seeds`, fine-tunes each
/// under the blueprint's masks and under the controls, and asks all of them about the examples that were left out.
///
/// The masks themselves were searched with these examples, so the test split, which no search saw, is asked as well.
pub fn cross_validate(
    file: &Path,
    config: &SearchConfig,
    folds: usize,
    seeds: &[u64],
    store: &Path,
    watch: &mut dyn Watch,
) -> Result<CrossValidation, SearchError> {
    let blueprint = evaluation::load(file, config)?;
    let model = untrained(config)?;
    evaluation::check_modules(&blueprint, file, &model.shape)?;
    let pool = model.data.train.len() + model.data.validation.len();
    let different = seeds.iter().enumerate().all(|(at, seed)| !seeds[..at].contains(seed));
    if !(2..=pool).contains(&folds) || seeds.is_empty() || !different {
        return Err(SearchError::Folds { folds, seeds: seeds.len(), examples: pool });
    }
    let pricing =
        Pricing::new(&device_profile(config)?, config.dataflow, config.batch, Objective::Latency, blueprint.model())?;
    let density = DensityAgainstTime::beside(file, &blueprint, &pricing, &config.device)?;
    let dense = pricing.dense(pricing.finest());
    let masks = Candidate::new(blueprint.masks().iter().flatten().cloned().collect());
    let elsewhere =
        shuffled(blueprint.model(), &masks, config.seed).blueprint(blueprint.model(), Provenance::default());
    let treatments = [
        ("dense-tuned".to_owned(), Treatment::Masked(&dense)),
        ("masked".to_owned(), Treatment::Masked(&blueprint)),
        ("shuffled".to_owned(), Treatment::Masked(&elsewhere)),
        ("identity".to_owned(), Treatment::Identity),
    ];
    let study = Study {
        name: &config.model.name,
        source: &config.model.source,
        task: &config.task,
        backend: config.backend,
        training: &config.model.training,
        fine_tune: &config.fine_tune,
        treatments: &treatments,
        folds,
        seeds,
        store,
    };
    let mut begun = false;
    let trials = study.run(&mut |progress: StudyProgress| {
        match progress.training {
            Some(training) => watch.advance(training.step, &training.to_string()),
            None => {
                if begun {
                    watch.end("");
                }
                let stage = Stage::Study(format!("{} ({}/{})", progress.now, progress.done + 1, progress.all));
                watch.begin(&stage, progress.steps);
                begun = true;
            }
        }
        if watch.is_interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let trials = trials.map_err(|error| match error {
        EvaluatorError::NoSingleAnswer { .. } => SearchError::NoSingleAnswer { path: file.into() },
        other => other.into(),
    })?;
    if begun {
        watch.end("");
    }
    let labels = || [model.data.train.labels(), model.data.validation.labels()].concat();
    Ok(CrossValidation {
        blueprint: file.display().to_string(),
        model: config.model.name.clone(),
        task: config.task.name().into(),
        folds,
        seeds: seeds.into(),
        examples: pool,
        test_examples: model.data.test.len(),
        majority: majority(&labels()),
        majority_test: majority(model.data.test.labels()),
        rows: rows(&trials),
        density,
    })
}

/// Share of the commonest label.
pub(crate) fn majority(labels: &[u32]) -> f64 {
    let mut counts = BTreeMap::new();
    labels.iter().for_each(|label| *counts.entry(label).or_insert(0u64) += 1);
    counts.into_values().max().unwrap_or(0) as f64 / labels.len().max(1) as f64
}

/// One row for each treatment, in the order in which they were tried.
fn rows(trials: &[Trial]) -> Vec<CrossValidationRow> {
    let mut names: Vec<&str> = Vec::new();
    for trial in trials {
        if !names.contains(&&trial.treatment[..]) {
            names.push(&trial.treatment);
        }
    }
    let of = |name: &str| trials.iter().filter(|trial| trial.treatment == name).collect::<Vec<_>>();
    let dense = of(names[0]);
    names.iter().enumerate().map(|(at, name)| row(name, &of(name), (at > 0).then_some(&dense))).collect()
}

fn row(name: &str, trials: &[&Trial], dense: Option<&Vec<&Trial>>) -> CrossValidationRow {
    let share = |answers: &[bool]| answers.iter().filter(|right| **right).count() as f64 / answers.len() as f64;
    let held_out: Vec<f64> = trials.iter().map(|trial| share(&trial.held_out)).collect();
    let test = mean(&trials.iter().map(|trial| share(&trial.test)).collect::<Vec<_>>());
    let interval = |drops: &[f64]| DropInterval::of_drops(drops, RESAMPLES, CONFIDENCE, 0);
    CrossValidationRow {
        treatment: name.into(),
        mean: mean(&held_out),
        deviation: standard_deviation(&held_out),
        held_out,
        drop: dense.map(|dense| interval(&held_out_drops(dense, trials))),
        test_drop: dense.map(|dense| interval(&test_drops(dense, trials))),
        test,
        mcnemar: dense.map(|dense| mcnemar(dense, trials)).unwrap_or_default(),
    }
}

/// Of each held-out example, by fold: how much less often it was answered rightly than by the dense model, over the seeds.
fn held_out_drops(dense: &[&Trial], treated: &[&Trial]) -> Vec<f64> {
    let mut folds: BTreeMap<usize, Vec<Vec<f64>>> = BTreeMap::new();
    for (dense, treated) in dense.iter().zip(treated) {
        folds.entry(dense.fold).or_default().push(drops(&dense.held_out, &treated.held_out));
    }
    folds.into_values().flat_map(|seeds| averaged(&seeds)).collect()
}

fn test_drops(dense: &[&Trial], treated: &[&Trial]) -> Vec<f64> {
    averaged(&dense.iter().zip(treated).map(|(dense, treated)| drops(&dense.test, &treated.test)).collect::<Vec<_>>())
}

fn drops(dense: &[bool], treated: &[bool]) -> Vec<f64> {
    dense.iter().zip(treated).map(|(dense, treated)| f64::from(*dense as i8 - *treated as i8)).collect()
}

/// The mean of several lists, entry by entry.
fn averaged(lists: &[Vec<f64>]) -> Vec<f64> {
    let entry = |at: usize| mean(&lists.iter().map(|list| list[at]).collect::<Vec<_>>());
    (0..lists.first().map_or(0, Vec::len)).map(entry).collect()
}

/// For each seed, over all folds.
fn mcnemar(dense: &[&Trial], treated: &[&Trial]) -> Vec<f64> {
    let mut seeds: BTreeMap<u64, (Vec<bool>, Vec<bool>)> = BTreeMap::new();
    for (dense, treated) in dense.iter().zip(treated) {
        let (first, second) = seeds.entry(dense.seed).or_default();
        first.extend(&dense.held_out);
        second.extend(&treated.held_out);
    }
    seeds.into_values().map(|(first, second)| McNemar::of(&first, &second).exact).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(treatment: &str, fold: usize, seed: u64, held_out: [bool; 2]) -> Trial {
        Trial { treatment: treatment.into(), fold, seed, held_out: held_out.into(), test: vec![true, held_out[0]] }
    }

    #[test]
    fn drops_are_paired_by_fold_and_seed_and_averaged_over_seeds() {
        let trials = [
            trial("dense", 0, 1, [true, true]),
            trial("masked", 0, 1, [true, false]),
            trial("dense", 1, 1, [true, false]),
            trial("masked", 1, 1, [true, false]),
            trial("dense", 0, 2, [true, true]),
            trial("masked", 0, 2, [true, true]),
            trial("dense", 1, 2, [false, false]),
            trial("masked", 1, 2, [true, false]),
        ];
        let rows = rows(&trials);
        assert_eq!(
            (rows[0].treatment.as_str(), rows[0].held_out.as_slice()),
            ("dense", [1.0, 0.5, 1.0, 0.0].as_slice())
        );
        assert_eq!((rows[0].mean, rows[1].mean, rows[1].mcnemar.len()), (0.625, 0.625, 2));
        // Fold 0: example 1 is lost with one seed of two; fold 1: example 0 is won with one of two.
        let dense: Vec<&Trial> = trials.iter().step_by(2).collect();
        let masked: Vec<&Trial> = trials.iter().skip(1).step_by(2).collect();
        assert_eq!(held_out_drops(&dense, &masked), [0.0, 0.5, -0.5, 0.0]);
        assert_eq!(test_drops(&dense, &masked), [0.0, -0.25]);
    }
}
