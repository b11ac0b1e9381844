use maskwright_blueprint::{Predicted, SecondMetric, TranslationQuality};
use maskwright_evaluator::{Caveats, Effect};
use serde::{Deserialize, Serialize};

/// What a search found; `result.json` in the run directory, and what `--json` prints.
///
/// Accuracies are *measured* on the test split after everything was chosen; times, speed-ups and joules are *predicted*
/// by the cost model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The run directory.
    pub run: String,
    pub stop_reason: StopReason,
    /// Episodes of the search itself.
    pub episodes: u64,
    /// Candidates that the search itself evaluated in the loop.
    pub evaluations: u64,
    pub dense: Dense,
    /// The searched blueprint; none when no candidate kept within the tolerance.
    pub best: Option<Best>,
    pub baselines: Vec<BaselineRow>,
    /// The table for people: dense, baselines, searched.
    pub table: Vec<Row>,
    pub details: Details,
    /// What was cut, passed over and drawn; left out where there was nothing of the kind.
    #[serde(default, skip_serializing_if = "Caveats::is_empty")]
    pub caveats: Caveats,
    /// Of tasks that ask for a translation: the first sentences of the test split.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<TranslationSample>,
}

/// A sentence, and what is made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranslationSample {
    pub source: String,
    pub reference: String,
    /// By the dense model.
    pub dense: String,
    /// By the searched one, under its masks; also where it did not keep within the tolerance.
    pub searched: Option<String>,
}

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// Every evaluation that it may make is made.
    EvaluationsUsed,
    /// Forty updates in a row without a new candidate: the policy and the unlearned edits propose nothing that was not
    /// evaluated before.
    NothingNew,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dense {
    /// Measured, test split.
    pub accuracy: f64,
    /// Of tasks that report a figure beside accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<SecondMetric>,
    /// Of tasks that ask for a translation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translation: Option<TranslationQuality>,
    /// Predicted, attention at the device's finest precision.
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its file.
    pub blueprint: String,
    pub density: f64,
    pub block_sizes: Vec<u32>,
    /// Measured, test split, after fine-tuning.
    pub accuracy: f64,
    pub accuracy_drop: f64,
    /// Of tasks that report a figure beside accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<SecondMetric>,
    /// Of tasks that ask for a translation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translation: Option<TranslationQuality>,
    pub predicted: BestPredicted,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BestPredicted {
    pub seconds: f64,
    pub speedup: f64,
    pub end_to_end_speedup: f64,
    pub joules: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaselineRow {
    pub name: String,
    pub density: f64,
    pub accuracy_drop: f64,
    pub speedup: f64,
}

/// One row of the table: the best that one searcher found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `dense`, `dense 8 bit`, a baseline's name, `searched`.
    pub name: String,
    /// The blueprint's file in the run directory; none for dense rows.
    pub blueprint: Option<String>,
    pub density: f64,
    pub predicted: Predicted,
    /// Measured on the test split; fine-tuned unless dense.
    pub accuracy: f64,
    pub accuracy_drop: f64,
    /// Of tasks that report a figure beside accuracy; the choice was not made by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<SecondMetric>,
    /// Of tasks that ask for a translation: of greedy decoding of the test split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translation: Option<TranslationQuality>,
    /// Measured on the selection split; what the choice was made by.
    pub selection_drop: f64,
    /// Mean `KL(dense || row)` there, nats, measured; none where it is not finite.
    #[serde(default)]
    pub selection_distortion: Option<f64>,
    /// Whether the selection drop is within the tolerance. A row that is not is the searcher's closest attempt.
    pub within_tolerance: bool,
    /// Whether it was fine-tuned three times as long, since nothing shorter kept within the tolerance, or, of a control, since the
    /// searched masks were.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub longer: bool,
    /// In the loop.
    pub evaluations: u64,
    /// Which of them found this row's blueprint, counted from 1.
    pub found_at: Option<u64>,
}

/// What a report shows beside the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Details {
    pub config: String,
    pub model: String,
    pub task: String,
    pub device: String,
    pub seed: u64,
    /// Largest drop allowed, points of [0, 1].
    pub tolerance: f64,
    /// Distortion in nats that stands for the tolerance before fine-tuning, and the larger one that the loop allowed.
    pub kappa: f64,
    pub loop_kappa: f64,
    /// Spearman rank correlation of loop distortion with the selection drop before fine-tuning, over the candidates that
    /// have both.
    pub fidelity_correlation: Option<f64>,
    /// Of the search's own improvements of its best, how many came from each origin (`scan`, `policy`, `unlearned`).
    pub improvements: Vec<(String, u64)>,
    /// Accuracy of always answering the commonest class, or token, test split.
    pub majority_accuracy: f64,
    /// A control: of the dense model, fine-tuned alike, where each token keeps its own value and sees no other. None for
    /// translators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_accuracy: Option<f64>,
    /// Examples of the test split.
    pub test_examples: u64,
    /// Answers that they ask for, where an example asks for several: accuracies are shares of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_answers: Option<u64>,
}

/// One evaluated candidate: a line of `episodes.jsonl`. No times: they lie in `times.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpisodeRecord {
    /// Counts lines of one searcher from 0.
    pub episode: u64,
    /// `scan` (for kappa), `search`, or a baseline's name.
    pub searcher: String,
    /// What proposed it: `scan`, `policy`, `unlearned`, or the searcher's name.
    pub origin: String,
    /// Digest of the masks.
    pub candidate: maskwright_blueprint::Digest,
    pub density: f64,
    /// Predicted, by the objective: dense over this.
    pub speed: f64,
    /// Mean KL divergence in nats on the loop's examples; none when the evaluation failed (see `failure`).
    pub distortion: Option<f64>,
    pub reward: Option<f64>,
    /// The searcher's best reward so far.
    pub best_reward: Option<f64>,
    /// Share of the loop's examples that are labelled rightly, without fine-tuning.
    pub accuracy: Option<f64>,
    /// The same with its distortion on the selection split, for the candidates that set kappa.
    pub selection: Option<Effect>,
    pub failure: Option<String>,
}
