use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Speed and distortion in one number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Reward {
    /// `alpha ln(C_dense / C) - lambda max(0, ln(D / kappa))`: D the distortion, kappa its limit. A logarithm in both
    /// parts keeps outliers from ruling the gradient.
    Constrained { alpha: f64, lambda: f64 },
    /// `alpha (C_dense / C) - beta drop` (HB-BSSA 3.3, with `1 / C_runtime` relative to the dense model, so that alpha has
    /// no unit). The drop is estimated from the distortion: `tolerance * D / kappa`.
    Seed { alpha: f64, beta: f64 },
}

/// How much distortion is allowed, and the accuracy drop that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Distortion in nats.
    pub kappa: f64,
    /// Points of [0, 1].
    pub tolerance: f64,
}

impl Reward {
    /// Of a candidate `speed` times as fast as the dense model, with distortion `d`.
    pub fn score(self, speed: f64, d: f64, limit: Limit) -> f64 {
        match self {
            Self::Constrained { alpha, lambda } => alpha * speed.ln() - lambda * (d / limit.kappa).ln().max(0.0),
            Self::Seed { alpha, beta } => alpha * speed - beta * limit.tolerance * d / limit.kappa,
        }
    }

    /// The part of the score that a candidate's speed alone decides.
    pub(crate) fn speed_part(self, speed: f64) -> f64 {
        match self {
            Self::Constrained { alpha, .. } => alpha * speed.ln(),
            Self::Seed { alpha, .. } => alpha * speed,
        }
    }

    pub(crate) fn check(self) -> Result<(), String> {
        let (Self::Constrained { alpha, lambda: weight } | Self::Seed { alpha, beta: weight }) = self;
        let allowed = 0.0..=1e6;
        match allowed.contains(&alpha) && allowed.contains(&weight) {
            true => Ok(()),
            false => Err("`reward` has weights in [0, 1000000]".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { kappa: 0.5, tolerance: 0.01 };

    #[test]
    fn within_the_limit_only_speed_counts() {
        let reward = Reward::Constrained { alpha: 1.0, lambda: 2.0 };
        assert_eq!(reward.score(4.0, 0.1, LIMIT), 4f64.ln());
        assert_eq!(reward.score(4.0, 0.5, LIMIT), 4f64.ln());
        assert_eq!(reward.score(4.0, 1.0, LIMIT), 4f64.ln() - 2.0 * 2f64.ln());
    }

    #[test]
    fn the_seed_reward_trades_a_tenth_of_speed_for_a_point_of_accuracy() {
        let reward = Reward::Seed { alpha: 1.0, beta: 10.0 };
        assert!((reward.score(3.0, 0.5, LIMIT) - 2.9).abs() < 1e-12);
    }
}
