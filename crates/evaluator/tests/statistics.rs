//! Statistics against numbers that can be checked by hand, and against scipy and statsmodels (`references/statistics.py`).

use maskwright_evaluator::{DropInterval, Fold, McNemar, Regression, mean, standard_deviation};

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1e-3), "{found}, expected {expected}");
}

#[test]
fn mean_and_deviation_of_a_sample() {
    let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
    assert_eq!(mean(&values), 5.0);
    close(standard_deviation(&values).unwrap(), (32.0_f64 / 7.0).sqrt());
    close(standard_deviation(&[0.9, 1.4, 2.1, 2.4, 3.6]).unwrap(), 1.0329569206893383);
    assert_eq!(standard_deviation(&[1.0]), None);
}

#[test]
fn a_line_and_how_much_it_explains() {
    let exact = Regression::through(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]).unwrap();
    assert_eq!(exact, Regression { slope: 2.0, intercept: 1.0, r_squared: 1.0 });
    let scipy = Regression::through(&[(0.1, 0.9), (0.3, 1.4), (0.5, 2.1), (0.7, 2.4), (1.0, 3.6)]).unwrap();
    close(scipy.slope, 2.9344262295081966);
    close(scipy.intercept, 0.5540983606557377);
    close(scipy.r_squared, 0.9845591285510163);
    assert_eq!(Regression::through(&[(1.0, 1.0), (1.0, 2.0)]), None);
    assert_eq!(Regression::through(&[(1.0, 4.0), (2.0, 4.0)]).unwrap().r_squared, 0.0);
}

#[test]
fn mcnemar_is_that_of_statsmodels() {
    let by_hand = McNemar::from_counts(10, 2);
    close(by_hand.exact, 2.0 * (1.0 + 12.0 + 66.0) / 4096.0);
    close(by_hand.statistic, 49.0 / 12.0);
    let statsmodels = [
        (10, 2, 0.03857421875, 0.04330814281079206),
        (30, 12, 0.007915897334896727, 0.008711912962379598),
        (60, 20, 8.580559867049611e-06, 1.2986492541972959e-05),
        (1500, 1400, 0.06598734966518463, 0.06600586349754516),
    ];
    for (only_first, only_second, exact, corrected) in statsmodels {
        let test = McNemar::from_counts(only_first, only_second);
        close(test.exact, exact);
        close(test.corrected, corrected);
        let mirrored = McNemar::from_counts(only_second, only_first);
        assert_eq!((mirrored.exact, mirrored.corrected), (test.exact, test.corrected));
    }
    let alike = McNemar::from_counts(7, 7);
    assert_eq!((alike.exact, alike.statistic, alike.corrected), (1.0, 0.0, 1.0));
}

#[test]
fn mcnemar_counts_examples_that_one_model_alone_answers_rightly() {
    let test = McNemar::of(&[true, true, true, false, false], &[true, false, false, true, false]);
    assert_eq!((test.only_first, test.only_second, test.exact), (2, 1, 1.0));
}

#[test]
fn the_bootstrap_of_one_loss_in_four_is_a_binomial_distribution() {
    // Losses in a resample: binomial, n = 4, p = 1/4; P(at most 2) = .949, P(at most 3) = .996, P(none) = .316.
    let interval = DropInterval::bootstrap(&[true; 4], &[false, true, true, true], 10_000, 0.95, 1);
    assert_eq!(interval, DropInterval { drop: 0.25, low: 0.0, high: 0.75 });
    let again = DropInterval::bootstrap(&[true; 4], &[false, true, true, true], 10_000, 0.95, 1);
    assert_eq!(again, interval);
}

#[test]
fn the_bootstrap_of_many_examples_is_nearly_normal() {
    // 60 losses and 20 gains in 1000: drop .04, variance of one difference .08 - .04^2.
    let dense: Vec<bool> = (0..1000).map(|at| !(60..80).contains(&at)).collect();
    let masked: Vec<bool> = (0..1000).map(|at| at >= 60).collect();
    let interval = DropInterval::bootstrap(&dense, &masked, 4000, 0.95, 7);
    let half = 1.96 * ((0.08_f64 - 0.0016) / 1000.0).sqrt();
    assert!((interval.drop - 0.04).abs() < 1e-12, "{interval:?}");
    assert!(
        (interval.low - (0.04 - half)).abs() < 0.002 && (interval.high - (0.04 + half)).abs() < 0.002,
        "{interval:?}"
    );
}

#[test]
fn the_bootstrap_of_equal_answers_is_no_drop() {
    let answers = [true, false, true];
    let interval = DropInterval::bootstrap(&answers, &answers, 100, 0.95, 1);
    assert_eq!(interval, DropInterval { drop: 0.0, low: 0.0, high: 0.0 });
}

#[test]
fn folds_are_stratified_and_hold_each_example_out_once() {
    let labels: Vec<u32> = (0..103).map(|at| if at % 10 < 7 { 0 } else { at % 3 }).collect();
    let folds = Fold::stratified(&labels, Fold::DEFAULT, 3);
    assert_eq!(folds.len(), 5);
    let mut held_out: Vec<usize> = folds.iter().flat_map(|fold| fold.held_out.clone()).collect();
    held_out.sort_unstable();
    assert_eq!(held_out, (0..103).collect::<Vec<_>>());
    let spread = |count: &dyn Fn(&Fold) -> usize| {
        let counts: Vec<usize> = folds.iter().map(count).collect();
        counts.iter().max().unwrap() - counts.iter().min().unwrap()
    };
    assert_eq!(spread(&|fold| fold.held_out.len()), 1);
    for class in 0..3 {
        assert!(spread(&|fold| fold.held_out.iter().filter(|&&at| labels[at] == class).count()) <= 1);
    }
    for fold in &folds {
        let mut all = [fold.train.clone(), fold.held_out.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..103).collect::<Vec<_>>());
    }
    assert_eq!(Fold::stratified(&labels, 5, 3), folds);
    assert_ne!(Fold::stratified(&labels, 5, 4), folds);
}
