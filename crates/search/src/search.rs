use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use maskwright_blueprint::{BlockSize, Blueprint, HeadMask, ModelShape, Precision, Provenance};
use maskwright_cost_model::DeviceProfile;
use maskwright_evaluator::{DenseModel, Effect, Evaluator, ModelSource, Split};
use maskwright_transformer::{Model, Tokeniser, weights_to_bytes};

use crate::{
    Agent, Baseline, Candidate, Dense, Details, Guide, Kappa, Limit, Outcome, Pricing, Row, SearchConfig, SearchError,
    Stage, StopReason, Watch,
    cross_validation::majority,
    edit_agent::EditAgent,
    edit_searcher::EditSearcher,
    environment::Environment,
    evaluation::VOCABULARY,
    finalists::{Contender, DenseResult, Finalist, blueprint_of, contenders, fine_tuned, shortlist},
    knapsack::multipliers,
    rows::{DENSE_TUNED, baseline_row, best_of, dense_row, is_baseline, row, samples},
    run_directory::{RunDirectory, config_digest, now, tool},
    searcher::{FixedSearcher, KnapsackSearcher, RandomSearcher, Searcher, shuffled},
    trial::{Found, Trials},
    write_searcher::WriteSearcher,
};

/// Test sentences whose translations a report shows.
const SAMPLES: usize = 8;

/// One search, from a configuration to a blueprint, in its own run directory.
pub struct Search {
    config: SearchConfig,
    config_name: String,
    run: RunDirectory,
    cache: PathBuf,
    /// What was checked before the run began, if it has not gone on to be trained.
    untrained: Option<DenseModel>,
}

impl Search {
    /// Makes a run directory below `runs`, once device, budget and data are known to be good. `config_name` is how the configuration was named; it goes into provenance.
    pub fn start(config: SearchConfig, config_name: &str, runs: &Path) -> Result<Self, SearchError> {
        device(&config)?;
        let model = untrained(&config)?;
        check_budget(&config, &model.shape)?;
        let (asked, validation) = (config.loop_examples as usize, model.data.validation.len());
        if asked >= validation {
            return Err(SearchError::LoopExamples { asked, validation });
        }
        let run = RunDirectory::create(runs, config_name, &config)?;
        let (config_name, cache) = (config_name.into(), cache_below(runs));
        Ok(Self { config, config_name, run, cache, untrained: Some(model) })
    }

    /// Goes on with an earlier run; the configuration must be the one it was started with.
    pub fn resume(run: &Path, config: SearchConfig) -> Result<Self, SearchError> {
        let cache = cache_below(run.parent().unwrap_or(Path::new(".")));
        let run = RunDirectory::open(run, &config)?;
        // As it was named first: the name goes into provenance, and the same run has the same bytes.
        let config_name = run.manifest()?.config_name;
        Ok(Self { run, config, config_name, cache, untrained: None })
    }

    /// The run directory.
    pub fn directory(&self) -> &Path {
        self.run.path()
    }

    /// Trains or loads the dense model, calibrates, searches, compares, fine-tunes, measures.
    pub fn run(mut self, watch: &mut dyn Watch) -> Result<Outcome, SearchError> {
        let run = self.run.path().to_path_buf();
        self.steps(watch).map_err(|error| match error.is_interruption() {
            true => SearchError::Interrupted { run },
            false => error,
        })
    }

