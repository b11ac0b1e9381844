use std::{
    fs,
    path::{Path, PathBuf},
};

use maskwright_blueprint::{Blueprint, MaskLibrary, write_whole};
use maskwright_search::{Dense, Outcome, Row, Search, SearchError, StopReason, VOCABULARY, load_config};

use super::{
    LIBRARY,
    next::{program, quoted, sets},
};
use crate::{
    answer::Answer,
    arguments::SearchArguments,
    error::CliError,
    picture,
    progress::Progress,
    report::{self, RunFiles, headline},
    table::{percent, points, second_percent, table_of_any_width, times, translation_points, wrapped},
};

/// In the run directory: a line for each finished stage with its time and memory, which differ from run to run and so
/// stand in no answer.
const STAGES: &str = "stages.jsonl";

/// Widest line of running text.
const WIDTH: usize = 100;

pub(crate) fn run(arguments: &SearchArguments, verbose: u8) -> Result<Answer, CliError> {
    let config = load_config(&arguments.config, &arguments.overrides.pairs())?;
    let name = arguments.config.display().to_string();
    let search = match &arguments.resume {
        Some(run) => Search::resume(run, config)?,
        None => Search::start(config, &name, &arguments.runs)?,
    };
    let run = search.directory().to_owned();
    tracing::info!("run directory {}", run.display());
    let outcome = search.run(&mut Progress::recorded(verbose, &run.join(STAGES))?).map_err(|error| match error {
        SearchError::Interrupted { run } => CliError::Interrupted { resume: resume_command(arguments, &run), run },
        other => other.into(),
    })?;

    let report = run.join("report.html");
    let page = report::html(&run)?;
    write_whole(&report, page.as_bytes()).map_err(|source| CliError::Write { path: report.clone(), source })?;
    let files = RunFiles::read(&run)?;
    let stored = match (&outcome.best, &files.blueprint) {
        (Some(_), Some((file, blueprint))) if arguments.store => Some(store(file, blueprint)?),
        _ => None,
    };
    let answer = match arguments.json {
        true => Answer::json("search", &outcome),
        false => Answer::text(summary(&files, &report, stored.as_deref())),
    };
    Ok(answer.with_code(if outcome.best.is_some() { 0 } else { 1 }))
}

/// Puts a blueprint into the mask library, after the weights and the vocabulary that lie beside it: what the library
/// lists is whole.
fn store(file: &Path, blueprint: &Blueprint) -> Result<PathBuf, CliError> {
    let library = MaskLibrary::new(LIBRARY);
    let write_error = |source| CliError::Write { path: library.place(blueprint), source };
    let place = library.place(blueprint);
    fs::create_dir_all(place.parent().unwrap_or(Path::new("."))).map_err(write_error)?;
    for ending in ["safetensors", VOCABULARY] {
        let from = file.with_extension(ending);
        if ending == VOCABULARY && !from.is_file() {
            continue;
        }
        let bytes = fs::read(&from).map_err(|source| CliError::Read { path: from, source })?;
        write_whole(&place.with_extension(ending), &bytes).map_err(write_error)?;
    }
    library.store(blueprint).map_err(write_error)
}

/// The closing summary: what was found, how it compares, one mask, where the files are, what to type next.
fn summary(run: &RunFiles, report: &Path, stored: Option<&Path>) -> String {
    let outcome = &run.outcome;
    let mut text = format!("{}\n\n{}\n{}", wrapped(&headline(outcome), WIDTH), rows(outcome), notes(outcome));
    if let Some((_, blueprint)) = &run.blueprint {
        let head = picture::head(blueprint, picture::telling_head(blueprint));
        text += &format!("\n{head}one glyph a block: bytes per element, `.` is skipped\n");
    }
    text += &format!("\nreport     {}\n", report.display());
    if let Some((path, _)) = &run.blueprint {
        text += &format!("blueprint  {}\n", path.display());
    }
    if let Some(stored) = stored {
        text += &format!("stored     {}\n", stored.display());
    }
    match (&outcome.best, &run.blueprint) {
        (Some(_), Some((path, _))) => {
            let program = program();
            let (path, device) = (quoted(&path.display().to_string()), quoted(&outcome.details.device));
            let priced = priced_like(outcome);
            text += &format!(
                "\nnext\n  {program} mask show {path}\n  {program} cost {path} --device {device}{priced}\n  {program} export \
                 {path} --target c-header\n"
            );
        }
        _ => {
            let larger = (2.0 * outcome.details.tolerance).min(1.0);
            text += &format!("\nnext: allow a larger drop (`--set 'tolerance=Absolute({larger})'`)");
            if outcome.stop_reason == StopReason::EvaluationsUsed {
                text += &format!(" or more evaluations (`--set evaluations={}`)", 2 * outcome.evaluations);
            }
            text += "\n";
        }
    }
    text
}

