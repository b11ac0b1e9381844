//! The integer softmax is what IntAttention (arXiv 2511.21513) defines, bit for bit, and loses what is known of it.

use maskwright_kernels::{IntegerSoftmax, Normalisation};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};

/// The equations in exact rational arithmetic: `round(n / d)`, ties up, is `floor((2 n + d) / 2 d)`.
fn defined_exponential(distance: i64, c_int: i64) -> u8 {
    let clipped = distance.min(c_int);
    IntegerSoftmax::TABLE[((62 * clipped + c_int) / (2 * c_int)) as usize]
}

fn exponential(softmax: &IntegerSoftmax, distance: i32) -> u8 {
    let mut exponentials = [0; 2];
    softmax.exponentials(&[0, -distance], &mut exponentials);
    exponentials[1]
}

#[test]
fn the_table_holds_255_exp_of_minus_6_6_i_over_31_and_ends_in_zero() {
    let published = [
        255, 206, 167, 135, 109, 88, 71, 57, 46, 38, 30, 25, 20, 16, 13, 10, 8, 7, 6, 4, 4, 3, 2, 2, 2, 1, 1, 1, 1, 1,
        0, 0,
    ];
    assert_eq!(IntegerSoftmax::TABLE, published);
    for (i, entry) in published.into_iter().enumerate().take(31) {
        assert_eq!(f64::from(entry), (255.0 * (-6.6 * i as f64 / 31.0).exp()).round(), "entry {i}");
    }
}

#[test]
fn the_clipping_distance_is_the_range_in_score_units() {
    assert_eq!(IntegerSoftmax::new(0.01).clip(), 660);
    assert_eq!(IntegerSoftmax::new(1.25e-4).clip(), 52_800);
    assert_eq!(IntegerSoftmax::new(6.0).clip(), 1); // round(1.1)
    assert_eq!(IntegerSoftmax::new(1e9).clip(), 1);
    assert_eq!(IntegerSoftmax::new(0.0).clip(), i32::MAX);
    assert_eq!(IntegerSoftmax::new(f64::NAN).clip(), i32::MAX);
}

#[test]
fn every_index_is_the_exact_fraction_rounded_ties_up() {
    for c_int in (1..200).chain([31, 62, 660, 6_200, 52_799, 52_800, 52_801]) {
        let softmax = IntegerSoftmax::new(6.6 / f64::from(c_int));
        assert_eq!(softmax.clip(), c_int);
        for distance in 0..=c_int + 2 {
            let defined = defined_exponential(distance.into(), c_int.into());
            assert_eq!(exponential(&softmax, distance), defined, "{distance} of {c_int}");
        }
    }
    // At the widest clipping distance, around every tie (2 i + 1) c_int / 62.
    let widest = IntegerSoftmax::new(0.0);
    for i in 0..31 {
        let tie = (2 * i + 1) * i64::from(i32::MAX) / 62;
        for distance in tie - 1..=tie + 1 {
            assert_eq!(exponential(&widest, distance as i32), defined_exponential(distance, i32::MAX.into()));
        }
    }
}

#[test]
fn a_row_sum_goes_beyond_sixteen_bits() {
    let mut exponentials = vec![0; 1000];
    assert_eq!(IntegerSoftmax::new(0.01).exponentials(&[5; 1000], &mut exponentials), 255_000);
}

#[test]
fn extreme_scores_do_not_overflow() {
    let mut exponentials = [9; 3];
    let sum = IntegerSoftmax::new(0.0).exponentials(&[i32::MAX, i32::MIN, 1 << 30], &mut exponentials);
    // The last is 2^30 - 1 of 2^31 - 1 away: 15.4999.. steps of 31.
    assert_eq!((exponentials, sum), ([255, 0, IntegerSoftmax::TABLE[15]], 265));
}

#[test]
fn normalisation_in_the_paper_rounds_shares_to_255ths() {
    assert_eq!(Normalisation::Paper.weight(255, 255), 255);
    assert_eq!(Normalisation::Paper.weight(255, 510), 128); // 127.5, ties up
    assert_eq!(Normalisation::Paper.weight(1, 510), 1); // a share of 1/510 is the last that counts
    assert_eq!(Normalisation::Paper.weight(1, 511), 0);
    assert_eq!(Normalisation::Paper.weight(0, 0), 0);
    assert_eq!(Normalisation::Paper.weight(2, 1), 255); // no row has such a sum
    assert_eq!(Normalisation::Deferred.weight(17, 510), 17);
}

/// Relative L1 error of `softmax(logits) v` over forty rows of `keys` standard normal logits; values are normal around
/// `mean` with standard deviation one.
fn error_on_broad_rows(keys: usize, mean: f64, normalisation: Normalisation) -> f64 {
    const ALPHA: f64 = 1.0 / 8192.0;
    const FEATURES: usize = 32;
    let mut rng = ChaCha8Rng::seed_from_u64(keys as u64);
    let mut normal = |count: usize| StandardNormal.sample_iter(&mut rng).take(count).collect::<Vec<f64>>();
    let (mut off, mut size) = (0.0, 0.0);
    for _ in 0..40 {
        let (logits, values) = (normal(keys), normal(keys * FEATURES));
        let scores: Vec<i32> = logits.iter().map(|logit| (logit / ALPHA).round() as i32).collect();
        let mut exponentials = vec![0; keys];
        let sum = IntegerSoftmax::new(ALPHA).exponentials(&scores, &mut exponentials);
        let unit = match normalisation {
            Normalisation::Deferred => f64::from(sum),
            Normalisation::Paper => 255.0,
        };
        let exact_sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        for feature in 0..FEATURES {
            let value = |key: usize| mean + values[key * FEATURES + feature];
            let exact: f64 = (0..keys).map(|key| logits[key].exp() / exact_sum * value(key)).sum();
            let weight = |key: usize| f64::from(normalisation.weight(exponentials[key], sum)) / unit;
            let found: f64 = (0..keys).map(|key| weight(key) * value(key)).sum();
            off += (found - exact).abs();
            size += exact.abs();
        }
    }
    off / size
}

/// Keys, mean of the values, and the error in the paper's form and in the deferred one, each to a tenth of itself.
///
/// Around values with a mean, the paper's form loses the shares that it rounds to zero. Around zero mean, errors of
/// single weights show: the table's steps of 6.6 / 31 alone make 6.6 / 31 / sqrt(12) = 6 % in the mean square, less in
/// the mean, and rounding shares to 1/255 makes `keys / (255 sqrt(12 e))`, 26 % for 384 keys, until most are zero.
const COLLAPSE: [(usize, f64, f64, f64); 6] = [
    (64, 1.0, 0.018, 0.0075),
    (384, 1.0, 0.132, 0.0037),
    (1024, 1.0, 0.483, 0.0023),
    (64, 0.0, 0.064, 0.047),
    (384, 0.0, 0.256, 0.055),
    (1024, 0.0, 0.549, 0.056),
];

#[test]
fn shares_collapse_on_broad_rows_in_the_paper_and_not_when_deferred() {
    for (keys, mean, paper, deferred) in COLLAPSE {
        for (form, expected) in [(Normalisation::Paper, paper), (Normalisation::Deferred, deferred)] {
            let found = error_on_broad_rows(keys, mean, form);
            assert!((found / expected - 1.0).abs() < 0.1, "{keys} keys around {mean}, {form:?}: {found}");
        }
    }
}