    fn steps(&mut self, watch: &mut dyn Watch) -> Result<Outcome, SearchError> {
        let config = self.config.clone();
        let device = device(&config)?;
        let untrained = match self.untrained.take() {
            Some(checked) => checked,
            None => untrained(&config)?,
        };
        let dense = trained(untrained, &config, &self.cache, watch)?;
        let data = dense.data.digest();
        self.run.follows(dense.shape.digest, data, device.fingerprint())?;
        let evaluator = Evaluator::new(dense, config.loop_examples as usize);
        let shape = evaluator.shape().clone();
        let mut manifest = self.run.manifest()?;
        (manifest.model, manifest.data) = (Some(shape.digest), Some(data));
        manifest.device = Some(device.fingerprint());
        self.run.write_manifest(&manifest)?;

        watch.begin(&Stage::Calibrate, 1);
        let calibration = evaluator.calibrate(config.calibration_examples as usize, config.seed);
        let pricing = Pricing::new(&device, config.dataflow, config.batch, config.objective, &shape)?;
        let guide = Guide::new(&calibration, &pricing, &shape, &config.space)?;
        watch.end(&format!("{} examples probed", calibration.examples));
        let environment = Environment {
            shape: &shape,
            guide: &guide,
            pricing: &pricing,
            space: &config.space,
            budget: config.budget,
            reward: config.reward,
        };

        let store = self.run.path().join("checkpoint/tuned");
        let dense_selection = evaluator.accuracy(evaluator.dense(), None, Split::Selection);
        let tolerance = config.tolerance.allowed(dense_selection);
        let (known, selected) = (BTreeMap::new(), BTreeMap::new());
        let mut trials =
            Trials { evaluator: &evaluator, environment: &environment, run: &mut self.run, known, selected };

        let scan_multipliers = multipliers(&guide, &config.space, scan_size(&config));
        let mut fidelity = Vec::new();
        // A distortion on the loop's examples and one on the selection split are not of one scale: some examples weigh much.
        let (kappa, selection_kappa) = match config.kappa {
            Kappa::Fixed(kappa) => (kappa, kappa),
            Kappa::Scan(count) => {
                let mut scan = KnapsackSearcher::new(&scan_multipliers);
                let scanned = trials.run("scan", &mut scan, count as usize, None, watch)?;
                let drops = |distortion: &dyn Fn(usize, Effect) -> f64| -> Vec<(f64, f64)> {
                    let pair = |(at, selected): &(usize, Effect)| {
                        (distortion(*at, *selected), dense_selection - selected.accuracy)
                    };
                    scanned.selected.iter().map(pair).collect()
                };
                fidelity = drops(&|at, _| scanned.evaluated[at].distortion);
                (kappa_for(tolerance, &fidelity), kappa_for(tolerance, &drops(&|_, selected| selected.distortion)))
            }
        };
        let limit = Limit { kappa: kappa * config.slack, tolerance };
        let selection_limit = Limit { kappa: selection_kappa * config.slack, tolerance };
        let scoring = Some((config.reward, limit));
        let evaluations = config.evaluations as usize;

        let mut searcher = searcher_of(&config, &scan_multipliers, limit);
        let searched = trials.run("search", searcher.as_mut(), evaluations, scoring, watch)?;
        let mut compared = Vec::new();
        for baseline in &config.baselines {
            let mut searcher = baseline_searcher(*baseline, &config, &environment, &scan_multipliers, limit);
            compared.push(trials.run(baseline.name(), searcher.as_mut(), evaluations, scoring, watch)?);
        }

        let mut finals = Vec::new();
        // What fine-tuning alone does to the dense model: drops are to be read beside it.
        let finest = pricing.finest();
        let whole = Candidate::from_fn(&shape, |_, of| HeadMask::dense(of, BlockSize::B32, finest));
        // Every search of this model and task has this row, so it is kept with the dense model.
        let tuned = fine_tuned(DENSE_TUNED, &[(None, whole)], &evaluator, &config, &self.cache, tolerance, watch)?;
        finals.extend(tuned.map(|finalist| (DENSE_TUNED.to_owned(), finalist, 0)));
        for found in compared.iter().chain([&searched]) {
            let contenders = contenders(&found.evaluated, limit, &mut trials);
            let distortion = |of: &Contender| found.evaluated[of.at].distortion;
            fidelity.extend(contenders.iter().map(|of| (distortion(of), dense_selection - of.selected.accuracy)));
            let list = shortlist(contenders, selection_limit);
            let list: Vec<_> = list.into_iter().map(|(at, candidate)| (Some(at as u64 + 1), candidate)).collect();
            let label = if found.name == "search" { "searched" } else { &found.name };
            if let Some(finalist) = fine_tuned(label, &list, &evaluator, &config, &store, tolerance, watch)? {
                finals.push((label.to_owned(), finalist, found.evaluated.len() as u64));
            }
        }
        // The control that every searched mask is held against: as many blocks, elsewhere.
        if let Some((_, searched, _)) = finals.last().filter(|(label, ..)| label == "searched") {
            let elsewhere = shuffled(&shape, &searched.candidate, config.seed);
            let label = "shuffled";
            let at_random = fine_tuned(label, &[(None, elsewhere)], &evaluator, &config, &store, tolerance, watch)?;
            let at = finals.len() - 1;
            finals.splice(at..at, at_random.map(|finalist| (label.to_owned(), finalist, 0)));
        }
        let outcome = self.conclude(&evaluator, &pricing, finals, &searched, kappa, limit, &fidelity, watch)?;
        let _ = fs::remove_dir_all(store); // what is left takes space, no more
        Ok(outcome)
    }

