use std::path::Path;

use maskwright_blueprint::{Accuracy, Blueprint, ModelShape, ModuleShape, SecondAccuracy, TranslationAccuracy};
use maskwright_evaluator::{Caveats, DenseModel, Evaluator, EvaluatorError, ModelSource, Split, TestFigures};
use maskwright_transformer::Tokeniser;
use serde::Serialize;

use crate::{
    ModelConfig, SearchConfig, SearchError, Watch,
    dense_model::{trained, untrained},
};

/// How the file of a learnt vocabulary ends, beside the blueprint and the weights that go with it: `x.tokenizer.json` for
/// `x.ron`.
pub const VOCABULARY: &str = "tokenizer.json";

/// A blueprint's accuracy, *measured* on the test split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    pub blueprint: String,
    pub density: f64,
    pub split: &'static str,
    pub examples: u64,
    /// Shares in [0, 1]. The dense accuracy is the recorded one where the weights lie beside the blueprint.
    pub dense: f64,
    pub masked: f64,
    pub drop: f64,
    /// Of tasks that report a figure beside accuracy; the dense model's is the recorded one as well, and both are left out
    /// where the blueprint was made before there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second: Option<SecondAccuracy>,
    /// Of tasks that ask for a translation, by greedy decoding; the dense model's is the recorded one as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub translation: Option<TranslationAccuracy>,
    /// Whether the weights were those fine-tuned under this mask; else the dense model's own.
    pub fine_tuned: bool,
    /// Whether the blueprint names weights that do not lie beside it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub weights_missing: bool,
    /// What was cut and passed over, and what was drawn where the weights are the dense model's; left out where there was
    /// nothing of the kind.
    #[serde(skip_serializing_if = "Caveats::is_empty")]
    pub caveats: Caveats,
}

/// Measures a blueprint on the test split of `config`'s task.
///
/// The weights that were fine-tuned under its masks lie beside it (`x.safetensors` for `x.ron`, and `x.tokenizer.json`
/// where a vocabulary was learnt for them), and its provenance holds their digests and the dense accuracy. Without the
/// weights the dense model is taken from `cache` or trained, and must be the one that the blueprint was made for.
pub fn evaluate(
    file: &Path,
    config: &SearchConfig,
    cache: &Path,
    watch: &mut dyn Watch,
) -> Result<Evaluation, SearchError> {
    let blueprint = load(file, config)?;
    let tuned = tuned_weights(&blueprint, file, config)?;
    let fine_tuned = tuned.is_some();
    let dense_model = match tuned {
        Some(tuned) => DenseModel { shape: blueprint.model().clone(), ..tuned },
        None => trained(untrained(config)?, config, cache, watch)?,
    };
    let fits = blueprint.check_model(&dense_model.shape);
    fits.map_err(|source| SearchError::OtherModel { path: file.into(), source })?;
    let evaluator = Evaluator::new(dense_model, config.loop_examples as usize);
    let recorded = blueprint.provenance.accuracy.as_ref().filter(|_| fine_tuned);
    let dense = match recorded {
        Some(recorded) => TestFigures::of_dense(recorded),
        None => evaluator.test(evaluator.dense(), None)?,
    };
    let masked = evaluator.test(evaluator.dense(), Some(&blueprint))?;
    let test_examples = evaluator.examples(Split::Test).len() as u64;
    let Accuracy { examples, dense, masked, drop, second, translation, .. } = masked.beside(dense, test_examples);
    Ok(Evaluation {
        blueprint: file.display().to_string(),
        density: blueprint.density(),
        split: "test",
        examples,
        dense,
        masked,
        drop: drop.0,
        second,
        translation,
        fine_tuned,
        weights_missing: !fine_tuned && blueprint.provenance.tuned_weights.is_some(),
        caveats: evaluator.caveats(),
    })
}

/// A blueprint that was made for the configuration's task, or does not say for which.
pub(crate) fn load(file: &Path, config: &SearchConfig) -> Result<Blueprint, SearchError> {
    let blueprint = Blueprint::load(file)?;
    let asked = config.task.name();
    match blueprint.provenance.task.as_ref().filter(|task| *task != asked) {
        Some(task) => Err(SearchError::OtherTask { path: file.into(), task: task.clone(), asked: asked.into() }),
        None => Ok(blueprint),
    }
}

/// Refuses masks for other modules than a model's. Its digest is another one for each training; its modules are not.
pub(crate) fn check_modules(masks: &Blueprint, file: &Path, model: &ModelShape) -> Result<(), SearchError> {
    let (found, expected) = (&masks.model().modules, &model.modules);
    let Some(at) = (0..found.len().max(expected.len())).find(|&at| found.get(at) != expected.get(at)) else {
        return Ok(());
    };
    let described = |of: Option<&ModuleShape>| of.map_or("none".into(), |of| format!("`{}`, {:?}", of.name, of.shape));
    let (found, expected) = (described(found.get(at)), described(expected.get(at)));
    Err(SearchError::OtherModules { path: file.into(), at, found, expected })
}

/// The model with the weights beside a blueprint, if they are there and are those that its provenance names.
fn tuned_weights(blueprint: &Blueprint, file: &Path, config: &SearchConfig) -> Result<Option<DenseModel>, SearchError> {
    let beside = file.with_extension("safetensors");
    let Some(expected) = blueprint.provenance.tuned_weights.filter(|_| beside.is_file()) else { return Ok(None) };
    let ModelConfig { name, source, .. } = &config.model;
    let vocabulary = match source {
        ModelSource::NewTranslator { .. } => Some(learnt_vocabulary(blueprint, file)?),
        ModelSource::New { .. } | ModelSource::Pretrained { .. } => None,
    };
    let model = DenseModel::untrained_with(name, source, &config.task, config.backend, config.seed, vocabulary)?
        .with_weights(&beside)?;
    let found = model.weights_digest();
    if found != expected || model.shape.modules != blueprint.model().modules {
        return Err(SearchError::TunedWeights { path: beside, found: found.short(), expected: expected.short() });
    }
    Ok(Some(model))
}

/// The vocabulary beside a blueprint, if it is the one that its provenance names, or that names none.
fn learnt_vocabulary(blueprint: &Blueprint, file: &Path) -> Result<Tokeniser, SearchError> {
    let path = file.with_extension(VOCABULARY);
    if !path.is_file() {
        return Err(SearchError::NoVocabulary { path });
    }
    let learnt = Tokeniser::load(&path).map_err(EvaluatorError::from)?;
    let found = learnt.digest();
    match blueprint.provenance.vocabulary.filter(|expected| *expected != found) {
        Some(expected) => Err(SearchError::OtherVocabulary { path, found: found.short(), expected: expected.short() }),
        None => Ok(learnt),
    }
}
