use std::{io, path::PathBuf, process::ExitCode};

use maskwright_blueprint::{HeadId, RonError, SafetensorsError};
use maskwright_cost_model::{CostError, UnknownDataflow};
use maskwright_export::ExportError;
use maskwright_search::{ConfigError, SearchError};

use crate::measure::MeasureError;

/// Why a command gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Ron(#[from] RonError),
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Search(#[from] SearchError),
    #[error("interrupted; everything up to here is kept in {}\n\nto go on:\n  {resume}", run.display())]
    Interrupted { run: PathBuf, resume: String },
    #[error("interrupted; what was trained is kept in {}: the same command goes on", store.display())]
    TrainingInterrupted { store: PathBuf },
    #[error(transparent)]
    Cost(#[from] CostError),
    #[error(transparent)]
    Measure(#[from] MeasureError),
    #[error(transparent)]
    Dataflow(#[from] UnknownDataflow),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("{} cannot be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} cannot be written", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("stdout cannot be written")]
    Stdout(#[source] io::Error),
    #[error("{}:{line} is no line that this program wrote", path.display())]
    Record {
        path: PathBuf,
        line: usize,
        #[source]
        source: serde_json::Error,
    },
    #[error("{} is no finished run: it has no `result.json`; `maskwright search CONFIG --resume {}` finishes it", run.display(), run.display())]
    Unfinished { run: PathBuf },
    #[error("{} names no configuration: give the one it was made with as `--config CONFIG`", path.display())]
    NoConfig { path: PathBuf },
    #[error(
        "{} was made with the configuration {}, which is not here: give it, where it is now, as `--config CONFIG`",
        path.display(),
        config.display()
    )]
    NamedConfig { path: PathBuf, config: PathBuf },
    #[error("{}: `eval` and `tune` read a blueprint in RON form, beside which the weights lie in a file of this ending", path.display())]
    NotRon { path: PathBuf },
    #[error("`--to {}`: name the blueprint to be written, such as `tuned.ron`; the weights go beside it as `tuned.safetensors`", path.display())]
    NotRonToWrite { path: PathBuf },
    #[error("`--to` names the blueprint that is read, {}: name another file, since that one is what other files tell of", path.display())]
    TunedOntoItself { path: PathBuf },
    #[error("`{text}` is no head: write module and head with a dot between, such as `0.3`, both counted from 0")]
    HeadText { text: String },
    #[error("{} has no head {module}.{head}: {allowed}", path.display())]
    NoHead { path: PathBuf, module: u32, head: u32, allowed: String },
    #[error("{}: {head}, block row {row}, column {column}", path.display())]
    BlockPrecision {
        path: PathBuf,
        head: HeadId,
        row: usize,
        column: usize,
        #[source]
        source: Box<CostError>,
    },
    #[error("blueprints bring their own shapes: give blueprints or `--shape`, and both together only with `--compare`")]
    BlueprintsAndShape,
    #[error("{option} is about one device, not {found}: give one `--device`")]
    Devices { option: &'static str, found: usize },
    #[error("`--timeline` draws one blueprint, not {found}: give one")]
    Blueprints { found: usize },
    #[error("{}: {module} has {found}, but what it is compared with has {expected}: only stacks of equal layers compare", path.display())]
    OtherShape { path: PathBuf, module: String, found: String, expected: String },
    #[error("{}: the model has {found} attention modules, but the other blueprint {expected}", path.display())]
    OtherLayers { path: PathBuf, found: usize, expected: usize },
    #[error("`block_size` has no say in `--compare`, whose patterns have blocks of 32 tokens: leave it out")]
    ComparedBlockSize,
    #[error(
        "`--measure` runs on this machine, {cpu}, which profile {device} was not measured on: `maskwright device calibrate` writes one that `--device host` finds"
    )]
    OtherMachine { device: String, cpu: String },
    #[error("{}: only the RON form takes what was measured; leave `--record` out", path.display())]
    RecordForm { path: PathBuf },
    #[error("`--folder` says where one set lies, not {found}: check them one by one")]
    DataFolder { found: usize },
    #[error("{wrong} of {all} files are no valid blueprint")]
    WrongFiles { wrong: usize, all: usize },
}

impl CliError {
    /// 130 when interrupted, as shells expect of Ctrl-C; else 2.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Interrupted { .. } | Self::TrainingInterrupted { .. } => ExitCode::from(130),
            Self::Search(error) if error.is_interruption() => ExitCode::from(130),
            _ => ExitCode::from(2),
        }
    }
}
