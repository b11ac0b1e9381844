use std::{fs, path::Path};

use maskwright_blueprint::{SecondAccuracy, TranslationAccuracy, check_writable, write_whole};
use maskwright_search::{Backend, CrossValidation, Evaluation, SearchConfig, cross_validate, evaluate};
use serde::Serialize;

use super::blueprint_config::config_of;
use crate::{
    answer::Answer,
    arguments::EvalArguments,
    error::CliError,
    progress::Progress,
    report,
    table::{counted, percent, points, table, translation_points},
};

/// What `--json` prints.
#[derive(Serialize)]
struct Found<'a> {
    #[serde(flatten)]
    evaluation: &'a Evaluation,
    #[serde(skip_serializing_if = "Option::is_none")]
    cross_validation: Option<&'a CrossValidation>,
}

pub(crate) fn run(arguments: &EvalArguments, verbose: u8) -> Result<Answer, CliError> {
    let path = &arguments.blueprint;
    let default = ("backend".to_owned(), Backend::default().to_string());
    let (config, _) = config_of(path, arguments.config.as_deref(), Some(default), &arguments.overrides)?;
    if let Some(page) = &arguments.report {
        // The page may be wanted in there.
        fs::create_dir_all(&arguments.runs)
            .map_err(|source| CliError::Write { path: arguments.runs.clone(), source })?;
        check_writable(page).map_err(|source| CliError::Write { path: page.clone(), source })?;
    }
    let mut progress = Progress::new(verbose);
    let found = evaluate(path, &config, &arguments.runs.join("cache"), &mut progress)?;
    let study = arguments.report.as_deref().map(|page| studied(arguments, &config, page, &mut progress)).transpose()?;
    drop(progress);
    if arguments.json {
        return Ok(Answer::json("eval", &Found { evaluation: &found, cross_validation: study.as_ref() }));
    }
    let text = sentences(&found);
    Ok(Answer::text(match (&study, &arguments.report) {
        (Some(study), Some(page)) => format!("{text}\n{}\nreport  {}\n", rows(study), page.display()),
        _ => text,
    }))
}

fn sentences(found: &Evaluation) -> String {
    let tuned = match found.fine_tuned {
        true => "fine-tuned under the mask",
        false => "without fine-tuning",
    };
    let mut text = format!(
        "measured on {} {} examples, {tuned}: {} (dense {}), a drop of {} points at density {}\n",
        found.examples,
        found.split,
        percent(found.masked),
        percent(found.dense),
        points(found.drop),
        percent(found.density),
    );
    if let Some(SecondAccuracy { name, dense, masked }) = &found.second {
        text += &format!("{name}: {} (dense {})\n", percent(*masked), percent(*dense));
    }
    if let Some(TranslationAccuracy { dense, masked }) = found.translation {
        let [[bleu, chrf], [dense_bleu, dense_chrf]] = [masked, dense].map(|of| translation_points(Some(of)));
        text += &format!("greedy decoding: BLEU {bleu} (dense {dense_bleu}), chrF {chrf} (dense {dense_chrf})\n");
    }
    if found.weights_missing {
        text += "the blueprint names weights that were fine-tuned under it, which do not lie beside it: these are the dense model's\n";
    }
    for caveat in found.caveats.sentences() {
        text += &format!("inputs: {caveat}\n");
    }
    text
}

/// Cross-validates and writes the page.
fn studied(
    arguments: &EvalArguments,
    config: &SearchConfig,
    page: &Path,
    progress: &mut Progress,
) -> Result<CrossValidation, CliError> {
    let store = arguments.runs.join("cache/cross-validation");
    let study = cross_validate(&arguments.blueprint, config, arguments.folds, &arguments.seeds, &store, progress);
    let study = study.map_err(|error| match error.is_interruption() {
        true => CliError::TrainingInterrupted { store: store.clone() },
        false => error.into(),
    })?;
    let text = report::study(&study);
    write_whole(page, text.as_bytes()).map_err(|source| CliError::Write { path: page.into(), source })?;
    Ok(study)
}

fn rows(study: &CrossValidation) -> String {
    let CrossValidation { folds, seeds, examples, test_examples, majority, .. } = study;
    let interval = |of: &Option<maskwright_search::DropInterval>| {
        of.map_or("–".into(), |of| format!("{} ({} to {})", points(of.drop), points(of.low), points(of.high)))
    };
    let row = |row: &maskwright_search::CrossValidationRow| {
        let spread = row.deviation.map_or(String::new(), |deviation| format!(" ± {:.1}", 100.0 * deviation));
        let tests: Vec<String> = row.mcnemar.iter().map(|p| format!("{p:.2}")).collect();
        [
            row.treatment.clone(),
            format!("{}{spread}", percent(row.mean)),
            interval(&row.drop),
            if tests.is_empty() { "–".into() } else { tests.join(" ") },
            percent(row.test),
            interval(&row.test_drop),
        ]
    };
    let headings =
        ["", "held out: mean ± sd", "drop, points (95 %)", "McNemar, p by seed", "test: mean", "drop, points (95 %)"];
    let text = table(headings, study.rows.iter().map(row));
    format!(
        "{text}\n{folds} folds of {examples} examples, {}; {test_examples} test examples, which no search saw; the \
         commonest class alone gives {}\n",
        counted(seeds.len(), "seed", "seeds"),
        percent(*majority),
    )
}
