use maskwright_blueprint::{BlockSize, Precision};
use serde::{Deserialize, Serialize};

use crate::PredictionError;

/// On which machine a profile was fitted, and how well it predicts what it was not fitted to. Part of the profile's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationRecord {
    pub cpu: String,
    /// Instructions that the kernels used.
    pub kernel: String,
    pub threads: u32,
    /// How the system chose the clock, where it said so.
    pub governor: Option<String>,
    /// In UTC.
    pub date: String,
    /// Masks that were fitted to.
    pub fitted: u32,
    /// Times that each mask was timed; the least disturbed ones count.
    pub rounds: u32,
    /// How much longer than the least the middle round took, for the middle mask: near 0 on a quiet machine.
    pub spread: f64,
    /// Measured, over all masks that were held out.
    pub held_out: PredictionError,
    /// Measured: the lowest rank correlation among held-out masks of one shape.
    pub least_rank_correlation: f64,
    /// Measured, by shape.
    pub shapes: Vec<HeldOutShape>,
    /// Measured: how much slower than the fastest the mask is that the prediction picks among a few of equal density; the
    /// mean over many such choices, and the worst.
    pub mean_pick_regret: f64,
    pub worst_pick_regret: f64,
    /// Predicted.
    pub break_even: Vec<BreakEven>,
}

/// How well masks of self-attention of one shape are predicted that were held out. Measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOutShape {
    pub tokens: u32,
    pub heads: u32,
    pub head_dim: u32,
    /// Masks of all densities.
    pub error: PredictionError,
    /// How much slower than the fastest the mask is that the prediction picks among a few of equal density, at worst.
    pub worst_pick_regret: f64,
}

/// Below which density blocks of one size and precision are faster than something dense. Predicted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakEven {
    /// `our kernel`, dense at the same precision in its best block size, or another library at its own precision.
    pub against: String,
    /// Of 12 heads of width 64.
    pub tokens: u32,
    pub block_size: BlockSize,
    pub precision: Precision,
    /// `None` when even one block a row is slower.
    pub density: Option<f64>,
}
