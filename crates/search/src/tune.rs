use std::path::Path;

use maskwright_blueprint::{Accuracy, Blueprint, Predicted, Provenance};
use maskwright_cost_model::DeviceProfile;
use maskwright_evaluator::{Caveats, Evaluator, Split, Treatment};
use maskwright_transformer::{Tokeniser, weights_to_bytes};
use serde::Serialize;

use crate::{
    Candidate, Pricing, SearchConfig, SearchError, Watch,
    dense_model::{check_split, learnt_vocabulary, trained, untrained},
    evaluation,
    finalists::{Tuning, blueprint_of, provenance},
};

/// A blueprint whose model was fine-tuned under its masks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tuned {
    /// The same masks, with the figures of the fine-tuned model in their provenance.
    #[serde(skip)]
    pub blueprint: Blueprint,
    /// The fine-tuned weights, safetensors.
    #[serde(skip)]
    pub weights: Vec<u8>,
    /// The vocabulary that was learnt for them, JSON of the `tokenizers` crate; of a translator that learns one.
    #[serde(skip)]
    pub vocabulary: Option<String>,
    pub density: f64,
    /// Lost on the selection split, a share in [0, 1], *measured*: what recipes and masks are to be chosen by.
    pub selection_drop: f64,
    /// Mean `KL(dense || tuned)` there, nats, *measured*: how far away it is, better or worse. None where it is not finite.
    pub selection_distortion: Option<f64>,
    /// Examples of the selection split.
    pub selection_examples: u64,
    /// The largest drop that the configuration allows.
    pub tolerance: f64,
    /// *Measured* on the test split.
    pub accuracy: Accuracy,
    /// On the configuration's device.
    pub predicted: Predicted,
    /// What was cut, passed over and drawn; left out where there was nothing of the kind.
    #[serde(skip_serializing_if = "Caveats::is_empty")]
    pub caveats: Caveats,
}

/// Fine-tunes the dense model of `config` under the masks of the blueprint in `file`, as a search does with its finalists.
///
/// The masks may come from anywhere, as long as they are for modules of the same names and shapes: from another seed's or task's
/// search, from a Pareto set, from a hand. The dense model is taken from `cache` or trained, and tuned weights are kept there too, with the state of
/// a training that was interrupted. `config_name` goes into provenance.
pub fn tune(
    file: &Path,
    config: &SearchConfig,
    config_name: &str,
    cache: &Path,
    watch: &mut dyn Watch,
) -> Result<Tuned, SearchError> {
    let masks = Blueprint::load(file)?;
    let device = DeviceProfile::open(&config.device)?;
    let model = untrained(config)?;
    evaluation::check_modules(&masks, file, &model.shape)?;
    check_split(config, &model)?;
    let pricing = Pricing::new(&device, config.dataflow, config.batch, config.objective, &model.shape)?;
    pricing.predicted(&masks)?; // whatever the device lacks is told before anything is trained
    let evaluator = Evaluator::new(trained(model, config, cache, watch)?, config.loop_examples as usize);
    let dense_selection = evaluator.accuracy(evaluator.dense(), Treatment::Dense, Split::Selection)?;
    let tolerance = config.tolerance.allowed(dense_selection);
    let tuning = Tuning { evaluator: &evaluator, config, store: cache, dense_selection, tolerance };
    let candidate = Candidate::new(masks.masks().iter().flatten().cloned().collect());
    let tuned = tuning.tune_given("masked", &candidate, &config.fine_tune, cache, watch)?;

    let learnt = learnt_vocabulary(config, &evaluator);
    let config_name = config_name.replace(char::is_control, "\u{fffd}"); // blueprints hold no control characters
    let origin = provenance(config, &config_name, &masks.provenance.origin);
    let origin = Provenance { vocabulary: learnt.map(Tokeniser::digest), ..origin };
    let dense = evaluator.test(evaluator.dense(), None)?;
    let blueprint = blueprint_of(&tuned, &evaluator, &pricing, dense, origin)?;
    let of_it = blueprint.provenance.clone();
    Ok(Tuned {
        weights: weights_to_bytes(&tuned.model),
        vocabulary: learnt.map(Tokeniser::to_json),
        density: blueprint.density(),
        selection_drop: tuned.selection_drop,
        selection_distortion: Some(tuned.selection_distortion).filter(|of| of.is_finite()),
        selection_examples: evaluator.examples(Split::Selection).len() as u64,
        tolerance,
        accuracy: of_it.accuracy.expect("it was measured"),
        predicted: of_it.predicted.expect("it was priced"),
        caveats: evaluator.caveats(),
        blueprint,
    })
}
