//! Whether two models differ that answered the same examples.

use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};
use serde::Serialize;

use crate::statistics::mean;

/// A drop of accuracy, and between which bounds it lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DropInterval {
    /// Dense minus masked, in [-1, 1]; positive is worse.
    pub drop: f64,
    pub low: f64,
    pub high: f64,
}

impl DropInterval {
    /// Paired bootstrap (Efron and Tibshirani 1993): examples are drawn with replacement `resamples` times, both models'
    /// answers together; the bounds leave `(1 - confidence) / 2` of the drops on each side, by linear interpolation.
    ///
    /// `dense` and `masked` say of each example whether it was answered rightly.
    ///
    /// # Panics
    /// When there are no examples or resamples, not one answer of each model for each, or `confidence` is not in (0, 1).
    pub fn bootstrap(dense: &[bool], masked: &[bool], resamples: usize, confidence: f64, seed: u64) -> Self {
        check(dense, masked);
        let drops: Vec<f64> =
            dense.iter().zip(masked).map(|(&dense, &masked)| f64::from(dense as i8 - masked as i8)).collect();
        Self::of_drops(&drops, resamples, confidence, seed)
    }

    /// The same from each example's own drop, such as its mean over several seeds of training.
    ///
    /// # Panics
    /// When there are no examples or resamples, or `confidence` is not in (0, 1).
    pub fn of_drops(drops: &[f64], resamples: usize, confidence: f64, seed: u64) -> Self {
        assert!(!drops.is_empty(), "an interval is of one or more examples");
        assert!(
            resamples > 0 && confidence > 0.0 && confidence < 1.0,
            "{resamples} resamples, confidence {confidence}"
        );
        let mut generator = ChaCha12Rng::seed_from_u64(seed);
        let mut resample = || {
            let sum: f64 = drops.iter().map(|_| drops[generator.random_range(0..drops.len())]).sum();
            sum / drops.len() as f64
        };
        let mut means: Vec<f64> = (0..resamples).map(|_| resample()).collect();
        means.sort_by(f64::total_cmp);
        let tail = (1.0 - confidence) / 2.0;
        Self { drop: mean(drops), low: quantile(&means, tail), high: quantile(&means, 1.0 - tail) }
    }
}

/// McNemar's test (1947): are examples that only one of two models answers rightly shared out evenly between them?
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct McNemar {
    /// Examples that only the first model answers rightly.
    pub only_first: u64,
    /// Examples that only the second model answers rightly.
    pub only_second: u64,
    /// Probability, if both were equally good, of a difference at least as large: two-sided binomial test. To be used
    /// when the two counts are together below about 25, and right for all.
    pub exact: f64,
    /// `(|b - c| - 1)^2 / (b + c)` with continuity correction (Edwards 1948); 0 when the counts are equal.
    pub statistic: f64,
    /// The same probability from the statistic: chi-square with one degree of freedom.
    pub corrected: f64,
}

impl McNemar {
    /// Of two models' answers to the same examples: whether each was right.
    ///
    /// # Panics
    /// When there are no examples, or not one answer of each model for each.
    pub fn of(first: &[bool], second: &[bool]) -> Self {
        check(first, second);
        let only = |wanted: (bool, bool)| {
            first.iter().zip(second).filter(|(first, second)| (**first, **second) == wanted).count() as u64
        };
        Self::from_counts(only((true, false)), only((false, true)))
    }

    /// From how many examples only the first and only the second model answers rightly.
    pub fn from_counts(only_first: u64, only_second: u64) -> Self {
        let (differing, apart) = (only_first + only_second, only_first.abs_diff(only_second));
        let statistic = if apart == 0 { 0.0 } else { (apart as f64 - 1.0).powi(2) / differing as f64 };
        let exact = (2.0 * binomial_tail(differing, only_first.min(only_second))).min(1.0);
        Self { only_first, only_second, exact, statistic, corrected: erfc((statistic / 2.0).sqrt()) }
    }
}

/// Probability of at most `most` heads in `tosses` of a fair coin.
fn binomial_tail(tosses: u64, most: u64) -> f64 {
    // In logarithms: 2^-tosses is no f64 beyond 1074 tosses.
    let mut ways = -(tosses as f64) * std::f64::consts::LN_2;
    let mut sum = ways.exp();
    for heads in 1..=most {
        ways += ((tosses - heads + 1) as f64 / heads as f64).ln();
        sum += ways.exp();
    }
    sum
}

/// The complementary error function of `x >= 0`: series below 2, continued fraction above (Abramowitz and Stegun 7.1.6 and
/// 7.1.14).
fn erfc(x: f64) -> f64 {
    let scale = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if x < 2.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..60 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        1.0 - 2.0 * scale * sum
    } else {
        scale / (1..=80).rev().fold(x, |below, n| x + f64::from(n) / 2.0 / below)
    }
}

/// Of sorted values, interpolated between neighbours.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

fn check(first: &[bool], second: &[bool]) {
    assert!(!first.is_empty() && first.len() == second.len(), "both models answered the same one or more examples");
}
