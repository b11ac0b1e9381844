use std::path::{Path, PathBuf};

use maskwright_blueprint::{Blueprint, read_whole_text};
use maskwright_search::{EpisodeRecord, MOST_RUN_FILE_BYTES, Outcome};
use serde::de::DeserializeOwned;

use crate::{error::CliError, picture::read_blueprint};

/// Where a run keeps the searched blueprint.
const SEARCHED: &str = "best/searched.ron";

/// What a report is made from: the files of a finished run.
pub(crate) struct RunFiles {
    pub(crate) outcome: Outcome,
    /// In the order in which they were evaluated, one searcher after the other or mixed.
    pub(crate) episodes: Vec<EpisodeRecord>,
    /// The searched blueprint and its file; the closest attempt when none kept within the tolerance.
    pub(crate) blueprint: Option<(PathBuf, Blueprint)>,
    /// The resolved configuration, as RON text.
    pub(crate) config: String,
}

impl RunFiles {
    /// Reads `result.json`, `episodes.jsonl`, `config.ron` and the searched blueprint.
    pub(crate) fn read(run: &Path) -> Result<Self, CliError> {
        let result = run.join("result.json");
        if run.is_dir() && !result.exists() {
            return Err(CliError::Unfinished { run: run.into() });
        }
        let outcome: Outcome = record(&result, 1, &text(result.clone())?)?;
        let episodes = run.join("episodes.jsonl");
        let lines = text(episodes.clone())?;
        let lines = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let episodes = lines.map(|(at, line)| record(&episodes, at + 1, line)).collect::<Result<_, _>>()?;
        let searched = run.join(SEARCHED);
        let blueprint = searched.exists().then(|| read_blueprint(&searched)).transpose()?.map(|read| (searched, read));
        Ok(Self { episodes, blueprint, config: text(run.join("config.ron"))?, outcome })
    }
}

fn text(path: PathBuf) -> Result<String, CliError> {
    read_whole_text(&path, MOST_RUN_FILE_BYTES).map_err(|source| CliError::Read { path, source })
}

fn record<T: DeserializeOwned>(path: &Path, line: usize, text: &str) -> Result<T, CliError> {
    serde_json::from_str(text).map_err(|source| CliError::Record { path: path.into(), line, source })
}
