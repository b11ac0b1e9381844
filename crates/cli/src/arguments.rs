mod data;
mod measuring;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, builder::PossibleValuesParser};
use clap_complete::Shell;
use maskwright_cost_model::Dataflow;
use maskwright_export::{ExportError, Target};
use maskwright_search::{Backend, Fold};

pub(crate) use data::DataCommand;
pub(crate) use measuring::{BenchAttentionArguments, BenchCommand, CalibrateArguments, Peer, PromotionOfBlocks};

use crate::bare_shape::BareShape;

/// Searches which blocks of each attention head are computed, at which block size and precision, for one Transformer,
/// task and device.
///
/// Data go to stdout, everything else to stderr. Exit code 0: done; 1: no feasible blueprint was found; 2: wrong
/// arguments, configuration or files; 130: interrupted, with a checkpoint to go on from.
#[derive(Debug, Parser)]
#[command(name = "maskwright", version, propagate_version = false)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Narrate on stderr; twice for every detail.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Search(SearchArguments),
    Cost(CostArguments),
    Eval(EvalArguments),
    Tune(TuneArguments),
    /// Look at blueprints.
    #[command(subcommand)]
    Mask(MaskCommand),
    /// Look at search configurations.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at data sets and weights: which packages hold them, and whether they have arrived.
    #[command(subcommand)]
    Data(DataCommand),
    /// Look at device profiles, and measure that of this machine.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Measure on this machine.
    #[command(subcommand)]
    Bench(BenchCommand),
    Report(ReportArguments),
    Export(ExportArguments),
    Completions(CompletionsArguments),
    /// Print the reference of every command as Markdown.
    #[command(hide = true)]
    Reference,
}

/// Search a blueprint.
///
/// Trains the model, searches, compares with the baselines at as many evaluations, fine-tunes the best candidates and
/// measures them on the test split. Everything is kept in a run directory; the same configuration and seed give the
/// same blueprints.
#[derive(Debug, Args)]
pub(crate) struct SearchArguments {
    /// The search configuration, a RON file; `maskwright config default` prints one.
    pub(crate) config: PathBuf,
    /// Go on with an interrupted run, under the configuration that it began with.
    #[arg(long, value_name = "RUN")]
    pub(crate) resume: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
    /// Where run directories are made.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Also store the blueprint in the mask library, `masks/<model>/<task>/<device>/`.
    #[arg(long)]
    pub(crate) store: bool,
    /// Print one JSON document instead of the summary.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Changes to a configuration from the command line.
#[derive(Debug, Args)]
pub(crate) struct Overrides {
    /// Put another value at a place of the configuration, such as `model.training.epochs=3`; may be given repeatedly.
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = path_and_value)]
    pub(crate) set: Vec<(String, String)>,
    /// The same as `--set seed=N`.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// What computes the models, the same as `--set backend=BACKEND`; those besides flex are there if the program was built
    /// with them.
    #[arg(long, value_parser = PossibleValuesParser::new(Backend::ALL.map(Backend::name)))]
    pub(crate) backend: Option<String>,
}

impl Overrides {
    /// In the order in which they count.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        let seed = self.seed.map(|seed| ("seed".to_owned(), seed.to_string()));
        let backend = self.backend.clone().map(|backend| ("backend".to_owned(), backend));
        self.set.iter().cloned().chain(seed).chain(backend).collect()
    }
}

/// Predict what blueprints, or bare attention, cost on devices.
///
/// Nothing is measured unless `--measure` asks for it: the figures come from the device's profile, in microseconds.
#[derive(Debug, Args)]
pub(crate) struct CostArguments {
    /// Blueprints, RON or safetensors.
    #[arg(required_unless_present = "shape", value_name = "BLUEPRINT")]
    pub(crate) blueprints: Vec<PathBuf>,
    /// Dense attention without a model around it: `heads=12,tokens=4096,head_dim=64`, and where wanted `batch=64`,
    /// `keys=77` for cross-attention, `precision=2` in bytes an element (the device's finest unless given),
    /// `block_size=16`.
    #[arg(long, value_name = "KEY=N,..")]
    pub(crate) shape: Option<BareShape>,
    /// A profile by name (`maskwright device list`), in a power mode as `name@mode`, or a RON file; may be given
    /// repeatedly.
    #[arg(short, long = "device", required = true, value_name = "DEVICE")]
    pub(crate) devices: Vec<String>,
    /// The order in which the device computes attention: layer-wise, soft-pipe, flat, tile-flow, flash, fuse-max or mas.
    #[arg(long, default_value = "flash")]
    pub(crate) dataflow: Dataflow,
    /// Examples that the device computes at once.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "shape")]
    pub(crate) batch: u32,
    /// Arithmetic of the softmax over 8-bit scores.
    #[arg(long, value_enum, default_value_t = SoftmaxOf8Bit::Float, conflicts_with = "compare")]
    pub(crate) softmax: SoftmaxOf8Bit,
    /// Compare with what a blueprint replaces: a stack of dense layers and the family of energy-saving alternatives.
    #[arg(long)]
    pub(crate) compare: bool,
    /// Layers of the stack that is compared; blueprints bring their own.
    #[arg(long, value_name = "N", default_value_t = 12, requires = "compare", conflicts_with = "blueprints")]
    pub(crate) layers: u32,
    /// Draw what is compared over the number of tokens into an SVG file.
    #[arg(long, value_name = "FILE", requires = "compare")]
    pub(crate) svg: Option<PathBuf>,
    /// What the picture shows.
    #[arg(long, value_enum, default_value_t = Drawn::Time, requires = "svg")]
    pub(crate) draw: Drawn,
    /// Also run the blueprint's attention on this machine, and the dense one in turn with it; takes `--device host`, or the
    /// profile that `device calibrate` wrote here.
    #[arg(long, conflicts_with_all = ["shape", "compare"])]
    pub(crate) measure: bool,
    /// Write what was measured into the blueprint's provenance.
    #[arg(long, requires = "measure")]
    pub(crate) record: bool,
    /// Draw what one core's matrix unit, vector unit and DRAM do when, for one example of the first attention module,
    /// into an SVG file.
    #[arg(long, value_name = "FILE", conflicts_with = "compare")]
    pub(crate) timeline: Option<PathBuf>,
    /// Print one JSON document instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arithmetic of the softmax over 8-bit scores; that over finer ones always is floating point.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SoftmaxOf8Bit {
    /// Scores are converted to floating point and back.
    Float,
    /// Scores stay integers, as in IntAttention.
    Integer,
}