    /// Measures on the test split, writes every result file, and sums up.
    #[expect(clippy::too_many_arguments, reason = "what the stages before found, gathered once")]
    fn conclude(
        &mut self,
        evaluator: &Evaluator,
        pricing: &Pricing,
        finals: Vec<(String, Finalist, u64)>,
        searched: &Found,
        kappa: f64,
        limit: Limit,
        fidelity: &[(f64, f64)],
        watch: &mut dyn Watch,
    ) -> Result<Outcome, SearchError> {
        let config = &self.config;
        watch.begin(&Stage::Test, finals.len() as u64 + 2);
        let measured = |masks| DenseResult {
            accuracy: evaluator.accuracy(evaluator.dense(), masks, Split::Test),
            translation: evaluator.translate(evaluator.dense(), masks, Split::Test).map(|found| found.quality),
        };
        let dense = measured(None);
        let mut table = Vec::new();
        table.push(dense_row("dense", &pricing.dense(pricing.finest()), dense, 0.0, pricing)?);
        if pricing.finest() != config.space.precisions[0] {
            let coarse = pricing.dense(config.space.precisions[0]);
            let selected = |masks| evaluator.accuracy(evaluator.dense(), masks, Split::Selection);
            let on_selection = selected(None) - selected(Some(&coarse));
            let on_test = measured(Some(&coarse));
            let name = format!("dense {}", config.space.precisions[0]);
            let row = dense_row(&name, &coarse, on_test, dense.accuracy - on_test.accuracy, pricing)?;
            let within_tolerance = on_selection <= limit.tolerance;
            table.push(Row { selection_drop: on_selection, within_tolerance, ..row });
        }
        watch.advance(2, "");
        let shown = evaluator.examples(Split::Test).split_at(SAMPLES).0;
        let texts = |model: &Model, masks: Option<&Blueprint>| {
            evaluator.translate_examples(model, masks, &shown).map(|found| found.texts)
        };
        // Weights are of no use without the vocabulary that was learnt for them.
        let learnt = match config.model.source {
            ModelSource::NewTranslator { .. } => evaluator.tokeniser(),
            ModelSource::New { .. } | ModelSource::Pretrained { .. } => None,
        };
        let mut searched_texts = None;
        let mut best = None;
        for (at, (name, finalist, evaluations)) in finals.iter().enumerate() {
            let provenance = Provenance { vocabulary: learnt.map(Tokeniser::digest), ..self.provenance(name) };
            let blueprint = blueprint_of(finalist, evaluator, pricing, dense, provenance)?;
            let text = blueprint.to_ron();
            let weights = weights_to_bytes(&finalist.model);
            self.run.write(&format!("rows/{name}.ron"), text.as_bytes())?;
            let within_tolerance = finalist.selection_drop <= limit.tolerance;
            let row = row(name, &blueprint, finalist, *evaluations, within_tolerance);
            if name == "searched" {
                self.run.write("best/searched.ron", text.as_bytes())?;
                self.run.write("best/searched.safetensors", &weights)?;
                if let Some(learnt) = learnt {
                    self.run.write(&format!("best/searched.{VOCABULARY}"), learnt.to_json().as_bytes())?;
                }
                searched_texts = texts(&finalist.model, Some(&blueprint));
                best = within_tolerance.then(|| best_of(&self.run.path().join("best/searched.ron"), &row, &blueprint));
            }
            table.push(row);
            watch.advance(at as u64 + 3, "");
        }
        watch.end(&format!(
            "dense {:.1} % on {} test examples",
            100.0 * dense.accuracy,
            evaluator.examples(Split::Test).len()
        ));
        self.write_pareto_set(searched, evaluator)?;

        let stop_reason = if searched.exhausted { StopReason::NothingNew } else { StopReason::EvaluationsUsed };
        let test_examples = evaluator.examples(Split::Test).len() as u64;
        let labels = evaluator.examples(Split::Test).labels();
        let outcome = Outcome {
            run: self.run.path().display().to_string(),
            stop_reason,
            episodes: searched.evaluated.len() as u64,
            evaluations: searched.evaluated.len() as u64,
            dense: Dense {
                accuracy: dense.accuracy,
                translation: dense.translation,
                seconds: table[0].predicted.seconds.0,
            },
            best,
            baselines: table.iter().filter(|row| is_baseline(row)).map(baseline_row).collect(),
            table,
            details: Details {
                config: self.config_name.clone(),
                model: config.model.name.clone(),
                task: config.task.name().into(),
                device: config.device.clone(),
                seed: config.seed,
                tolerance: limit.tolerance,
                kappa,
                loop_kappa: limit.kappa,
                fidelity_correlation: spearman(fidelity),
                improvements: counted(&searched.improvements),
                majority_accuracy: majority(labels),
                test_examples,
                test_answers: Some(labels.len() as u64).filter(|answers| *answers != test_examples),
            },
            samples: samples(&shown, texts(evaluator.dense(), None), searched_texts.as_deref()),
        };
        let json = serde_json::to_vec_pretty(&outcome).expect("an outcome is plain data");
        self.run.write("result.json", &json)?;
        let mut manifest = self.run.manifest()?;
        (manifest.stopped, manifest.stop_reason) = (Some(now()), Some(stop_reason));
        self.run.write_manifest(&manifest)?;
        Ok(outcome)
    }

