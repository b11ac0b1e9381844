use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget};
use maskwright_search::{Stage, Watch};
use serde::Serialize;

use crate::{error::CliError, memory, steps};

/// Shows a search on stderr while it runs: one bar that moves, and above it one line for each finished stage.
///
/// Where stderr is no terminal, or `-v` narrates, nothing moves: a finished stage is one line of narration, and so is each minute
/// of a long one.
pub(crate) struct Progress {
    bar: ProgressBar,
    stage: String,
    begun: Instant,
    /// When something was last said of the stage.
    told: Instant,
    interrupted: Arc<AtomicBool>,
    /// Gets a line for each finished stage.
    record: Option<File>,
}

const NARRATED_EVERY: Duration = Duration::from_secs(60);

/// What a finished stage took: a line of its record.
#[derive(Serialize)]
struct Took<'a> {
    stage: &'a str,
    seconds: f64,
    /// Most memory that was resident at once, of the whole process; none where the system does not tell.
    peak_bytes: Option<u64>,
}

impl Progress {
    /// `verbose` as on the command line. Takes over Ctrl-C: the first asks for a checkpoint, the second ends the process.
    pub(crate) fn new(verbose: u8) -> Self {
        let target = match verbose == 0 && io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(steps::style());
        let interrupted = Arc::new(AtomicBool::new(false));
        let (flag, shown) = (Arc::clone(&interrupted), bar.clone());
        let taken = ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            shown.set_message("stopping at the next checkpoint; Ctrl-C again stops at once");
        });
        if let Err(error) = taken {
            tracing::warn!("Ctrl-C will end the search without a checkpoint of its own: {error}");
        }
        let (begun, told) = (Instant::now(), Instant::now());
        Self { bar, stage: String::new(), begun, told, interrupted, record: None }
    }

    /// The same, and what each finished stage took becomes a line at the end of a file.
    pub(crate) fn recorded(verbose: u8, path: &Path) -> Result<Self, CliError> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|source| CliError::Write { path: path.into(), source })?;
        let mut progress = Self::new(verbose);
        progress.record = Some(file);
        Ok(progress)
    }
}

impl Watch for Progress {
    fn begin(&mut self, stage: &Stage, total: u64) {
        self.stage = title(stage);
        (self.begun, self.told) = (Instant::now(), Instant::now());
        memory::reset_peak();
        self.bar.reset();
        self.bar.set_length(total);
        self.bar.set_prefix(self.stage.clone());
        self.bar.set_message("");
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    fn advance(&mut self, done: u64, note: &str) {
        self.bar.set_position(done);
        if !self.is_interrupted() {
            self.bar.set_message(note.to_owned());
        }
        if self.bar.is_hidden() && self.told.elapsed() >= NARRATED_EVERY {
            self.told = Instant::now();
            let total = self.bar.length().unwrap_or(done);
            tracing::info!("{}", so_far(&self.stage, [done, total], note, self.bar.eta()));
        }
    }

    fn end(&mut self, note: &str) {
        self.bar.disable_steady_tick();
        let (seconds, peak_bytes) = (self.begun.elapsed().as_secs_f64(), memory::peak());
        if let Some(record) = &mut self.record {
            let line = serde_json::to_string(&Took { stage: &self.stage, seconds, peak_bytes });
            let _ = writeln!(record, "{}", line.expect("it is plain data")); // a full disk stops the search itself
        }
        let peak = peak_bytes.map_or(String::new(), |bytes| format!(", {} MiB", bytes >> 20));
        let took = format!("{seconds:.1} s{peak}");
        if self.bar.is_hidden() {
            tracing::info!("{}: {note} ({took})", self.stage);
        } else {
            self.bar.println(format!("{:<24} {note}  ({took})", self.stage));
            self.bar.set_message("");
        }
    }

    fn warn(&mut self, sentence: &str) {
        self.bar.suspend(|| tracing::warn!("{sentence}"));
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Where a stage stands.
fn so_far(stage: &str, [done, total]: [u64; 2], note: &str, left: Duration) -> String {
    let note = if note.is_empty() { String::new() } else { format!(", {note}") };
    let left = if done == 0 { String::new() } else { format!("; {} left", HumanDuration(left)) };
    format!("{stage}: {done} of {total}{note}{left}")
}

fn title(stage: &Stage) -> String {
    match stage {
        Stage::Train => "dense training".into(),
        Stage::Calibrate => "calibration".into(),
        Stage::Search(searcher) if searcher == "search" => "search".into(),
        Stage::Search(searcher) if searcher == "scan" => "scan for the limit".into(),
        Stage::Search(baseline) => format!("baseline: {baseline}"),
        Stage::Select(searcher) => format!("selection: {searcher}"),
        Stage::FineTune(name) => format!("fine-tuning: {name}"),
        Stage::Test => "measuring on test".into(),
        Stage::Study(training) => training.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_stage_says_where_it_stands_and_how_long_it_will_take() {
        let left = Duration::from_secs(56 * 60);
        assert_eq!(
            so_far("dense training", [362, 10314], "loss 1.041", left),
            "dense training: 362 of 10314, loss 1.041; 56 minutes left"
        );
        assert_eq!(so_far("selection: search", [3, 15], "", left), "selection: search: 3 of 15; 56 minutes left");
    }
}
