use std::{fs, path::Path};

use burn::tensor::Device;
use maskwright_blueprint::Blueprint;
use maskwright_evaluator::{Evaluator, Split};
use maskwright_transformer::{load_weights, weights_digest};
use serde::Serialize;

use crate::{SearchConfig, SearchError, Watch, search::dense_model};

/// A blueprint's accuracy, *measured* on the test split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    pub blueprint: String,
    pub density: f64,
    pub split: &'static str,
    pub examples: u64,
    /// Shares in [0, 1].
    pub dense: f64,
    pub masked: f64,
    pub drop: f64,
    /// Whether the weights were those fine-tuned under this mask; else the dense model's own.
    pub fine_tuned: bool,
}

/// Measures a blueprint with the dense model of `config`, or with the weights that lie beside it under its own name
/// (`x.safetensors` for `x.ron`) if its provenance names them.
pub fn evaluate(
    file: &Path,
    config: &SearchConfig,
    cache: &Path,
    watch: &mut dyn Watch,
) -> Result<Evaluation, SearchError> {
    let blueprint = Blueprint::load(file)?;
    let evaluator = Evaluator::new(dense_model(config, cache, watch)?, config.loop_examples as usize);
    blueprint.check_model(evaluator.shape())?;
    let mut model = config.model.encoder.init(config.seed, &Device::flex());
    let beside = file.with_extension("safetensors");
    let fine_tuned = match blueprint.provenance.tuned_weights {
        Some(expected) if fs::exists(&beside).unwrap_or(false) => {
            load_weights(&mut model, &beside).map_err(maskwright_evaluator::EvaluatorError::from)?;
            weights_digest(&model) == expected
        }
        _ => false,
    };
    let model = if fine_tuned { &model } else { evaluator.dense() };
    let dense = evaluator.accuracy(evaluator.dense(), None, Split::Test);
    let masked = evaluator.accuracy(model, Some(&blueprint), Split::Test);
    Ok(Evaluation {
        blueprint: file.display().to_string(),
        density: blueprint.density(),
        split: "test",
        examples: evaluator.examples(Split::Test).len() as u64,
        dense,
        masked,
        drop: dense - masked,
        fine_tuned,
    })
}
