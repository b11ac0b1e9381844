use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use maskwright_blueprint::{BlockSize, Digest, HeadMask, ModelShape};
use maskwright_cost_model::DeviceProfile;
use maskwright_evaluator::{DenseModel, Effect, Evaluator, EvaluatorError, ModelSource, Split, Task, Treatment};
use maskwright_transformer::Checkpoint;

use crate::{
    Agent, Baseline, Candidate, Guide, Kappa, Limit, Outcome, Pricing, SearchConfig, SearchError, Stage, Watch,
    conclusion::Conclusion,
    cross_validation::majority,
    dense_model::{check_split, device_profile, trained, untrained},
    edit_agent::EditAgent,
    edit_searcher::EditSearcher,
    environment::Environment,
    fidelity::kappa_for,
    finalists::{Contender, Finalist, Tuning, contenders, shortlist},
    knapsack::multipliers,
    patterns::nearest_in_density,
    rows::DENSE_TUNED,
    run_directory::RunDirectory,
    searcher::{FixedSearcher, KnapsackSearcher, RandomSearcher, Searcher, shuffled},
    trial::Trials,
    write_searcher::WriteSearcher,
};

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
    /// Makes a run directory below `runs`, once device, budget and data are known to be good. `config_name` is how the
    /// configuration was named; it goes into provenance.
    pub fn start(config: SearchConfig, config_name: &str, runs: &Path) -> Result<Self, SearchError> {
        device_profile(&config)?;
        let model = untrained(&config)?;
        check_data(&config, &model)?;
        let config_name = config_name.replace(char::is_control, "\u{fffd}"); // blueprints hold no control characters
        let run = RunDirectory::create(runs, &config_name, &config)?;
        let cache = cache_below(runs);
        Ok(Self { config, config_name, run, cache, untrained: Some(model) })
    }

    /// Goes on with an earlier run; the configuration must be the one it was started with.
    pub fn resume(run: &Path, config: SearchConfig) -> Result<Self, SearchError> {
        let whole = fs::canonicalize(run).unwrap_or_else(|_| run.into()); // `.` and `..` have a parent, too
        let cache = cache_below(whole.parent().unwrap_or(Path::new(".")));
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
        let device = device_profile(&config)?;
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
        let calibration = evaluator.calibrate(config.calibration_examples as usize, config.seed)?;
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

        let dense_selection = evaluator.accuracy(evaluator.dense(), Treatment::Dense, Split::Selection)?;
        let commonest = majority(evaluator.examples(Split::Selection).labels());
        if dense_selection <= commonest {
            watch.warn(&no_better(dense_selection, commonest, &config.task));
        }
        let tolerance = config.tolerance.allowed(dense_selection);
        let (known, selected) = (BTreeMap::new(), BTreeMap::new());
        let mut trials =
            Trials { evaluator: &evaluator, environment: &environment, run: &mut self.run, known, selected };

        let scan_multipliers = multipliers(&guide, &config.space, scan_size(&config));
        let mut limits = Limits::found(&config, &scan_multipliers, dense_selection, tolerance, &mut trials, watch)?;
        let limit = limits.of_loop;
        let scoring = Some((config.reward, limit));
        let evaluations = config.evaluations as usize;

        let mut searcher = searcher_of(&config, &scan_multipliers, limit);
        let searched = trials.run("search", searcher.as_mut(), evaluations, scoring, watch)?;
        let mut compared = Vec::new();
        for baseline in &config.baselines {
            let mut searcher = baseline_searcher(*baseline, &config, &environment, &scan_multipliers, limit);
            compared.push(trials.run(baseline.name(), searcher.as_mut(), evaluations, scoring, watch)?);
        }
        compared.push(searched);
        let contenders: Vec<Vec<Contender>> = compared
            .iter()
            .map(|found| contenders(found, limit, &mut trials, watch))
            .collect::<Result<_, SearchError>>()?;

        let store = self.run.path().join("checkpoint/tuned");
        let tuning = Tuning { evaluator: &evaluator, config: &config, store: &store, dense_selection, tolerance };
        let mut finals: Vec<Finalist> = Vec::new();
        for (found, contenders) in compared.iter().zip(contenders) {
            limits.fidelity.extend(contenders.iter().map(|of| {
                let pair = (found.evaluated[of.at].distortion, dense_selection - of.selected.accuracy);
                (of.candidate.digest(), pair)
            }));
            let name = if found.name == "search" { "searched" } else { &found.name };
            let list = shortlist(contenders, limits.of_selection);
            finals.extend(tuning.fastest_of(name, &list, found.evaluated.len() as u64, watch)?);
        }
        // What every searched mask is held against, fine-tuned as long: fixed patterns, and as many blocks elsewhere.
        if let Some(searched) = finals.pop_if(|last| last.name == "searched") {
            let Finalist { candidate, recipe, .. } = &searched;
            for family in &config.patterns {
                let nearest = nearest_in_density(*family, candidate, &shape, &config.space);
                finals.push(tuning.tune_given(family.row(), &nearest, recipe, &store, watch)?);
            }
            let elsewhere = shuffled(&shape, candidate, config.seed);
            finals.push(tuning.tune_given("shuffled", &elsewhere, recipe, &store, watch)?);
            finals.push(searched);
        }
        // What fine-tuning alone does to the dense model, for as long as under the searched masks: drops are to be read beside it.
        // Other searches of this model and task have this row, too, so it is kept with the dense model.
        let recipe = finals.last().filter(|last| last.name == "searched").map_or(&config.fine_tune, |of| &of.recipe);
        let finest = pricing.finest();
        let whole = Candidate::from_fn(&shape, |_, of| HeadMask::dense(of, BlockSize::B32, finest));
        let dense_tuned = tuning.tune_given(DENSE_TUNED, &whole, recipe, &self.cache, watch)?;
        let identity_accuracy = tuning.identity(recipe, &self.cache, watch)?;
        finals.insert(0, dense_tuned);
        let conclusion = Conclusion {
            config: &config,
            config_name: &self.config_name,
            run: &self.run,
            evaluator: &evaluator,
            pricing: &pricing,
            searched: compared.last().expect("the search is the last"),
            kappa: limits.kappa,
            limit,
            fidelity: &limits.fidelity.into_values().collect::<Vec<_>>(),
            identity_accuracy,
        };
        let outcome = conclusion.draw(&finals, watch)?;
        let _ = fs::remove_dir_all(store); // what is left takes space, no more
        Ok(outcome)
    }
}

