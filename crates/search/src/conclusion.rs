use std::collections::BTreeMap;

use maskwright_blueprint::{Blueprint, Provenance};
use maskwright_evaluator::{Evaluator, Split, TestFigures, Treatment};
use maskwright_transformer::{Model, Tokeniser, weights_to_bytes};

use crate::{
    Dense, Details, Limit, Outcome, Pricing, Row, SearchConfig, SearchError, Stage, StopReason, Watch,
    cross_validation::majority,
    dense_model::learnt_vocabulary,
    evaluation::VOCABULARY,
    fidelity::rank_correlation,
    finalists::{Finalist, blueprint_of, provenance},
    rows::{baseline_row, best_of, dense_row, is_baseline, row, samples},
    run_directory::{RunDirectory, now},
    trial::Found,
};

/// Test sentences whose translations a report shows.
const SAMPLES: usize = 8;

/// A search's end: what was found is measured on the test split, written down and summed up.
pub(crate) struct Conclusion<'a> {
    pub config: &'a SearchConfig,
    pub config_name: &'a str,
    pub run: &'a RunDirectory,
    pub evaluator: &'a Evaluator,
    pub pricing: &'a Pricing,
    pub searched: &'a Found,
    /// What stands for the tolerance on the loop's examples, before slack.
    pub kappa: f64,
    pub limit: Limit,
    /// Distortions in the loop beside drops on the selection split.
    pub fidelity: &'a [(f64, f64)],
    /// Of the dense model fine-tuned without attention, on test.
    pub identity_accuracy: Option<f64>,
}

impl Conclusion<'_> {
    /// Measures on the test split, writes every result file, and sums up.
    pub(crate) fn draw(&self, finals: &[Finalist], watch: &mut dyn Watch) -> Result<Outcome, SearchError> {
        let &Self { config, evaluator, pricing, searched, limit, .. } = self;
        watch.begin(&Stage::Test, finals.len() as u64 + 2);
        let dense = evaluator.test(evaluator.dense(), None)?;
        let mut table = self.dense_rows(&dense)?;
        watch.advance(2, "");
        let shown = evaluator.examples(Split::Test).split_at(SAMPLES).0;
        let texts = |model: &Model, masks: Option<&Blueprint>| {
            evaluator.translate_examples(model, masks, &shown).map(|found| found.texts)
        };
        let learnt = learnt_vocabulary(config, evaluator);
        let mut searched_texts = None;
        let mut best = None;
        for (at, finalist) in finals.iter().enumerate() {
            let name = &finalist.name;
            let provenance =
                Provenance { vocabulary: learnt.map(Tokeniser::digest), ..provenance(config, self.config_name, name) };
            let blueprint = blueprint_of(finalist, evaluator, pricing, dense.clone(), provenance)?;
            let text = blueprint.to_ron();
            let weights = weights_to_bytes(&finalist.model);
            self.run.write(&format!("rows/{name}.ron"), text.as_bytes())?;
            let within_tolerance = finalist.selection_drop <= limit.tolerance;
            let longer = finalist.recipe.epochs > config.fine_tune.epochs;
            let row = row(&blueprint, finalist, within_tolerance, longer);
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
        self.write_pareto_set()?;

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
                second: dense.second,
                translation: dense.translation,
                seconds: table[0].predicted.seconds.0,
            },
            best,
            baselines: table.iter().filter(|row| is_baseline(row)).map(baseline_row).collect(),
            table,
            details: Details {
                config: self.config_name.into(),
                model: config.model.name.clone(),
                task: config.task.name().into(),
                device: config.device.clone(),
                seed: config.seed,
                tolerance: limit.tolerance,
                kappa: self.kappa,
                loop_kappa: limit.kappa,
                fidelity_correlation: rank_correlation(self.fidelity),
                improvements: counted(&searched.improvements),
                majority_accuracy: majority(labels),
                identity_accuracy: self.identity_accuracy,
                test_examples,
                test_answers: Some(labels.len() as u64).filter(|answers| *answers != test_examples),
            },
            caveats: evaluator.caveats(),
            samples: samples(&shown, texts(evaluator.dense(), None), searched_texts.as_deref()),
        };
        let json = serde_json::to_vec_pretty(&outcome).expect("an outcome is plain data");
        self.run.write("result.json", &json)?;
        let mut manifest = self.run.manifest()?;
        (manifest.stopped, manifest.stop_reason) = (Some(now()), Some(stop_reason));
        self.run.write_manifest(&manifest)?;
        Ok(outcome)
    }

    /// The dense model at the finest precision that there is, and at the coarsest.
    fn dense_rows(&self, dense: &TestFigures) -> Result<Vec<Row>, SearchError> {
        let Self { evaluator, pricing, .. } = self;
        let (finest, coarsest) = (pricing.finest(), self.config.space.precisions[0]);
        let mut rows = vec![dense_row("dense", &pricing.dense(finest), dense.clone(), 0.0, pricing)?];
        if finest != coarsest {
            let coarse = pricing.dense(coarsest);
            let selected = evaluator.select(evaluator.dense(), &coarse)?;
            let dense_selection = evaluator.accuracy(evaluator.dense(), Treatment::Dense, Split::Selection)?;
            let selection_drop = dense_selection - selected.accuracy;
            let selection_distortion = Some(selected.distortion).filter(|of| of.is_finite());
            let on_test = evaluator.test(evaluator.dense(), Some(&coarse))?;
            let drop = dense.accuracy - on_test.accuracy;
            let row = dense_row(&format!("dense {coarsest}"), &coarse, on_test, drop, pricing)?;
            let within_tolerance = selection_drop <= self.limit.tolerance;
            rows.push(Row { selection_drop, selection_distortion, within_tolerance, ..row });
        }
        Ok(rows)
    }

    /// The search's candidates that no other one beats in both speed and distortion, before fine-tuning.
    fn write_pareto_set(&self) -> Result<(), SearchError> {
        let mut by_speed: Vec<_> = self.searched.evaluated.iter().collect();
        by_speed.sort_by(|a, b| b.speed.total_cmp(&a.speed).then(a.distortion.total_cmp(&b.distortion)));
        let mut least = f64::INFINITY;
        for evaluated in by_speed {
            if evaluated.distortion < least {
                least = evaluated.distortion;
                let provenance = provenance(self.config, self.config_name, "search");
                let blueprint = evaluated.candidate.blueprint(self.evaluator.shape(), provenance);
                let name = format!("best/pareto-{:.3}-{}.ron", blueprint.density(), blueprint.digest().short());
                self.run.write(&name, blueprint.to_ron().as_bytes())?;
            }
        }
        Ok(())
    }
}

fn counted(origins: &[&'static str]) -> Vec<(String, u64)> {
    let mut counts = BTreeMap::new();
    for origin in origins {
        *counts.entry((*origin).to_owned()).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}