/// What a picture of costs shows.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Drawn {
    Time,
    Energy,
    DramTraffic,
}

/// Measure a blueprint's accuracy.
///
/// The model is trained, or taken from the cache, as the configuration says; the blueprint is refused for any other.
#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    /// A blueprint in RON form.
    pub(crate) blueprint: PathBuf,
    /// The configuration that names model and task; without it, that of the run directory which the blueprint lies in, or else
    /// the one that the blueprint says it comes from.
    #[arg(long, value_name = "CONFIG")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
    /// Cross-validate, too: train and fine-tune anew over folds and seeds, beside controls, and write a page with tables,
    /// box plots and tests. The time is that of `folds` x `seeds` trainings; a study that is stopped goes on.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "evaluation.html")]
    pub(crate) report: Option<PathBuf>,
    /// Parts of the training and validation examples, each of which is held out once.
    #[arg(long, value_name = "N", default_value_t = Fold::DEFAULT, requires = "report")]
    pub(crate) folds: usize,
    /// Seeds of the trainings.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 2, 3], requires = "report")]
    pub(crate) seeds: Vec<u64>,
    /// Where run directories lie; trained models are cached in them.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Print one JSON document instead of the sentence.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Fine-tune the dense model under a blueprint's masks.
///
/// The masks may come from anywhere, such as `best/pareto-*.ron` of a run, another seed's search or a hand, if they are for attention
/// modules like the model's. Recipe, model and task are the configuration's. What the masks cost is measured on the selection split, to
/// choose by, and on the test split.
#[derive(Debug, Args)]
pub(crate) struct TuneArguments {
    /// A blueprint in RON form.
    pub(crate) blueprint: PathBuf,
    /// Where the fine-tuned blueprint is written, `x.ron`; its weights go beside it, `x.safetensors`.
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// The configuration that names model, task and recipe; without it, that of the run directory which the blueprint lies in,
    /// or else the one that the blueprint says it comes from.
    #[arg(long, value_name = "CONFIG")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
    /// Where run directories lie; trained models are cached in them.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Print one JSON document instead of the summary.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MaskCommand {
    /// Draw the masks: one glyph a block, its width in bytes, `.` for a skipped one.
    Show {
        /// Blueprints, RON or safetensors.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Only this head: module and head, both counted from 0, such as `0.3`.
        #[arg(long, value_name = "MODULE.HEAD")]
        head: Option<String>,
    },
    /// List the blueprints of a mask library with the figures that they carry.
    List {
        /// The library's folder.
        #[arg(default_value = "masks", value_name = "FOLDER")]
        folder: PathBuf,
        /// Print one JSON document instead of the table.
        #[arg(long)]
        json: bool,
    },
    /// Check that files are whole, valid blueprints.
    Check {
        /// Blueprints, RON or safetensors.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print one JSON document instead of the list.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the configuration of the quickstart, with every field.
    Default,
    /// Print the JSON schema of configurations.
    Schema,
    /// Check a configuration without searching.
    Check {
        /// The search configuration, a RON file.
        config: PathBuf,
        #[command(flatten)]
        overrides: Overrides,
        /// Print the resolved configuration as one JSON document.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// List the profiles that this program carries.
    List {
        /// Print one JSON document instead of the table.
        #[arg(long)]
        json: bool,
    },
    /// Show a profile's numbers, each with its source.
    Show {
        /// A profile by name, or a RON file.
        device: String,
        /// Print the profile as the RON file that `--device` reads, to make one of your own from.
        #[arg(long, conflicts_with = "json")]
        ron: bool,
        /// Print one JSON document instead of the table.
        #[arg(long)]
        json: bool,
    },
    Calibrate(CalibrateArguments),
    /// Check a profile of your own.
    Check {
        /// A device profile, a RON file.
        file: PathBuf,
    },
}

/// Write a finished run's `report.html` anew.
#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// The run directory.
    pub(crate) run: PathBuf,
}

/// Hand a blueprint over to a deployment build.
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// A blueprint, RON or safetensors.
    pub(crate) blueprint: PathBuf,
    /// The form: safetensors, c-header or rust-table.
    #[arg(short, long, value_parser = target)]
    pub(crate) target: Target,
    /// The folder to write into.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// Print one JSON document instead of the sentence.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print completions for a shell.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    pub(crate) shell: Shell,
}

fn path_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((path, value)) if !path.is_empty() && !value.is_empty() => Ok((path.into(), value.into())),
        _ => Err("write PATH=VALUE, such as `evaluations=80`".into()),
    }
}

fn target(name: &str) -> Result<Target, ExportError> {
    name.parse()
}
