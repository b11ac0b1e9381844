//! Means, spreads and lines through points.

use serde::Serialize;

/// # Panics
/// When there are no values.
pub fn mean(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "a mean is of one or more values");
    values.iter().sum::<f64>() / values.len() as f64
}

/// Of a sample: the squared deviations are divided by one less than there are values. `None` of fewer than two.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    (values.len() > 1).then(|| (squared_deviations(values) / (values.len() - 1) as f64).sqrt())
}

/// The line `y = intercept + slope * x` of least squares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Regression {
    pub slope: f64,
    pub intercept: f64,
    /// R^2, the share in [0, 1] of the variance of y that the line explains; 0 when y is constant.
    pub r_squared: f64,
}

impl Regression {
    /// Through points `(x, y)`; `None` when fewer than two differ in x.
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        let (x, y): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
        if x.windows(2).all(|pair| pair[0] == pair[1]) {
            return None;
        }
        let (x_mean, y_mean) = (mean(&x), mean(&y));
        let together: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
        let (x_spread, y_spread) = (squared_deviations(&x), squared_deviations(&y));
        let slope = together / x_spread;
        let r_squared = if y_spread == 0.0 { 0.0 } else { (together * together / (x_spread * y_spread)).min(1.0) };
        Some(Self { slope, intercept: y_mean - slope * x_mean, r_squared })
    }
}

fn squared_deviations(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|value| (value - mean).powi(2)).sum()
}
