use maskwright_search::{Outcome, Row};

use crate::table::{percent, points};

/// What a run found, in one or two sentences for a person: the blueprint, then how it compares with the best baseline.
pub(crate) fn headline(outcome: &Outcome) -> String {
    let details = &outcome.details;
    let Some(best) = &outcome.best else {
        return format!(
            "No mask for {} on {} kept within the {} points of accuracy that it may lose.",
            details.model,
            details.task,
            points(details.tolerance).trim_start_matches('+'),
        );
    };
    let found = format!(
        "{} on {}: computing {} of the attention scores is predicted to make attention {:.1} times as fast on {} (the \
         whole model {:.2} times), at a measured test accuracy of {} against {} dense, a drop of {} points.",
        details.model,
        details.task,
        percent(best.density),
        best.predicted.speedup,
        details.device,
        best.predicted.end_to_end_speedup,
        percent(best.accuracy),
        percent(outcome.dense.accuracy),
        points(best.accuracy_drop).trim_start_matches('+'),
    );
    let found = match best.second.as_ref().zip(outcome.dense.second.as_ref()) {
        Some((masked, dense)) => {
            format!("{found} {}: {} against {} dense.", masked.name, percent(masked.value), percent(dense.value))
        }
        None => found,
    };
    let found = match best.translation.zip(outcome.dense.translation) {
        Some((masked, dense)) => format!("{found} BLEU is {:.1} against {:.1} dense.", masked.bleu, dense.bleu),
        None => found,
    };
    match comparison(outcome) {
        Some(comparison) => format!("{found} {comparison}"),
        None => found,
    }
}

/// Against the fastest baseline that kept within the tolerance, with at most as many evaluations.
fn comparison(outcome: &Outcome) -> Option<String> {
    let best = outcome.best.as_ref()?;
    // Controls have no evaluations of their own.
    let baseline =
        |row: &&Row| row.evaluations > 0 && outcome.baselines.iter().any(|baseline| baseline.name == row.name);
    let rows: Vec<&Row> = outcome.table.iter().filter(baseline).collect();
    let speedup = |row: &&Row| row.predicted.speedup;
    let kept = rows.iter().copied().filter(|row| row.within_tolerance);
    let Some(rival) = kept.max_by(|a, b| speedup(a).total_cmp(&speedup(b))) else {
        return (!rows.is_empty()).then(|| "No baseline kept within the tolerance.".into());
    };
    let (ours, theirs) = (best.predicted.speedup, rival.predicted.speedup);
    let verb = match ours / theirs {
        ratio if ratio >= 1.005 => "behind the search",
        ratio if ratio <= 0.995 => "ahead of the search",
        _ => "level with the search",
    };
    Some(format!(
        "The best baseline, {}, reaches {theirs:.1} times with at most as many evaluations: {verb}.",
        rival.name
    ))
}