    /// Where a blueprint of this search comes from.
    fn provenance(&self, origin: &str) -> Provenance {
        Provenance {
            tool: tool(),
            origin: origin.into(),
            config: Some(self.config_name.clone()),
            config_digest: Some(config_digest(&self.config)),
            seed: Some(self.config.seed),
            task: Some(self.config.task.name().into()),
            ..Provenance::default()
        }
    }

    /// The search's candidates that no other one beats in both speed and distortion, before fine-tuning.
    fn write_pareto_set(&self, searched: &Found, evaluator: &Evaluator) -> Result<(), SearchError> {
        let mut by_speed: Vec<_> = searched.evaluated.iter().collect();
        by_speed.sort_by(|a, b| b.speed.total_cmp(&a.speed).then(a.distortion.total_cmp(&b.distortion)));
        let mut least = f64::INFINITY;
        for evaluated in by_speed {
            if evaluated.distortion < least {
                least = evaluated.distortion;
                let provenance = self.provenance("search, before fine-tuning");
                let blueprint = evaluated.candidate.blueprint(evaluator.shape(), provenance);
                let name = format!("best/pareto-{:.3}-{}.ron", blueprint.density(), blueprint.digest().short());
                self.run.write(&name, blueprint.to_ron().as_bytes())?;
            }
        }
        Ok(())
    }
}

