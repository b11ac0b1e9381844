use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use maskwright_blueprint::{Joules, MaskLibrary, Seconds, write_whole};
use maskwright_search::{Outcome, Search, SearchError, load_config};

use crate::{
    answer::Answer,
    arguments::SearchArguments,
    error::CliError,
    picture,
    progress::Progress,
    report::{self, RunFiles},
    table::{percent, points, table, times},
};

/// The folder of the mask library, in the working directory.
const LIBRARY: &str = "masks";

pub fn run(arguments: &SearchArguments, verbose: u8) -> Result<Answer, CliError> {
    let config = load_config(&arguments.config, &arguments.overrides.pairs())?;
    let name = arguments.config.display().to_string();
    let search = match &arguments.resume {
        Some(run) => Search::resume(run, config, &name)?,
        None => Search::start(config, &name, &arguments.runs)?,
    };
    let run = search.directory().to_owned();
    tracing::info!("run directory {}", run.display());
    let outcome = search.run(&mut Progress::new(verbose)).map_err(|error| match error {
        SearchError::Interrupted { run } => CliError::Interrupted { resume: resume_command(arguments, &run), run },
        other => other.into(),
    })?;

    let report = run.join("report.html");
    let page = report::html(&run)?;
    write_whole(&report, page.as_bytes()).map_err(|source| CliError::Write { path: report, source })?;
    let stored = match arguments.store {
        true => store(&run, &outcome)?,
        false => None,
    };
    let answer = match arguments.json {
        true => Answer::json("search", &outcome),
        false => Answer::text(summary(&run, &outcome, stored.as_deref())?),
    };
    Ok(answer.with_code(if outcome.best.is_some() { 0 } else { 1 }))
}

/// Puts the best blueprint into the mask library, if there is one.
fn store(run: &Path, outcome: &Outcome) -> Result<Option<PathBuf>, CliError> {
    let Some(best) = &outcome.best else { return Ok(None) };
    let blueprint = picture::read_blueprint(&report::inside(run, &best.blueprint))?;
    let library = MaskLibrary::new(LIBRARY);
    let stored = library.store(&blueprint);
    stored.map(Some).map_err(|source| CliError::Write { path: library.place(&blueprint), source })
}

/// The closing summary: what was found, how it compares, one mask, where the files are, what to type next.
fn summary(run: &Path, outcome: &Outcome, stored: Option<&Path>) -> Result<String, CliError> {
    let files = RunFiles::read(run)?;
    let mut text = format!("\n{}\n\n{}\n", report::headline(outcome), rows(outcome));
    let allowed = outcome.details.tolerance;
    if outcome.table.iter().any(|row| !row.within_tolerance) {
        let points = 100.0 * allowed;
        text += &format!(
            "* lost more than the {points:.1} points that are allowed on the selection split: that searcher's closest \
             attempt\n"
        );
    }
    let details = &outcome.details;
    writeln!(
        text,
        "predicted: cost model of {}, {} dataflow, attention against dense at the device's finest precision\nmeasured: \
         accuracy on {} test examples that the search never saw, fine-tuned unless dense; always answering the \
         commonest class gives {}",
        details.device,
        dataflow(outcome),
        details.test_examples,
        percent(details.majority_accuracy),
    )
    .expect("a string takes every text");

    if let Some(blueprint) = &files.blueprint {
        let head = picture::head(blueprint, picture::telling_head(blueprint));
        let legend = "one glyph a block: bytes per element, `.` is skipped";
        text += &format!("\n{head}{legend}\n");
    }

    text += &format!("\nreport     {}\n", run.join("report.html").display());
    if let Some(best) = &outcome.best {
        let blueprint = report::inside(run, &best.blueprint);
        text += &format!("blueprint  {}\n", blueprint.display());
        if let Some(stored) = stored {
            text += &format!("stored     {}\n", stored.display());
        }
        let path = quoted(&blueprint.display().to_string());
        text += &format!(
            "\nnext\n  maskwright mask show {path}\n  maskwright cost {path} --device {}\n  maskwright export {path} \
             --target c-header\n",
            quoted(&details.device)
        );
    } else {
        text += "\nnext: allow more with `--set 'tolerance=Absolute(0.03)'`, or more evaluations with \
                 `--set evaluations=400`\n";
    }
    Ok(text)
}

fn rows(outcome: &Outcome) -> String {
    let headings = [
        "\n",
        "\ndensity",
        "attention\npredicted",
        "speed-up\npredicted",
        "end to end\npredicted",
        "energy\npredicted",
        "accuracy\nmeasured",
        "drop, points\nmeasured",
        "evalua-\ntions",
    ];
    let rows = outcome.table.iter().map(|row| {
        let mark = if row.within_tolerance { "" } else { " *" };
        [
            format!("{}{mark}", row.name),
            percent(row.density),
            time(row.predicted.seconds),
            times(row.predicted.speedup),
            times(row.predicted.end_to_end_speedup),
            energy(row.predicted.joules),
            percent(row.accuracy),
            points(row.accuracy_drop),
            row.evaluations.to_string(),
        ]
    });
    table(headings, rows).to_string()
}

fn time(seconds: Seconds) -> String {
    seconds.to_string()
}

fn energy(joules: Joules) -> String {
    joules.to_string()
}

fn dataflow(outcome: &Outcome) -> &str {
    outcome.table.first().map_or("its", |row| row.predicted.dataflow.as_str())
}

/// What finishes an interrupted run: the same command with `--resume`.
fn resume_command(arguments: &SearchArguments, run: &Path) -> String {
    let mut command = format!("maskwright search {}", quoted(&arguments.config.display().to_string()));
    for (path, value) in arguments.overrides.pairs() {
        command += &format!(" --set {}", quoted(&format!("{path}={value}")));
    }
    for (given, flag) in [(arguments.store, " --store"), (arguments.json, " --json")] {
        command += if given { flag } else { "" };
    }
    command + &format!(" --resume {}", quoted(&run.display().to_string()))
}

/// As a POSIX shell reads it back.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=@,:+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_command_survives_the_shell() {
        assert_eq!(quoted("runs/a-1"), "runs/a-1");
        assert_eq!(quoted("tolerance=Absolute(0.01)"), "'tolerance=Absolute(0.01)'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
