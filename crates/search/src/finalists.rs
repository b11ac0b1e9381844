use std::ops::ControlFlow;

use maskwright_blueprint::{Accuracy, AccuracyDrop, Blueprint, Provenance};
use maskwright_evaluator::{Evaluator, Selected, Split};
use maskwright_transformer::{Encoder, weights_digest};

use crate::{Candidate, Evaluated, Limit, Pricing, SearchConfig, SearchError, Stage, Watch, trial::Trials};

/// A candidate after fine-tuning.
pub(crate) struct Finalist {
    pub candidate: Candidate,
    pub model: Encoder,
    /// On the selection split, after fine-tuning.
    pub selection_drop: f64,
    /// Which evaluation found it, counted from 1.
    pub found_at: Option<u64>,
}

/// Shares of a limit whose fastest candidates are looked at in turn, boldest first.
const LEVELS: [f64; 7] = [1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.0];

/// Candidates of each level whose distortion is measured again before the finalists are chosen.
const VERIFIED: usize = 2;

/// A candidate that may become a finalist: on the selection split.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    /// Index of its evaluation.
    pub at: usize,
    pub candidate: Candidate,
    pub speed: f64,
    pub selected: Selected,
}

/// The fastest candidates at ever smaller distortions, each measured anew on the selection split: what a searcher has
/// fitted to the loop's examples does not count there.
pub(crate) fn contenders(evaluated: &[Evaluated], limit: Limit, trials: &mut Trials<'_>) -> Vec<Contender> {
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
    let contender = |at: usize| {
        let Evaluated { candidate, speed, .. } = evaluated[at].clone();
        let selected = trials.selected(&candidate, candidate.digest());
        Contender { at, candidate, speed, selected }
    };
    chosen.into_iter().map(contender).collect()
}

/// The fastest contenders at ever smaller distortions, with the index of their evaluation; the least distorted one when
/// none keeps the limit.
pub(crate) fn shortlist(contenders: &[Contender], limit: Limit, most: usize) -> Vec<(usize, Candidate)> {
    let mut list: Vec<(usize, Candidate)> = Vec::new();
    for level in LEVELS {
        let within = contenders.iter().filter(|of| of.selected.distortion <= level * limit.kappa);
        if let Some(of) = within.max_by(|a, b| a.speed.total_cmp(&b.speed))
            && list.iter().all(|(at, _)| *at != of.at)
        {
            list.push((of.at, of.candidate.clone()));
        }
    }
    if list.is_empty() {
        let least = contenders.iter().min_by(|a, b| a.selected.distortion.total_cmp(&b.selected.distortion));
        list.extend(least.map(|of| (of.at, of.candidate.clone())));
    }
    list.truncate(most);
    list
}

/// Fine-tunes finalists in order until one keeps within the tolerance on the selection split; otherwise the one that
/// comes closest.
pub(crate) fn fine_tuned(
    name: &str,
    shortlist: Vec<(Option<u64>, Candidate)>,
    evaluator: &Evaluator,
    config: &SearchConfig,
    tolerance: f64,
    watch: &mut dyn Watch,
) -> Result<Option<Finalist>, SearchError> {
    let dense = evaluator.accuracy(evaluator.dense(), None, Split::Selection);
    let mut closest: Option<Finalist> = None;
    for (found_at, candidate) in shortlist {
        let blueprint = candidate.blueprint(evaluator.shape(), Provenance::default());
        watch.begin(&Stage::FineTune(name.into()), config.fine_tune.steps(evaluator.examples(Split::Train).len()));
        let tuned = evaluator.fine_tune(&blueprint, &config.fine_tune, config.seed, &mut |progress| {
            watch.advance(progress.step, &format!("loss {:.3}", progress.loss));
            if watch.is_interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let selection_drop = dense - evaluator.accuracy(&tuned, Some(&blueprint), Split::Selection);
        watch.end(&format!("drop {:+.2} points on the selection split", 100.0 * selection_drop));
        let finalist = Finalist { candidate, model: tuned, selection_drop, found_at };
        if selection_drop <= tolerance {
            return Ok(Some(finalist));
        }
        if closest.as_ref().is_none_or(|closest| selection_drop < closest.selection_drop) {
            closest = Some(finalist);
        }
    }
    Ok(closest)
}

/// A finalist as a blueprint with everything that is known of it; `provenance` says where it comes from. This is where
/// the test split is read.
pub(crate) fn blueprint_of(
    finalist: &Finalist,
    evaluator: &Evaluator,
    pricing: &Pricing,
    dense_accuracy: f64,
    provenance: Provenance,
) -> Result<Blueprint, SearchError> {
    let mut blueprint = finalist.candidate.blueprint(evaluator.shape(), provenance);
    let masked = evaluator.accuracy(&finalist.model, Some(&blueprint), Split::Test);
    let predicted = pricing.predicted(&blueprint)?;
    let provenance = &mut blueprint.provenance;
    provenance.tuned_weights = Some(weights_digest(&finalist.model));
    provenance.predicted = Some(predicted);
    provenance.accuracy = Some(Accuracy {
        split: "test".into(),
        examples: evaluator.examples(Split::Test).len() as u64,
        dense: dense_accuracy,
        masked,
        drop: AccuracyDrop(dense_accuracy - masked),
    });
    Ok(blueprint)
}