/// What candidates may do to the dense model's answers.
struct Limits {
    /// What stands for the tolerance on the loop's examples.
    kappa: f64,
    /// The same with slack for what fine-tuning wins back.
    of_loop: Limit,
    of_selection: Limit,
    /// Of each candidate that has both, the distortion in the loop beside the drop on the selection split.
    fidelity: BTreeMap<Digest, (f64, f64)>,
}

impl Limits {
    /// As configured, or from a scan of knapsacks that are measured on both splits.
    fn found(
        config: &SearchConfig,
        multipliers: &[f64],
        dense_selection: f64,
        tolerance: f64,
        trials: &mut Trials<'_>,
        watch: &mut dyn Watch,
    ) -> Result<Self, SearchError> {
        let mut fidelity = BTreeMap::new();
        // A distortion on the loop's examples and one on the selection split are not of one scale: some examples weigh much.
        let (kappa, selection_kappa) = match config.kappa {
            Kappa::Fixed(kappa) => (kappa, kappa),
            Kappa::Scan(count) => {
                let mut scan = KnapsackSearcher::new(multipliers);
                let scanned = trials.run("scan", &mut scan, count as usize, None, watch)?;
                let drops = |distortion: &dyn Fn(usize, Effect) -> f64| -> Vec<(f64, f64)> {
                    let pair = |(at, selected): &(usize, Effect)| {
                        (distortion(*at, *selected), dense_selection - selected.accuracy)
                    };
                    scanned.selected.iter().map(pair).collect()
                };
                let in_loop = drops(&|at, _| scanned.evaluated[at].distortion);
                let digests = scanned.selected.iter().map(|(at, _)| scanned.evaluated[*at].candidate.digest());
                fidelity.extend(digests.zip(in_loop.iter().copied()));
                (kappa_for(tolerance, &in_loop), kappa_for(tolerance, &drops(&|_, selected| selected.distortion)))
            }
        };
        let with_slack = |kappa| Limit { kappa: kappa * config.slack, tolerance };
        Ok(Self { kappa, of_loop: with_slack(kappa), of_selection: with_slack(selection_kappa), fidelity })
    }
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

/// That a dense model has learnt nothing, so far as answers tell.
fn no_better(dense: f64, commonest: f64, task: &Task) -> String {
    let answer = if matches!(task, Task::Translation { .. }) { "token" } else { "class" };
    format!(
        "the dense model answers {:.1} % of the selection split rightly, the commonest {answer} alone {:.1} %: no mask can \
         cost it much, and drops will say little; stop (Ctrl-C), and give `model.training` more epochs or another \
         learning_rate",
        100.0 * dense,
        100.0 * commonest,
    )
}

/// Refuses what [`Search::start`] would, as far as that can be told without a file of data or weights; else gives the device.
/// A pretrained model's `config.json` must be there.
pub fn check_config(config: &SearchConfig) -> Result<DeviceProfile, SearchError> {
    let device = device_profile(config)?;
    let place = config.backend.device().map_err(EvaluatorError::from)?;
    match (&config.task, &config.model.source) {
        (Task::BlockRecall | Task::ListOps { .. }, ModelSource::New { .. } | ModelSource::NewTranslator { .. }) => {
            check_data(config, &untrained(config)?)?;
        }
        (_, source @ (ModelSource::New { .. } | ModelSource::NewTranslator { .. })) => {
            let built = source.build(None, config.seed, &place).map_err(EvaluatorError::from)?;
            check_budget(config, &built.model.shape(&config.model.name))?;
        }
        (_, ModelSource::Pretrained { folder, .. }) => {
            Checkpoint::open(folder).map_err(EvaluatorError::from)?;
        }
    }
    Ok(device)
}

fn check_data(config: &SearchConfig, model: &DenseModel) -> Result<(), SearchError> {
    check_budget(config, &model.shape)?;
    check_split(config, model)
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

/// Where dense models are kept, beside the runs that use them.
fn cache_below(runs: &Path) -> PathBuf {
    runs.join("cache")
}
