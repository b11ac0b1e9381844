use std::collections::HashMap;

use crate::bleu::is_space;

/// Longest n-grams that count, in characters.
const ORDER: usize = 6;

/// Recall counts this many times as much as precision.
const BETA: f64 = 2.0;

/// N-grams of one order: in the translation, in the reference, in both.
type Counts = [[u64; 3]; ORDER];

/// How well translations match their references in characters (Popović 2015), in points from 0 to 100, as sacrebleu 2
/// computes chrF2 by default: signature `case:mixed|eff:yes|nc:6|nw:0|space:no`. Of several references the one that fits
/// best counts.
///
/// ```
/// use maskwright_evaluator::chrf;
///
/// assert_eq!(chrf([("Guten Tag", ["Guten  Tag"])]), 100.0); // white space does not count
/// ```
///
/// # Panics
/// When a translation has no reference.
pub fn chrf<'a, R: AsRef<[&'a str]>>(translations: impl IntoIterator<Item = (&'a str, R)>) -> f64 {
    let mut sum = Counts::default();
    for (translation, references) in translations {
        let ours = Ngrams::of(translation);
        let mut best: Option<(f64, Counts)> = None;
        for reference in references.as_ref() {
            let counts = ours.compared(&Ngrams::of(reference));
            let score = score(&counts);
            if best.is_none_or(|(best, _)| score > best) {
                best = Some((score, counts));
            }
        }
        let (_, counts) = best.expect("a translation has one or more references");
        for (sum, counts) in sum.as_flattened_mut().iter_mut().zip(counts.as_flattened()) {
            *sum += counts;
        }
    }
    score(&sum)
}

/// F-beta of the means of precision and recall over all orders that both sides have.
fn score(counts: &Counts) -> f64 {
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
    for &[ours, theirs, both] in counts.iter().filter(|[ours, theirs, _]| *ours > 0 && *theirs > 0) {
        precision += both as f64 / ours as f64;
        recall += both as f64 / theirs as f64;
        orders += 1.0;
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / orders, recall / orders);
    let factor = BETA * BETA;
    100.0 * (1.0 + factor) * precision * recall / (factor * precision + recall)
}

/// How often each sequence of 1 to 6 characters occurs, white space left out.
struct Ngrams(Vec<HashMap<Vec<char>, u64>>);

impl Ngrams {
    fn of(text: &str) -> Self {
        let chars: Vec<char> = text.chars().filter(|&one| !is_space(one)).collect();
        let order = |n| {
            let mut counts = HashMap::new();
            for ngram in chars.windows(n) {
                *counts.entry(ngram.to_vec()).or_default() += 1;
            }
            counts
        };
        Self((1..=ORDER).map(order).collect())
    }

    /// N-grams longer than the reference do not count against the translation.
    fn compared(&self, reference: &Self) -> Counts {
        let order = |n: usize| {
            let (ours, theirs) = (&self.0[n], &reference.0[n]);
            let both = ours.iter().map(|(ngram, count)| theirs.get(ngram).map_or(0, |other| *count.min(other))).sum();
            let total = if theirs.is_empty() { 0 } else { ours.values().sum() };
            [total, theirs.values().sum(), both]
        };
        std::array::from_fn(order)
    }
}