/// Where dense models are kept, beside the runs that use them.
fn cache_below(runs: &Path) -> PathBuf {
    runs.join("cache")
}

/// The profile that a configuration names, with every precision of its space.
pub(crate) fn device(config: &SearchConfig) -> Result<DeviceProfile, SearchError> {
    let profile = device_named(&config.device)?;
    if config.space.precisions.iter().all(|precision| profile.supports(*precision)) {
        return Ok(profile);
    }
    let list = |of: &[Precision]| of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(SearchError::Precision {
        device: config.device.clone(),
        supported: list(&profile.precisions()),
        asked: list(&config.space.precisions),
    })
}

fn device_named(name: &str) -> Result<DeviceProfile, SearchError> {
    match name.ends_with(".ron") {
        true => Ok(DeviceProfile::load(Path::new(name))?),
        false => Ok(DeviceProfile::named(name)?),
    }
}

/// The model of a configuration before any training, and its task's examples.
pub(crate) fn untrained(config: &SearchConfig) -> Result<DenseModel, SearchError> {
    Ok(DenseModel::untrained(&config.model.name, &config.model.source, &config.task, config.backend, config.seed)?)
}

/// The dense model of a configuration, trained or from the cache.
pub(crate) fn trained(
    model: DenseModel,
    config: &SearchConfig,
    cache: &Path,
    watch: &mut dyn Watch,
) -> Result<DenseModel, SearchError> {
    let mut begun = false;
    let dense = model.trained(&config.model.training, config.seed, cache, &mut |progress| {
        if !begun {
            watch.begin(&Stage::Train, progress.steps);
            begun = true;
        }
        watch.advance(progress.step, &format!("loss {:.3}", progress.loss));
        if watch.is_interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if !begun {
        watch.begin(&Stage::Train, 0);
    }
    let how = if dense.cached { "taken from the cache" } else { "trained and cached" };
    let mut told = how.to_owned();
    if let Some((cut, all)) = dense.data.truncated() {
        told += &format!("; {cut} of {all} texts are longer than the model reads and were cut");
    }
    match dense.data.empty_pairs() {
        0 => (),
        empty => told += &format!("; {empty} pairs were passed over because one side is empty"),
    }
    watch.end(&told);
    Ok(dense)
}

/// Refuses a budget that no mask can meet, before anything is trained or written.
fn check_budget(config: &SearchConfig, shape: &ModelShape) -> Result<(), SearchError> {
    let least = config.budget.least(shape, &config.space);
    if least <= config.budget.limit() {
        return Ok(());
    }
    let least = if least < 1.0 { format!("{least:.4}") } else { format!("{least:.0}") };
    Err(SearchError::Budget { budget: config.budget.to_string(), least })
}

fn scan_size(config: &SearchConfig) -> usize {
    let scan = match config.kappa {
        Kappa::Scan(count) => count,
        Kappa::Fixed(_) => 16,
    };
    scan.min(config.evaluations.div_ceil(2)).max(1) as usize
}

fn searcher_of(config: &SearchConfig, multipliers: &[f64], limit: Limit) -> Box<dyn Searcher> {
    match config.agent {
        Agent::Edit => Box::new(edit_searcher(config, multipliers, Some(EditAgent::new(config.seed)), limit)),
        Agent::Evolution => Box::new(edit_searcher(config, multipliers, None, limit)),
        Agent::Write { start, features } => Box::new(WriteSearcher::new(config.seed, start, features)),
    }
}

fn baseline_searcher(
    baseline: Baseline,
    config: &SearchConfig,
    environment: &Environment<'_>,
    multipliers: &[f64],
    limit: Limit,
) -> Box<dyn Searcher> {
    match baseline {
        Baseline::Random => Box::new(RandomSearcher::new(config.seed)),
        Baseline::Fixed => Box::new(FixedSearcher::new(environment, config.seed)),
        Baseline::Knapsack => Box::new(KnapsackSearcher::new(multipliers)),
        Baseline::Evolution => Box::new(edit_searcher(config, multipliers, None, limit)),
    }
}

/// Edits that start from a knapsack scan of a quarter of the evaluations, at most 60.
fn edit_searcher(config: &SearchConfig, multipliers: &[f64], agent: Option<EditAgent>, limit: Limit) -> EditSearcher {
    let scanned = (config.evaluations as usize).div_ceil(4).min(60);
    // From all that fine-tuning is hoped to win back down to what the tolerance allows without it.
    let tighter = |power| Limit { kappa: limit.kappa / config.slack.powf(power), ..limit };
    let mut limits = vec![limit, tighter(0.5), tighter(1.0)];
    limits.dedup();
    EditSearcher::new(config.seed, KnapsackSearcher::new(multipliers), scanned, agent, config.reward, &limits)
}

/// The distortion that stands for a tolerance: the drop as a straight line through the origin, fitted to candidates that
/// are not hopeless (at most one nat). At least the least distortion seen, so that something is within it.
fn kappa_for(tolerance: f64, pairs: &[(f64, f64)]) -> f64 {
    let useful = || pairs.iter().filter(|(distortion, _)| *distortion <= 1.0);
    let (products, squares) =
        useful().fold((0.0, 0.0), |(products, squares), (d, drop)| (products + d * drop, squares + d * d));
    let most = useful().map(|(d, _)| *d).fold(1e-6, f64::max);
    let least = pairs.iter().map(|(d, _)| *d).fold(f64::INFINITY, f64::min).clamp(1e-6, 1.0);
    // No measurable drop anywhere: all of what was seen is allowed.
    let kappa = if products > 0.0 { tolerance * squares / products } else { most };
    kappa.clamp(least, most.max(least))
}

/// Rank correlation of pairs; none for fewer than three.
fn spearman(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 3 {
        return None;
    }
    let ranks = |values: Vec<f64>| -> Vec<f64> {
        let below = |x: f64| values.iter().filter(|v| **v < x).count() as f64;
        let equal = |x: f64| values.iter().filter(|v| **v == x).count() as f64;
        values.iter().map(|x| below(*x) + 0.5 * (equal(*x) - 1.0)).collect()
    };
    let (a, b) = (ranks(pairs.iter().map(|p| p.0).collect()), ranks(pairs.iter().map(|p| p.1).collect()));
    let mean = (pairs.len() as f64 - 1.0) / 2.0;
    let sum = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    let spread = (sum(&a, &a) * sum(&b, &b)).sqrt();
    (spread > 0.0).then(|| sum(&a, &b) / spread)
}

fn counted(origins: &[&'static str]) -> Vec<(String, u64)> {
    let mut counts = BTreeMap::new();
    for origin in origins {
        *counts.entry((*origin).to_owned()).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kappa_is_where_the_fitted_line_meets_the_tolerance() {
        let line: Vec<_> = [0.1, 0.2, 0.4].map(|d| (d, 0.05 * d)).into();
        assert!((kappa_for(0.01, &line) - 0.2).abs() < 1e-12);
        assert_eq!(kappa_for(0.01, &[(0.1, 0.0), (0.3, 0.0)]), 0.3); // nothing drops: all that was seen is allowed
    }

    #[test]
    fn rank_correlation_knows_order_and_ties() {
        assert_eq!(spearman(&[(1.0, 2.0), (2.0, 3.0), (3.0, 9.0)]), Some(1.0));
        assert_eq!(spearman(&[(1.0, 9.0), (2.0, 3.0), (3.0, 2.0)]), Some(-1.0));
        assert_eq!(spearman(&[(1.0, 9.0), (2.0, 9.0), (3.0, 9.0)]), None);
    }
}
