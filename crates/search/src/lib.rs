//! Searches, for one model, one task and one device, which blocks of each head are computed, at which size and
//! precision.
//!
//! A [`Search`] trains or loads the dense model, probes its attention, and lets searchers propose candidates: the
//! configured agent (REINFORCE with a two-layer LSTM) and the baselines, each through the same interface and with as many
//! evaluations. Prices are predicted by the cost model; distortion and accuracy are measured. `docs/search.md` tells the
//! whole story.

mod archive;
mod budget;
mod candidate;
mod conclusion;
mod config;
mod config_file;
mod cross_validation;
mod dense_model;
mod density_against_time;
mod edit;
mod edit_agent;
#[cfg(test)]
mod edit_properties;
mod edit_searcher;
mod environment;
mod error;
mod evaluation;
mod fidelity;
mod finalists;
mod guide;
mod knapsack;
mod mutation;
mod outcome;
mod patterns;
mod policy;
mod pricing;
mod random_stream;
mod reinforce;
mod reward;
mod ron_text;
mod rows;
mod run_directory;
mod search;
mod searcher;
mod surrogate;
mod trial;
mod tune;
mod watch;
mod write_searcher;

pub use archive::Evaluated;
pub use budget::Budget;
pub use candidate::Candidate;
pub use config::{Agent, Baseline, Features, Kappa, ModelConfig, SearchConfig, Space, Start, Tolerance};
pub use config_file::{ConfigError, load_config};
pub use cross_validation::{CrossValidation, CrossValidationRow, cross_validate};
pub use dense_model::device_profile;
pub use density_against_time::{DensityAgainstTime, FEWEST_DENSITIES, Line};
pub use error::SearchError;
pub use evaluation::{Evaluation, VOCABULARY, evaluate};
pub use guide::Guide;
pub use maskwright_evaluator::{Caveats, DropInterval, Fold};
pub use maskwright_transformer::Backend;
pub use outcome::{
    BaselineRow, Best, BestPredicted, Dense, Details, EpisodeRecord, Outcome, Row, StopReason, TranslationSample,
};
pub use patterns::PatternFamily;
pub use pricing::{Objective, Pricing};
pub use reward::{Limit, Reward};
pub use run_directory::{MOST_RUN_FILE_BYTES, Manifest};
pub use search::{Search, check_config};
pub use tune::{Tuned, tune};
pub use watch::{Silent, Stage, Watch};