/// Arguments of `cost` that price as the search did, where they are not its defaults.
fn priced_like(outcome: &Outcome) -> String {
    let Some(predicted) = outcome.table.first().map(|row| &row.predicted) else { return String::new() };
    let mut arguments = String::new();
    if predicted.dataflow != "flash" {
        arguments += &format!(" --dataflow {}", predicted.dataflow);
    }
    if predicted.batch != 1 {
        arguments += &format!(" --batch {}", predicted.batch);
    }
    arguments
}

/// How to read the table.
fn notes(outcome: &Outcome) -> String {
    let details = &outcome.details;
    let dataflow = outcome.table.first().map_or("its", |row| row.predicted.dataflow.as_str());
    let answer = if details.test_answers.is_some() { "token" } else { "class" };
    let mut text = format!(
        "predicted: cost model of {}, {dataflow} dataflow; speed-ups against dense at the device's finest precision\n\
         measured: {} test examples that no searcher saw, fine-tuned unless dense; the commonest {answer} alone gives {}\n",
        details.device,
        details.test_examples,
        percent(details.majority_accuracy),
    );
    if let Some(accuracy) = details.identity_accuracy {
        text += &format!(
            "without attention: fine-tuned alike, but each token sees itself alone, the model gives {}\n",
            percent(accuracy)
        );
    }
    if let Some(answers) = details.test_answers {
        text += &format!(
            "accuracy: share of {answers} target tokens that are answered rightly, given the reference so far; BLEU and \
             chrF: of greedy decoding\n"
        );
    }
    let most = outcome.evaluations;
    let fewer = outcome.table.iter().filter(|row| row.evaluations > 0 && row.evaluations < most);
    let fewer: Vec<&str> = fewer.map(|row| row.name.as_str()).collect();
    if !fewer.is_empty() {
        text += &format!("evaluations: {most} for each; {} had no more to propose\n", fewer.join(" and "));
    }
    if outcome.table.iter().any(|row| row.name == "shuffled") {
        text += "shuffled: a control, as many blocks as the searched masks have, elsewhere by chance\n";
    }
    if outcome.table.iter().any(|row| row.name.starts_with("pattern-")) {
        text += "pattern-…: controls, masks of the literature that are about as dense as the searched ones\n";
    }
    if outcome.table.iter().any(|row| !row.within_tolerance) {
        text += &format!(
            "* lost more than the {:.1} points that are allowed on the selection split; a searcher's closest attempt\n",
            100.0 * details.tolerance
        );
    }
    let longer: Vec<&str> = outcome.table.iter().filter(|row| row.longer).map(|row| row.name.as_str()).collect();
    if !longer.is_empty() {
        text +=
            &format!("fine-tuned three times as long, for want of a row within the tolerance: {}\n", longer.join(", "));
    }
    for caveat in outcome.caveats.sentences() {
        text += &format!("inputs: {caveat}\n");
    }
    text
}

fn rows(outcome: &Outcome) -> String {
    let Dense { second, translation, .. } = &outcome.dense;
    let headings = [
        "\n",
        "\ndensity",
        "attention\npredicted",
        "speed-up\npredicted",
        "end to end\npredicted",
        "energy\npredicted",
        "accuracy\nmeasured",
        "drop, points\nmeasured",
    ];
    let mut headings: Vec<String> = headings.map(String::from).into();
    headings.extend(second.iter().map(|second| format!("{}\nmeasured", second.name)));
    if translation.is_some() {
        headings.extend(["BLEU\nmeasured", "chrF\nmeasured"].map(String::from));
    }
    headings.push("evalua-\ntions".into());
    let cells = |row: &Row| {
        let mark = if row.within_tolerance { "" } else { " *" };
        let mut cells = vec![
            format!("{}{mark}", row.name),
            percent(row.density),
            row.predicted.seconds.to_string(),
            times(row.predicted.speedup),
            times(row.predicted.end_to_end_speedup),
            row.predicted.joules.to_string(),
            percent(row.accuracy),
            points(row.accuracy_drop),
        ];
        if second.is_some() {
            cells.push(second_percent(row.second.as_ref()));
        }
        if translation.is_some() {
            cells.extend(translation_points(row.translation));
        }
        cells.push(row.evaluations.to_string());
        cells
    };
    table_of_any_width(headings, outcome.table.iter().map(cells))
}

/// What finishes an interrupted run: the same command with `--resume`.
fn resume_command(arguments: &SearchArguments, run: &Path) -> String {
    let mut command = format!("{} search {}", program(), quoted(&arguments.config.display().to_string()));
    command += &sets(&arguments.overrides);
    for (given, flag) in [(arguments.store, " --store"), (arguments.json, " --json")] {
        command += if given { flag } else { "" };
    }
    command + &format!(" --resume {}", quoted(&run.display().to_string()))
}
