use std::{ops::ControlFlow, path::Path};

use maskwright_blueprint::{AttentionKind, Blueprint, Provenance};
use maskwright_evaluator::{Effect, Evaluator, Recipe, Split, TestFigures, Treatment};
use maskwright_transformer::{Model, weights_digest};

use crate::{
    Candidate, Evaluated, Limit, Pricing, SearchConfig, SearchError, Stage, Watch,
    run_directory::{config_digest, tool},
    trial::{Found, Trials},
};

/// A candidate after fine-tuning: a row of the answer to be.
pub(crate) struct Finalist {
    /// The row's name.
    pub name: String,
    pub candidate: Candidate,
    pub model: Model,
    /// How it was fine-tuned.
    pub recipe: Recipe,
    /// On the selection split, after fine-tuning.
    pub selection_drop: f64,
    /// Mean `KL(dense || tuned)` there, nats: how far it is from the dense model, better or worse.
    pub selection_distortion: f64,
    /// None for a control, which nobody found.
    pub found: Option<FoundAt>,
}

/// Which of a searcher's evaluations found a candidate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FoundAt {
    /// Counted from 1.
    pub evaluation: u64,
    /// How many there were.
    pub of: u64,
}

/// Shares of the loop's limit whose fastest candidates are looked at.
const LEVELS: [f64; 7] = [1.0, 0.75, 0.55, 0.4, 0.3, 0.2, 0.1];

/// Candidates of each level whose distortion is measured again before the finalists are chosen.
const VERIFIED: usize = 2;

/// How many times as long the safest candidate is fine-tuned when nothing else kept within the tolerance.
const LONGER: u32 = 3;

/// A candidate that may become a finalist: on the selection split.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    /// Index of its evaluation.
    pub at: usize,
    pub candidate: Candidate,
    pub speed: f64,
    pub selected: Effect,
}

/// The fastest candidates at ever smaller distortions, each measured anew on the selection split: what a searcher has
/// fitted to the loop's examples does not count there.
pub(crate) fn contenders(
    found: &Found,
    limit: Limit,
    trials: &mut Trials<'_>,
    watch: &mut dyn Watch,
) -> Result<Vec<Contender>, SearchError> {
    let evaluated = &found.evaluated;
    let mut by_speed: Vec<usize> = (0..evaluated.len()).collect();
    by_speed.sort_by(|a, b| evaluated[*b].speed.total_cmp(&evaluated[*a].speed).then(a.cmp(b)));
    let mut chosen = Vec::new();
    for level in LEVELS {
        let within = |at: &usize| evaluated[*at].distortion <= level * limit.kappa && !chosen.contains(at);
        let fastest: Vec<usize> = by_speed.iter().copied().filter(within).take(VERIFIED).collect();
        chosen.extend(fastest);
    }
    // The least distorted one shows how far away the limit is, if it is not even near.
    let least = (0..evaluated.len()).min_by(|a, b| evaluated[*a].distortion.total_cmp(&evaluated[*b].distortion));
    chosen.extend(least.filter(|least| !chosen.contains(least)));
    watch.begin(&Stage::Select(found.name.clone()), chosen.len() as u64);
    let mut contenders = Vec::new();
    for at in chosen {
        let Evaluated { candidate, speed, .. } = evaluated[at].clone();
        let selected = trials.selected(&candidate, candidate.digest())?;
        contenders.push(Contender { at, candidate, speed, selected });
        watch.advance(contenders.len() as u64, "");
        if watch.is_interrupted() {
            return Err(SearchError::Interrupted { run: trials.run.path().into() });
        }
    }
    watch.end(&format!("{} candidates measured on the selection split", contenders.len()));
    Ok(contenders)
}

/// The contenders within a limit of the selection split that no other beats in both speed and distortion, fastest first,
/// with the index of their evaluation; the least distorted one when none keeps the limit.
pub(crate) fn shortlist(mut contenders: Vec<Contender>, limit: Limit) -> Vec<(usize, Candidate)> {
    contenders.sort_by(|a, b| {
        b.speed.total_cmp(&a.speed).then(a.selected.distortion.total_cmp(&b.selected.distortion)).then(a.at.cmp(&b.at))
    });
    let mut least = f64::INFINITY;
    contenders.retain(|of| {
        let is_ahead = of.selected.distortion < least;
        least = least.min(of.selected.distortion);
        is_ahead
    });
    let safest = contenders.len().saturating_sub(1);
    let within = contenders.iter().position(|of| of.selected.distortion <= limit.kappa).unwrap_or(safest);
    contenders.drain(..within);
    contenders.into_iter().map(|of| (of.at, of.candidate)).collect()
}

