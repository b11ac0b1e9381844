//! Metrics of classifiers: shares in [0, 1].

/// Share of examples whose class was found.
///
/// # Panics
/// When there are no examples, or not one class found for each label.
pub fn accuracy(found: &[u32], labels: &[u32]) -> f64 {
    check(found, labels);
    let right = found.iter().zip(labels).filter(|(found, label)| found == label).count();
    right as f64 / labels.len() as f64
}

/// Harmonic mean of precision and recall of one class, as GLUE reports it for class 1 of MRPC:
/// `2 TP / (2 TP + FP + FN)`, and 0 when the class is neither found nor there.
///
/// # Panics
/// When there are no examples, or not one class found for each label.
pub fn f1(found: &[u32], labels: &[u32], class: u32) -> f64 {
    check(found, labels);
    let both = found.iter().zip(labels).filter(|&(&found, &label)| found == class && label == class).count();
    let either = found.iter().chain(labels).filter(|&&one| one == class).count(); // 2 TP + FP + FN
    if either == 0 { 0.0 } else { 2.0 * both as f64 / either as f64 }
}

/// Share of examples whose label is among the `k` classes of the highest scores; of equal scores the lower class comes
/// first, and a label whose score is no number is not found. `scores` is `[examples, classes]`.
///
/// # Panics
/// When there are no examples, not `classes` scores for each label, or a label that is no class.
pub fn top_k(scores: &[f32], classes: usize, labels: &[u32], k: usize) -> f64 {
    assert!(!labels.is_empty() && scores.len() == classes * labels.len(), "one score for each example and class");
    let found = |(scores, &label): (&[f32], &u32)| {
        let label = label as usize;
        let own = scores[label];
        let ahead = |(class, &score): (usize, &f32)| score > own || (score == own && class < label);
        !own.is_nan() && scores.iter().enumerate().filter(|&one| ahead(one)).count() < k
    };
    let right = scores.chunks(classes).zip(labels).filter(|&one| found(one)).count();
    right as f64 / labels.len() as f64
}

fn check(found: &[u32], labels: &[u32]) {
    assert!(!labels.is_empty() && found.len() == labels.len(), "one class found for each of one or more labels");
}
