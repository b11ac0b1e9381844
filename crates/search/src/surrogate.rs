use crate::{Candidate, Guide};

/// Ridge regression's weight on the size of its coefficients.
const RIDGE: f64 = 1e-2;

/// Fewer evaluations than this teach nothing.
const FEWEST: usize = 12;

/// Guesses a candidate's distortion from what its masks leave out, so that of several proposals only the most promising
/// is evaluated.
///
/// `ln D ~ w . x` with, for each head, the square root of the influence that its mask loses and the logarithm of its
/// density; fitted by ridge regression on all evaluations so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surrogate {
    count: usize,
    /// Sums over all evaluations of products of their features, and of features with ln D.
    gram: Vec<f64>,
    right: Vec<f64>,
    weights: Option<Vec<f64>>,
}

impl Surrogate {
    /// Remembers one more evaluation, as all the others of as many features; `fit` learns from it.
    pub(crate) fn add(&mut self, x: &[f64], distortion: f64) {
        let width = x.len();
        self.gram.resize(width * width, 0.0);
        self.right.resize(width, 0.0);
        self.count += 1;
        let y = distortion.max(1e-9).ln();
        for row in 0..width {
            self.right[row] += x[row] * y;
            for column in 0..width {
                self.gram[row * width + column] += x[row] * x[column];
            }
        }
    }

    pub(crate) fn fit(&mut self) {
        if self.count < FEWEST {
            return;
        }
        let (mut gram, width) = (self.gram.clone(), self.right.len());
        for at in 0..width {
            gram[at * width + at] += RIDGE * self.count as f64;
        }
        self.weights = cholesky_solve(gram, self.right.clone());
    }

    /// The guessed distortion; none before there is enough to learn from.
    pub(crate) fn predict(&self, x: &[f64]) -> Option<f64> {
        let weights = self.weights.as_ref()?;
        Some(weights.iter().zip(x).map(|(w, x)| w * x).sum::<f64>().clamp(-20.0, 5.0).exp())
    }
}

/// What the surrogate sees of a candidate.
pub(crate) fn surrogate_features(candidate: &Candidate, guide: &Guide) -> Vec<f64> {
    let mut x = vec![1.0];
    for (mask, head) in candidate.masks().iter().zip(guide.heads()) {
        let size = head.at(mask.block_size);
        let cells = mask.blocks.cells();
        let lost: f64 = cells.iter().enumerate().map(|(block, cell)| size.loss(block, *cell)).sum();
        let all: f64 = size.skip.iter().sum();
        x.push((lost / all.max(1e-20)).sqrt());
        x.push(mask.blocks.density().ln());
    }
    x
}

/// Solves `A x = b` for a symmetric positive definite `A` (rows after one another); none when it is not.
fn cholesky_solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let n = b.len();
    for column in 0..n {
        for row in column..n {
            let dot: f64 = (0..column).map(|k| a[row * n + k] * a[column * n + k]).sum();
            let rest = a[row * n + column] - dot;
            if row > column {
                a[row * n + column] = rest / a[column * n + column];
            } else if rest > 0.0 {
                a[row * n + column] = rest.sqrt();
            } else {
                return None;
            }
        }
    }
    for row in 0..n {
        let dot: f64 = (0..row).map(|k| a[row * n + k] * b[k]).sum();
        b[row] = (b[row] - dot) / a[row * n + row];
    }
    for row in (0..n).rev() {
        let dot: f64 = (row + 1..n).map(|k| a[k * n + row] * b[k]).sum();
        b[row] = (b[row] - dot) / a[row * n + row];
    }
    Some(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_system_is_solved_exactly() {
        let x = cholesky_solve(vec![4.0, 2.0, 2.0, 5.0], vec![8.0, 12.0]).unwrap();
        assert!((x[0] - 1.0).abs() < 1e-12 && (x[1] - 2.0).abs() < 1e-12, "{x:?}");
        assert_eq!(cholesky_solve(vec![1.0, 2.0, 2.0, 1.0], vec![1.0, 1.0]), None);
    }

    #[test]
    fn an_exponential_law_is_learnt() {
        let law = |t: f64| (0.5 + 2.0 * t).exp();
        let mut surrogate = Surrogate::default();
        for seen in 0..40 {
            let t = f64::from(seen) / 40.0;
            surrogate.add(&[1.0, t], law(t));
            surrogate.fit();
            assert_eq!(surrogate.predict(&[1.0, 0.3]).is_some(), seen + 1 >= FEWEST as i32);
        }
        let guess = surrogate.predict(&[1.0, 0.3]).unwrap();
        assert!((guess / law(0.3) - 1.0).abs() < 0.1, "{guess}");
    }
}