/// Fine-tuning of candidates, and what decides between them.
pub(crate) struct Tuning<'a> {
    pub evaluator: &'a Evaluator,
    pub config: &'a SearchConfig,
    /// Holds tuned weights of what searchers found: a search that is stopped and goes on does not tune twice.
    pub store: &'a Path,
    /// The dense model's accuracy on the selection split.
    pub dense_selection: f64,
    /// How much less is allowed.
    pub tolerance: f64,
}

impl Tuning<'_> {
    /// A candidate that no searcher found, a control or masks that a user has; its weights are kept in `store`.
    pub(crate) fn tune_given(
        &self,
        name: &str,
        candidate: &Candidate,
        recipe: &Recipe,
        store: &Path,
        watch: &mut dyn Watch,
    ) -> Result<Finalist, SearchError> {
        self.tune(name, None, candidate, recipe, store, watch)
    }

    /// Test accuracy of the dense model fine-tuned alike with no attention at all: what attention is worth. None for models
    /// whose queries and keys are different tokens.
    pub(crate) fn identity(
        &self,
        recipe: &Recipe,
        store: &Path,
        watch: &mut dyn Watch,
    ) -> Result<Option<f64>, SearchError> {
        let Self { evaluator, .. } = *self;
        if evaluator.shape().modules.iter().any(|module| module.shape.kind == AttentionKind::CrossAttention) {
            return Ok(None);
        }
        let model = self.fine_tuned("identity", Treatment::Identity, recipe, store, watch)?;
        let accuracy = |split| evaluator.accuracy(&model, Treatment::Identity, split);
        let selection_drop = self.dense_selection - accuracy(Split::Selection)?;
        watch.end(&format!("drop {:+.2} points on the selection split", 100.0 * selection_drop));
        Ok(Some(accuracy(Split::Test)?))
    }

    /// Fine-tunes at most `config.finalists` of a shortlist, fastest first, to find the fastest that keeps within the
    /// tolerance on the selection split; otherwise the one that comes closest.
    ///
    /// By bisection: drops are taken to shrink along the list, for distortions do. They do not always, since a drop on the
    /// selection split has an error of its own: when bisection finds nothing, as many again are tried from the safe end, and
    /// last the safest of all, fine-tuned [`LONGER`] times as long.
    pub(crate) fn fastest_of(
        &self,
        name: &str,
        shortlist: &[(usize, Candidate)],
        evaluations: u64,
        watch: &mut dyn Watch,
    ) -> Result<Option<Finalist>, SearchError> {
        let Self { config, tolerance, .. } = *self;
        let mut tuned = |at: usize, recipe: &Recipe| {
            let (evaluation, candidate) = &shortlist[at];
            let found = FoundAt { evaluation: *evaluation as u64 + 1, of: evaluations };
            self.tune(name, Some(found), candidate, recipe, self.store, watch)
        };
        let mut best: Option<Finalist> = None;
        let mut left: Vec<usize> = (0..shortlist.len()).collect();
        let mut open = 0..shortlist.len();
        for _ in 0..config.finalists {
            if open.is_empty() {
                break;
            }
            let middle = open.start + open.len() / 2;
            let finalist = tuned(middle, &config.fine_tune)?;
            left.retain(|at| *at != middle);
            if finalist.selection_drop <= tolerance {
                open = open.start..middle;
                best = Some(finalist); // faster than any that kept within the tolerance before
            } else {
                open = middle + 1..open.end;
                if best
                    .as_ref()
                    .is_none_or(|best| best.selection_drop > tolerance && finalist.selection_drop < best.selection_drop)
                {
                    best = Some(finalist);
                }
            }
        }
        let longer = Recipe { epochs: LONGER * config.fine_tune.epochs, ..config.fine_tune.clone() };
        let safe_end = left.into_iter().rev().take(config.finalists as usize).map(|at| (at, &config.fine_tune));
        let safest = shortlist.len().checked_sub(1);
        for (at, recipe) in safe_end.chain(safest.map(|at| (at, &longer))) {
            if best.as_ref().is_some_and(|best| best.selection_drop <= tolerance) {
                break;
            }
            let finalist = tuned(at, recipe)?;
            if best.as_ref().is_none_or(|best| finalist.selection_drop < best.selection_drop) {
                best = Some(finalist);
            }
        }
        Ok(best)
    }

    fn tune(
        &self,
        name: &str,
        found: Option<FoundAt>,
        candidate: &Candidate,
        recipe: &Recipe,
        store: &Path,
        watch: &mut dyn Watch,
    ) -> Result<Finalist, SearchError> {
        let blueprint = candidate.blueprint(self.evaluator.shape(), Provenance::default());
        let model = self.fine_tuned(name, Treatment::Masked(&blueprint), recipe, store, watch)?;
        let Effect { accuracy, distortion: selection_distortion } = self.evaluator.select(&model, &blueprint)?;
        let selection_drop = self.dense_selection - accuracy;
        watch.end(&format!(
            "drop {:+.2} points on the selection split, distortion {}",
            100.0 * selection_drop,
            nats(selection_distortion),
        ));
        let (name, candidate, recipe) = (name.into(), candidate.clone(), recipe.clone());
        Ok(Finalist { name, candidate, model, recipe, selection_drop, selection_distortion, found })
    }

    fn fine_tuned(
        &self,
        name: &str,
        treatment: Treatment<'_>,
        recipe: &Recipe,
        store: &Path,
        watch: &mut dyn Watch,
    ) -> Result<Model, SearchError> {
        let Self { evaluator, config, .. } = *self;
        watch.begin(&Stage::FineTune(name.into()), recipe.steps(evaluator.examples(Split::Train).len()));
        let tuned = evaluator.fine_tune(treatment, recipe, config.seed, store, &mut |progress| {
            watch.advance(progress.step, &progress.to_string());
            if watch.is_interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        Ok(tuned.map_err(|error| error.of_row(name))?)
    }
}

/// A distortion as a person reads it; one that rounds to nothing has no minus.
pub(crate) fn nats(distortion: f64) -> String {
    let rounded = format!("{distortion:.3}");
    if rounded == "-0.000" { "0.000".into() } else { rounded }
}

/// Where a blueprint that is made by a configuration comes from.
pub(crate) fn provenance(config: &SearchConfig, config_name: &str, origin: &str) -> Provenance {
    Provenance {
        tool: tool(),
        origin: origin.into(),
        config: Some(config_name.into()),
        config_digest: Some(config_digest(config)),
        seed: Some(config.seed),
        task: Some(config.task.name().into()),
        ..Provenance::default()
    }
}

/// A finalist as a blueprint with everything that is known of it; `provenance` says where it comes from, `dense` what the
/// dense model reaches. This is where the test split is read.
pub(crate) fn blueprint_of(
    finalist: &Finalist,
    evaluator: &Evaluator,
    pricing: &Pricing,
    dense: TestFigures,
    provenance: Provenance,
) -> Result<Blueprint, SearchError> {
    let mut blueprint = finalist.candidate.blueprint(evaluator.shape(), provenance);
    let masked = evaluator.test(&finalist.model, Some(&blueprint))?;
    let predicted = pricing.predicted(&blueprint)?;
    let provenance = &mut blueprint.provenance;
    provenance.tuned_weights = Some(weights_digest(&finalist.model));
    provenance.predicted = Some(predicted);
    provenance.accuracy = Some(masked.beside(dense, evaluator.examples(Split::Test).len() as u64));
    Ok(blueprint)
}

#[cfg(test)]
mod tests {
    use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, HeadMask, Precision};

    use super::*;

    fn contender(at: usize, speed: f64, distortion: f64) -> Contender {
        let shape = AttentionShape {
            heads: 1,
            queries: 8,
            keys: 8,
            head_dim: 8,
            kind: AttentionKind::SelfAttention,
            windows: 1,
        };
        let candidate = Candidate::new(vec![HeadMask::dense(&shape, BlockSize::B8, Precision::Int8)]);
        Contender { at, candidate, speed, selected: Effect { accuracy: 0.8, distortion } }
    }

    fn listed(contenders: Vec<Contender>, kappa: f64) -> Vec<usize> {
        shortlist(contenders, Limit { kappa, tolerance: 0.01 }).into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn the_shortlist_is_the_front_within_the_limit_fastest_first() {
        // 3 is too distorted, 1 is slower than 0 and more distorted.
        let contenders =
            vec![contender(0, 2.5, 0.10), contender(1, 2.0, 0.12), contender(2, 1.5, 0.05), contender(3, 4.0, 0.3)];
        assert_eq!(listed(contenders, 0.2), [0, 2]);
    }

    #[test]
    fn a_distortion_that_rounds_to_nothing_has_no_minus() {
        assert_eq!([-0.0004, 0.0, 0.0126, f64::NAN].map(nats), ["0.000", "0.000", "0.013", "NaN"]);
    }

    #[test]
    fn beyond_the_limit_the_least_distorted_one_is_left() {
        assert_eq!(listed(vec![contender(0, 2.5, 0.10), contender(1, 2.0, 0.08)], 0.01), [1]);
        assert!(listed(Vec::new(), 0.01).is_empty());
    }
}
