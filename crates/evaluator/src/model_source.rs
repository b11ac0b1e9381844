use std::path::PathBuf;

use burn::tensor::Device;
use maskwright_transformer::{
    Checkpoint, CheckpointError, EncoderConfig, Loaded, Loading, Model, Pooling, Tokeniser, TranslatorConfig,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{EvaluatorError, Task};

/// Where a model's architecture and first weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum ModelSource {
    /// A small Transformer whose weights are drawn from the seed.
    New { encoder: EncoderConfig },
    /// A small encoder-decoder whose weights are drawn from the seed, and whose sub-words are learnt from the training
    /// examples.
    NewTranslator { translator: TranslatorConfig },
    /// A folder in Hugging Face's layout (`docs/models.md`). A classifier that it lacks, or has for other classes, is
    /// drawn from the seed.
    Pretrained {
        folder: PathBuf,
        /// Tokens that a text is cut to, and that masks and costs are made for; by default the model's positions.
        #[serde(default)]
        length: Option<u32>,
        /// The same for a translation, of models that write one.
        #[serde(default)]
        target_length: Option<u32>,
        /// How a text's tokens become one vector.
        #[serde(default)]
        pooling: Pooling,
    },
}

impl ModelSource {
    /// Why no such model can be built, as far as that is known without reading a folder.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::New { encoder } => encoder.check().map_err(|why| format!("`model.source.New.encoder`: {why}")),
            Self::NewTranslator { translator } => {
                translator.check().map_err(|why| format!("`model.source.NewTranslator.translator`: {why}"))
            }
            Self::Pretrained { .. } => Ok(()),
        }
    }

    /// The model with its first weights, for `classes` classes where it does not say how many. Of a new model nothing
    /// counts as drawn, for there is no checkpoint that lacks it.
    pub fn build(&self, classes: Option<u32>, seed: u64, device: &Device) -> Result<Loaded, CheckpointError> {
        let new = |model| Ok(Loaded { model, drawn: Vec::new(), ignored: Vec::new() });
        match self {
            Self::New { encoder } => new(Model::Encoder(encoder.init(seed, device))),
            Self::NewTranslator { translator } => new(Model::Marian(translator.init(seed, device))),
            Self::Pretrained { folder, length, target_length, pooling } => {
                let (length, target_length, pooling) = (*length, *target_length, *pooling);
                let loading = Loading { length, target_length, classes, pooling, seed };
                Model::load(folder, &loading, device)
            }
        }
    }

    /// What turns texts into the model's tokens, if it reads texts; a vocabulary of the model's own is learnt from the
    /// task's training examples.
    pub fn tokeniser(&self, model: &Model, task: &Task) -> Result<Option<Tokeniser>, EvaluatorError> {
        match (self, model) {
            (Self::NewTranslator { translator }, _) => {
                let pairs = task.training_pairs()?;
                let texts = pairs.iter().flat_map(|pair| [&pair.source[..], &pair.target]);
                Ok(Some(Tokeniser::learn(texts, translator.vocabulary)?))
            }
            (Self::Pretrained { folder, .. }, Model::Bert(_) | Model::Marian(_)) => {
                Ok(Some(Checkpoint::open(folder)?.tokeniser()?))
            }
            _ => Ok(None),
        }
    }
}
