use std::collections::BTreeMap;

use maskwright_search::{Outcome, StopReason, TranslationSample};

use crate::{
    report::{
        RunFiles, candidates::candidates, curve::reward_curve, headline, mask_grid::mask_grids, palette,
        plot::by_searcher,
    },
    table::{percent, points, second_percent, times, translation_points},
};

/// The whole page. The same run gives the same bytes.
pub(crate) fn page(run: &RunFiles) -> String {
    let outcome = &run.outcome;
    let details = &outcome.details;
    let title = escaped(&format!("{} on {} for {}", details.model, details.task, details.device));
    let mut html = opening("maskwright search report", &title);
    html += &format!("<p class=\"headline\">{}</p>\n", escaped(&headline(outcome)));
    html += &results(outcome);
    html += &translations(outcome);
    html += &plots(run);
    if let Some((_, blueprint)) = &run.blueprint {
        html += &section("Masks of all heads", &masks_note(outcome, blueprint.density()));
        html += LEGEND;
        html += &mask_grids(blueprint);
    }
    html += &controls(run);
    html += &provenance(run);
    html + CLOSING
}

/// The beginning of a page; both texts are HTML.
pub(crate) fn opening(kind: &str, title: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light \
         dark\">\n<title>maskwright: {title}</title>\n<style>\n{}{}</style>\n</head>\n<body>\n<main>\n<p \
         class=\"eyebrow\">{kind}</p>\n<h1>{title}</h1>\n",
        palette::style(),
        include_str!("style.css")
    )
}

/// The end of a page.
pub(crate) const CLOSING: &str = "</main>\n</body>\n</html>\n";

const LEGEND: &str = "<p class=\"legend\"><span><i class=\"box bytes-1\"></i>8 bit</span><span><i class=\"box \
                      bytes-2\"></i>16 bit</span><span><i class=\"box bytes-4\"></i>32 bit</span><span><i class=\"box \
                      skipped\"></i>skipped</span></p>\n";

/// `&`, `<`, `>` and `"` as HTML writes them.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub(crate) fn section(title: &str, note: &str) -> String {
    format!("<h2>{title}</h2>\n<p class=\"note\">{note}</p>\n")
}

fn results(outcome: &Outcome) -> String {
    let details = &outcome.details;
    let mut html = section(
        "At equal evaluations",
        &format!(
            "Times, speed-ups and energies are <em>predicted</em> by the cost model of {} against dense attention at its \
             finest precision. Accuracies are <em>measured</em> on {} test examples that no searcher saw, fine-tuned \
             unless dense; {}",
            escaped(&details.device),
            details.test_examples,
            match details.test_answers {
                None => format!(
                    "their 95 % interval is about ± {} points.",
                    points(interval(outcome)).trim_start_matches('+')
                ),
                Some(answers) => format!(
                    "they are shares of {answers} target tokens that are answered rightly, given the reference so far. BLEU \
                     and chrF, in points from 0 to 100, are of greedy decoding under the same masks."
                ),
            },
        ),
    );
    let translates = outcome.dense.translation.is_some();
    let second = outcome.dense.second.iter().map(|second| escaped(&second.name));
    let translation = ["BLEU", "chrF"].into_iter().filter(|_| translates).map(String::from);
    let more_headings: String =
        second.chain(translation).map(|name| format!("<th>{name}<small>measured</small></th>")).collect();
    html += "<div class=\"scroll\"><table>\n<thead><tr><th></th><th>density</th><th>attention \
             time<small>predicted</small></th><th>attention speed-up<small>predicted</small></th><th>end-to-end \
             speed-up<small>predicted</small></th><th>energy<small>predicted</small></th><th>test \
             accuracy<small>measured</small></th><th>drop, points<small>measured</small></th>";
    html += &format!("{more_headings}<th>evaluations</th></tr></thead>\n<tbody>\n");
    for row in &outcome.table {
        let class = match (row.name == "searched", row.within_tolerance) {
            (true, true) => " class=\"ours\"",
            (true, false) => " class=\"ours out\"",
            (false, true) => "",
            (false, false) => " class=\"out\"",
        };
        let mut cells = vec![
            percent(row.density),
            row.predicted.seconds.to_string(),
            times(row.predicted.speedup),
            times(row.predicted.end_to_end_speedup),
            row.predicted.joules.to_string(),
            percent(row.accuracy),
            points(row.accuracy_drop),
        ];
        if outcome.dense.second.is_some() {
            cells.push(second_percent(row.second.as_ref()));
        }
        if translates {
            cells.extend(translation_points(row.translation));
        }
        cells.push(if row.evaluations == 0 { "–".into() } else { row.evaluations.to_string() });
        let mark = if row.within_tolerance { "" } else { " *" };
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        html += &format!("<tr{class}><th>{}{mark}</th>{cells}</tr>\n", escaped(&row.name));
    }
    html += "</tbody>\n</table></div>\n";
    let mut notes = Vec::new();
    if outcome.table.iter().any(|row| row.name == "shuffled") {
        notes.push("Shuffled is a control: as many blocks as the searched masks have, elsewhere by chance.".to_owned());
    }
    if outcome.table.iter().any(|row| row.name.starts_with("pattern-")) {
        notes.push(
            "Patterns are controls: masks of the literature that are about as dense as the searched ones.".to_owned(),
        );
    }
    if outcome.table.iter().any(|row| !row.within_tolerance) {
        notes.push(format!(
            "* lost more than the {} points that are allowed on the selection split; a searcher's closest attempt.",
            points(details.tolerance).trim_start_matches('+')
        ));
    }
    let longer: Vec<String> =
        outcome.table.iter().filter(|row| row.longer).map(|row| escaped(&row.name).to_string()).collect();
    if !longer.is_empty() {
        notes.push(format!(
            "Fine-tuned three times as long, for want of a row within the tolerance: {}.",
            longer.join(", ")
        ));
    }
    notes.extend(outcome.caveats.sentences().iter().map(|caveat| format!("Inputs: {}.", escaped(caveat))));
    if !notes.is_empty() {
        html += &format!("<p class=\"note below\">{}</p>\n", notes.join("<br>"));
    }
    html
}

