/// Rounds of coordinate descent; a problem has some twenty unknowns and takes milliseconds.
const ROUNDS: usize = 20_000;

/// Coefficients, each at least `least`, for which every row's sum is closest to 1: coordinate descent on the normal
/// equations.
pub(crate) fn least_squares<const N: usize>(rows: &[[f64; N]], least: [f64; N]) -> [f64; N] {
    let column = |at: usize| rows.iter().map(move |row| row[at]);
    // Columns of equal length converge together.
    let lengths: [f64; N] = std::array::from_fn(|at| column(at).map(|x| x * x).sum::<f64>().sqrt());
    let scale = lengths.map(|length| if length > 0.0 { 1.0 / length } else { 0.0 });
    let gram: [[f64; N]; N] = std::array::from_fn(|a| {
        std::array::from_fn(|b| column(a).zip(column(b)).map(|(x, y)| x * y).sum::<f64>() * scale[a] * scale[b])
    });
    let target: [f64; N] = std::array::from_fn(|at| column(at).sum::<f64>() * scale[at]);
    let floor: [f64; N] = std::array::from_fn(|at| least[at] * lengths[at]);
    let mut found = floor;
    for _ in 0..ROUNDS {
        for at in 0..N {
            if gram[at][at] > 0.0 {
                let others: f64 = (0..N).map(|other| gram[at][other] * found[other]).sum();
                found[at] = (found[at] + (target[at] - others) / gram[at][at]).max(floor[at]);
            }
        }
    }
    std::array::from_fn(|at| if lengths[at] > 0.0 { found[at] * scale[at] } else { least[at] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<[f64; 4]> {
        let row = |at: i32| {
            let (a, b) = (f64::from(at % 7 + 1), f64::from(at % 5 + 1));
            [a, b, 0.1, 0.0].map(|count| count / (2.0 * a + 3.0 * b))
        };
        (1..40).map(row).collect()
    }

    #[test]
    fn a_sum_of_two_columns_is_found_and_no_negative_third() {
        let found = least_squares(&rows(), [0.0; 4]);
        assert!((found[0] - 2.0).abs() < 1e-3 && (found[1] - 3.0).abs() < 1e-3, "{found:?}");
        assert!(found[2] < 0.01 && found[3] == 0.0);
    }

    #[test]
    fn no_coefficient_falls_below_its_bound() {
        let found = least_squares(&rows(), [2.5, 0.0, 0.0, 7.0]);
        assert_eq!((found[0], found[3]), (2.5, 7.0)); // the last one has no counts: nothing is known of it
        assert!(found[1] < 3.0, "{found:?}");
    }
}
