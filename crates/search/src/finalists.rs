use std::ops::ControlFlow;

use maskwright_blueprint::{Accuracy, AccuracyDrop, Blueprint, Provenance};
use maskwright_evaluator::{Evaluator, Split};
use maskwright_transformer::{Encoder, weights_digest};

use crate::{Candidate, Evaluated, Limit, Pricing, SearchConfig, SearchError, Stage, Watch};

/// A candidate after fine-tuning.
pub(crate) struct Finalist {
    pub candidate: Candidate,
    pub model: Encoder,
    /// On the selection split, after fine-tuning.
    pub selection_drop: f64,
    /// Which evaluation found it, counted from 1.
    pub found_at: Option<u64>,
}

/// Shares of the loop's limit whose fastest candidates are tried in turn, boldest first.
const LEVELS: [f64; 8] = [1.0, 0.85, 0.7, 0.55, 0.35, 0.2, 0.05, 0.0];

/// Candidates of each searcher whose distortion is measured again before the finalists are chosen.
const VERIFIED: usize = 24;

/// The candidates nearest to the Pareto front of speed and distortion, with their distortions measured anew on the
/// selection split: what a searcher has fitted to the loop's examples does not count there.
pub(crate) fn verified(evaluated: &[Evaluated], limit: Limit, evaluator: &Evaluator) -> Vec<(usize, Evaluated)> {
    let mut left: Vec<usize> = (0..evaluated.len()).collect();
    if evaluated.iter().any(|e| e.distortion <= limit.kappa) {
        left.retain(|at| evaluated[*at].distortion <= limit.kappa);
    }
    left.sort_by(|a, b| evaluated[*b].speed.total_cmp(&evaluated[*a].speed).then(a.cmp(b)));
    let mut chosen = Vec::new();
    // One front after another: of what is left, those that are less distorted than everything faster.
    while chosen.len() < VERIFIED && !left.is_empty() {
        let mut least = f64::INFINITY;
        let (front, behind): (Vec<usize>, Vec<usize>) = left.into_iter().partition(|at| {
            let is_ahead = evaluated[*at].distortion < least;
            least = least.min(evaluated[*at].distortion);
            is_ahead
        });
        if front.is_empty() {
            break; // only distortions that are no numbers are left
        }
        chosen.extend(front);
        left = behind;
    }
    chosen.truncate(VERIFIED);
    let blueprint = |at: &usize| evaluated[*at].candidate.blueprint(evaluator.shape(), Provenance::default());
    let blueprints: Vec<Blueprint> = chosen.iter().map(blueprint).collect();
    let distortions = evaluator.selection_distortions(&blueprints);
    let anew = |(at, distortion): (usize, f64)| (at, Evaluated { distortion, ..evaluated[at].clone() });
    chosen.into_iter().zip(distortions).map(anew).collect()
}

/// The fastest candidates at ever smaller distortions, with the index of their evaluation.
pub(crate) fn shortlist(evaluated: &[(usize, Evaluated)], limit: Limit, most: usize) -> Vec<(usize, Candidate)> {
    let mut list: Vec<(usize, Candidate)> = Vec::new();
    for level in LEVELS {
        let within = evaluated.iter().filter(|(_, e)| e.distortion <= level * limit.kappa);
        let fastest = within.max_by(|(_, a), (_, b)| a.speed.total_cmp(&b.speed));
        if let Some((at, fastest)) = fastest
            && list.iter().all(|(_, listed)| *listed != fastest.candidate)
        {
            list.push((*at, fastest.candidate.clone()));
        }
    }
    if list.is_empty() {
        // Nothing within the limit: the least distorted one shows how far away it is.
        let least = evaluated.iter().min_by(|(_, a), (_, b)| a.distortion.total_cmp(&b.distortion));
        list.extend(least.map(|(at, least)| (*at, least.candidate.clone())));
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