/// The first test sentences, dense and searched; nothing where the task asks for something else.
fn translations(outcome: &Outcome) -> String {
    if outcome.samples.is_empty() {
        return String::new();
    }
    let sample = |of: &TranslationSample| {
        let searched = of.searched.iter().map(|text| ("Searched", text.clone()));
        let texts = [("Sentence", &of.source), ("Reference", &of.reference), ("Dense", &of.dense)];
        facts(texts.map(|(name, text)| (name, text.clone())).into_iter().chain(searched))
    };
    let note = "The first sentences of the test split, decoded greedily; nobody chose them.";
    section("Translations", note) + &outcome.samples.iter().map(sample).collect::<String>()
}

/// Half of the 95 % interval of the dense accuracy, as a share.
fn interval(outcome: &Outcome) -> f64 {
    let (share, count) = (outcome.dense.accuracy, outcome.details.test_examples.max(1) as f64);
    1.96 * (share * (1.0 - share) / count).sqrt()
}

fn plots(run: &RunFiles) -> String {
    let details = &run.outcome.details;
    let searchers = by_searcher(&run.episodes);
    let legend: String = searchers
        .iter()
        .enumerate()
        .map(|(at, (name, of))| {
            let color = palette::searcher(at).name;
            format!(
                "<span><i class=\"dot\" style=\"background:var(--{color})\"></i>{} <small>{}</small></span>",
                escaped(name),
                of.len()
            )
        })
        .collect();
    let mut note =
        "Every candidate that was evaluated in the loop, by the searcher that proposed it; the number is how \
                    many each evaluated."
            .to_owned();
    if searchers.iter().any(|(name, _)| *name == "scan") {
        note += " The scan is for all of them: it sets how much distortion the tolerance allows.";
    }
    format!(
        "{}<p class=\"legend\">{legend}</p>\n<div class=\"plots\">\n<figure>{}<figcaption>Best reward so far. The reward \
         is what the search maximises: speed, less what distortion costs beyond its limit.</figcaption></figure>\n\
         <figure>{}<figcaption>Every candidate: higher is faster, further left is closer to the dense model. Rings: the \
         candidates that became rows of the table. Dashed: {:.3} nats stand for the accuracy that may be lost before \
         fine-tuning, {:.3} nats are what the loop allows, since fine-tuning wins most of it \
         back.</figcaption></figure>\n</div>\n",
        section("The search", &note),
        reward_curve(&run.episodes),
        candidates(&run.episodes, &run.outcome),
        details.kappa,
        details.loop_kappa,
    )
}

