//! The rows of a search's answer.

use std::path::Path;

use maskwright_blueprint::{Blueprint, SecondMetric};
use maskwright_evaluator::{Examples, SentencePair, TestFigures};

use crate::{BaselineRow, Best, BestPredicted, Pricing, Row, SearchError, TranslationSample, finalists::Finalist};

/// The row of the dense model after the same fine-tuning.
pub(crate) const DENSE_TUNED: &str = "dense-tuned";

/// A row of the dense model as it was trained.
pub(crate) fn dense_row(
    name: &str,
    blueprint: &Blueprint,
    TestFigures { accuracy, second, translation }: TestFigures,
    accuracy_drop: f64,
    pricing: &Pricing,
) -> Result<Row, SearchError> {
    Ok(Row {
        name: name.into(),
        blueprint: None,
        density: 1.0,
        predicted: pricing.predicted(blueprint)?,
        accuracy,
        accuracy_drop,
        second,
        translation,
        selection_drop: 0.0,
        selection_distortion: Some(0.0),
        within_tolerance: true,
        longer: false,
        evaluations: 0,
        found_at: None,
    })
}

/// A row of a finalist, which was measured and priced.
pub(crate) fn row(blueprint: &Blueprint, finalist: &Finalist, within_tolerance: bool, longer: bool) -> Row {
    let name = &finalist.name;
    let provenance = &blueprint.provenance;
    let accuracy = provenance.accuracy.as_ref().expect("a finalist was measured");
    Row {
        name: name.clone(),
        blueprint: Some(format!("rows/{name}.ron")),
        density: blueprint.density(),
        predicted: provenance.predicted.clone().expect("a finalist was priced"),
        accuracy: accuracy.masked,
        accuracy_drop: accuracy.drop.0,
        second: accuracy.second.as_ref().map(|of| SecondMetric { name: of.name.clone(), value: of.masked }),
        translation: accuracy.translation.map(|translation| translation.masked),
        selection_drop: finalist.selection_drop,
        selection_distortion: Some(finalist.selection_distortion).filter(|of| of.is_finite()),
        within_tolerance,
        longer,
        evaluations: finalist.found.map_or(0, |found| found.of),
        found_at: finalist.found.map(|found| found.evaluation),
    }
}

/// The searched row, for programs.
pub(crate) fn best_of(path: &Path, row: &Row, blueprint: &Blueprint) -> Best {
    Best {
        blueprint: path.display().to_string(),
        density: row.density,
        block_sizes: blueprint.block_sizes().into_iter().map(|size| size.tokens()).collect(),
        accuracy: row.accuracy,
        accuracy_drop: row.accuracy_drop,
        second: row.second.clone(),
        translation: row.translation,
        predicted: BestPredicted {
            seconds: row.predicted.seconds.0,
            speedup: row.predicted.speedup,
            end_to_end_speedup: row.predicted.end_to_end_speedup,
            joules: row.predicted.joules.0,
        },
    }
}

/// Sentences with their translations; none where the task asks for something else.
pub(crate) fn samples(
    shown: &Examples,
    dense: Option<Vec<String>>,
    searched: Option<&[String]>,
) -> Vec<TranslationSample> {
    let pairs = shown.pairs().into_iter().flatten().zip(dense.into_iter().flatten()).enumerate();
    let sample = |(at, (pair, dense)): (usize, (&SentencePair, String))| TranslationSample {
        source: pair.source.clone(),
        reference: pair.target.clone(),
        dense,
        searched: searched.map(|texts| texts[at].clone()),
    };
    pairs.map(sample).collect()
}

/// Whether a row is what the searched one is compared with.
pub(crate) fn is_baseline(row: &Row) -> bool {
    !["searched", DENSE_TUNED].contains(&row.name.as_str()) && row.blueprint.is_some()
}

/// Such a row, for programs.
pub(crate) fn baseline_row(row: &Row) -> BaselineRow {
    BaselineRow {
        name: row.name.clone(),
        density: row.density,
        accuracy_drop: row.accuracy_drop,
        speedup: row.predicted.speedup,
    }
}
