//! What a search is made for: the device, and the dense model with its task.

use std::{ops::ControlFlow, path::Path};

use maskwright_blueprint::Precision;
use maskwright_cost_model::DeviceProfile;
use maskwright_evaluator::{DenseModel, Evaluator, ModelSource};
use maskwright_transformer::Tokeniser;

use crate::{SearchConfig, SearchError, Stage, Watch};

/// The profile that a configuration names; an error where it lacks a precision of the space.
pub fn device_profile(config: &SearchConfig) -> Result<DeviceProfile, SearchError> {
    let profile = DeviceProfile::open(&config.device)?;
    if config.space.precisions.iter().all(|precision| profile.supports(*precision)) {
        return Ok(profile);
    }
    let list = |of: &[Precision]| of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(SearchError::Precision {
        device: config.device.clone(),
        supported: list(&profile.precisions()),
        asked: list(&config.space.precisions),
    })
}

/// The model of a configuration before any training, and its task's examples.
pub(crate) fn untrained(config: &SearchConfig) -> Result<DenseModel, SearchError> {
    Ok(DenseModel::untrained(&config.model.name, &config.model.source, &config.task, config.backend, config.seed)?)
}

/// Refuses a configuration that leaves no example to select by.
pub(crate) fn check_split(config: &SearchConfig, model: &DenseModel) -> Result<(), SearchError> {
    let (asked, validation) = (config.loop_examples as usize, model.data.validation.len());
    match asked >= validation {
        true => Err(SearchError::LoopExamples { asked, validation }),
        false => Ok(()),
    }
}

/// The vocabulary that was learnt for a configuration's model; weights are of no use without it.
pub(crate) fn learnt_vocabulary<'a>(config: &SearchConfig, evaluator: &'a Evaluator) -> Option<&'a Tokeniser> {
    match config.model.source {
        ModelSource::NewTranslator { .. } => evaluator.tokeniser(),
        ModelSource::New { .. } | ModelSource::Pretrained { .. } => None,
    }
}

/// The dense model of a configuration, trained or from the cache.
pub(crate) fn trained(
    model: DenseModel,
    config: &SearchConfig,
    cache: &Path,
    watch: &mut dyn Watch,
) -> Result<DenseModel, SearchError> {
    watch.begin(&Stage::Train, model.steps(&config.model.training));
    let dense = model.trained(&config.model.training, config.seed, cache, &mut |progress| {
        watch.advance(progress.step, &progress.to_string());
        if watch.is_interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let how = if dense.cached { "taken from the cache" } else { "trained and cached" };
    let mut told = vec![how.to_owned()];
    told.extend(dense.caveats().sentences());
    watch.end(&told.join("; "));
    Ok(dense)
}