fn masks_note(outcome: &Outcome, density: f64) -> String {
    let which = match outcome.best {
        Some(_) => "The searched blueprint",
        None => "The closest attempt",
    };
    format!(
        "{which} computes {} of the scores. Rows are queries, columns are keys, both from the first token at the top \
         left; one square is one token by one token, so blocks at a ragged edge are narrower.",
        percent(density)
    )
}

fn controls(run: &RunFiles) -> String {
    let outcome = &run.outcome;
    let details = &outcome.details;
    let commonest = if details.test_answers.is_some() { "Commonest token" } else { "Commonest class" };
    let stop = match outcome.stop_reason {
        StopReason::EvaluationsUsed => "every evaluation was used",
        StopReason::NothingNew => "nothing new was proposed any more",
    };
    let correlation = match details.fidelity_correlation {
        Some(rho) => format!("{rho:.2} (Spearman) between loop distortion and the drop on the selection split"),
        None => "not measured: too few candidates have both figures".into(),
    };
    let improvements: Vec<_> = details.improvements.iter().map(|(origin, n)| format!("{n} by {origin}")).collect();
    let mut failures: BTreeMap<&str, usize> = BTreeMap::new();
    for episode in run.episodes.iter().filter(|episode| episode.failure.is_some()) {
        *failures.entry(&episode.searcher).or_default() += 1;
    }
    let failures: Vec<_> = failures.iter().map(|(searcher, n)| format!("{n} of {searcher}")).collect();
    section("Controls", "What could make the figures above mean less than they seem to.")
        + &facts([
            (commonest, format!("{} for always answering it", percent(details.majority_accuracy))),
            (
                "Without attention",
                details.identity_accuracy.map_or("not measured".into(), |accuracy| {
                    format!("{} when each token sees itself alone, fine-tuned alike", percent(accuracy))
                }),
            ),
            ("Dense accuracy", format!("{} measured on test", percent(outcome.dense.accuracy))),
            (
                "Tolerance",
                format!("{} points on the selection split", points(details.tolerance).trim_start_matches('+')),
            ),
            ("Does the loop see what counts?", correlation),
            ("Search", format!("{} episodes, {} evaluations; {stop}", outcome.episodes, outcome.evaluations)),
            ("Its improvements", none_if_empty(&improvements)),
            ("Failed evaluations", none_if_empty(&failures)),
        ])
}

fn none_if_empty(items: &[String]) -> String {
    if items.is_empty() { "none".into() } else { items.join(", ") }
}

fn provenance(run: &RunFiles) -> String {
    let details = &run.outcome.details;
    let mut rows = vec![
        ("Run", run.outcome.run.clone()),
        ("Configuration", details.config.clone()),
        ("Seed", details.seed.to_string()),
    ];
    if let Some((_, blueprint)) = &run.blueprint {
        let made = &blueprint.provenance;
        rows.push(("Made by", made.tool.clone()));
        rows.push(("Blueprint", blueprint.digest().to_string()));
        rows.push(("Model", format!("{} {}", blueprint.model().name, blueprint.model().digest)));
        let digests = [("Configuration digest", &made.config_digest), ("Fine-tuned weights", &made.tuned_weights)];
        rows.extend(digests.into_iter().filter_map(|(name, digest)| Some((name, digest.as_ref()?.to_string()))));
        if let Some(predicted) = &made.predicted {
            let priced = format!("{}, {} dataflow, batch {}", predicted.device, predicted.dataflow, predicted.batch);
            rows.push(("Priced on", priced));
        }
    }
    section("Provenance", "Enough to make it again: the same program, configuration and seed give the same bytes.")
        + &facts(rows)
        + &format!(
            "<details><summary>The whole configuration</summary><pre>{}</pre></details>\n",
            escaped(run.config.trim_end())
        )
}

/// Names and what they stand for; both are text.
fn facts(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let row = |(name, value): (&str, String)| format!("<dt>{name}</dt><dd>{}</dd>\n", escaped(&value));
    format!("<dl>\n{}</dl>\n", rows.into_iter().map(row).collect::<String>())
}
