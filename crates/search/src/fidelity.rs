//! How well a distortion in the loop tells the drop in accuracy, and which distortion stands for a tolerance.

/// The distortion that stands for a tolerance: the drop as a straight line through the origin, fitted to candidates that
/// are not hopeless (at most one nat). At least the least distortion seen, so that something is within it.
pub(crate) fn kappa_for(tolerance: f64, pairs: &[(f64, f64)]) -> f64 {
    let useful = || pairs.iter().filter(|(distortion, _)| *distortion <= 1.0);
    let (products, squares) =
        useful().fold((0.0, 0.0), |(products, squares), (d, drop)| (products + d * drop, squares + d * d));
    let most = useful().map(|(d, _)| *d).fold(1e-6, f64::max);
    let least = pairs.iter().map(|(d, _)| *d).fold(f64::INFINITY, f64::min).clamp(1e-6, 1.0);
    // No measurable drop anywhere: all of what was seen is allowed.
    let kappa = if products > 0.0 { tolerance * squares / products } else { most };
    kappa.clamp(least, most.max(least))
}

/// Rank correlation of pairs; none for fewer than three.
pub(crate) fn rank_correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 3 {
        return None;
    }
    let ranks = |values: Vec<f64>| -> Vec<f64> {
        let below = |x: f64| values.iter().filter(|v| **v < x).count() as f64;
        let equal = |x: f64| values.iter().filter(|v| **v == x).count() as f64;
        values.iter().map(|x| below(*x) + 0.5 * (equal(*x) - 1.0)).collect()
    };
    let (a, b) = (ranks(pairs.iter().map(|p| p.0).collect()), ranks(pairs.iter().map(|p| p.1).collect()));
    let mean = (pairs.len() as f64 - 1.0) / 2.0;
    let sum = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    let spread = (sum(&a, &a) * sum(&b, &b)).sqrt();
    (spread > 0.0).then(|| sum(&a, &b) / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kappa_is_where_the_fitted_line_meets_the_tolerance() {
        let line: Vec<_> = [0.1, 0.2, 0.4].map(|d| (d, 0.05 * d)).into();
        assert!((kappa_for(0.01, &line) - 0.2).abs() < 1e-12);
        assert_eq!(kappa_for(0.01, &[(0.1, 0.0), (0.3, 0.0)]), 0.3); // nothing drops: all that was seen is allowed
    }

    #[test]
    fn rank_correlation_knows_order_and_ties() {
        assert_eq!(rank_correlation(&[(1.0, 2.0), (2.0, 3.0), (3.0, 9.0)]), Some(1.0));
        assert_eq!(rank_correlation(&[(1.0, 9.0), (2.0, 3.0), (3.0, 2.0)]), Some(-1.0));
        assert_eq!(rank_correlation(&[(1.0, 9.0), (2.0, 9.0), (3.0, 9.0)]), None);
    }
}
