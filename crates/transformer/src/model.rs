use std::{ops::Range, path::Path};

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use maskwright_blueprint::ModelShape;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Attention, Bert, BertConfig, Checkpoint, CheckpointError, Encoder, EncoderInput, Inputs, Marian, MarianConfig,
    Swin, SwinConfig, TranslationBatch, Vit, VitConfig, attention::Context,
};

/// A model of any family, so that training, evaluation and search need not know which.
///
/// `docs/models.md` says how a family is added.
#[derive(Module, Debug)]
pub enum Model {
    Encoder(Encoder),
    Bert(Bert),
    Vit(Vit),
    Swin(Swin),
    Marian(Marian),
}

/// How a checkpoint becomes a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loading {
    /// Tokens of one example, for families that read text; by default as many as the model has positions.
    pub length: Option<u32>,
    /// Tokens of one translation, for families that write text; by default as many as the model has positions.
    pub target_length: Option<u32>,
    /// Classes to tell apart; by default those of the checkpoint. A classifier for another number is replaced.
    pub classes: Option<u32>,
    /// For families that read text and classify it.
    pub pooling: Pooling,
    /// What a classifier that the checkpoint lacks is drawn from.
    pub seed: u64,
}

/// How an encoder's outputs become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Pooling {
    /// The first token's, through the dense layer that the family has for it.
    #[default]
    FirstToken,
    /// The mean over all tokens that are no padding.
    Mean,
}

/// What a model takes as one example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Square images.
    Images { side: u32, channels: u32 },
    /// Texts of at most `length` tokens below `vocabulary`, filled up with the token `padding`.
    Text { length: u32, vocabulary: u32, padding: u32 },
    /// Texts of at most `source` tokens, and translations of at most `target` tokens, of one vocabulary.
    Translations { source: u32, target: u32, vocabulary: u32 },
}

/// A model from a checkpoint, and what did not come from it.
#[derive(Debug)]
pub struct Loaded {
    pub model: Model,
    /// Tensors that the checkpoint lacks and may lack, drawn from [`Loading::seed`]: a classifier's.
    pub drawn: Vec<String>,
    /// The checkpoint's tensors that this model has no use for: heads for other tasks.
    pub ignored: Vec<String>,
}

/// A batch between two layers of a model.
#[derive(Debug, Clone)]
pub struct Midway {
    /// `[batch, tokens, width]`
    x: Tensor<3>,
    /// What a decoder attends to, once there is one: `[batch, source tokens, width]`.
    encoded: Option<Tensor<3>>,
}

impl Midway {
    /// Memory that it holds.
    pub fn bytes(&self) -> usize {
        let numbers = |of: &Tensor<3>| of.dims().iter().product::<usize>();
        size_of::<f32>() * (numbers(&self.x) + self.encoded.as_ref().map_or(0, numbers))
    }
}

/// Families by `model_type` in `config.json`.
const ARCHITECTURES: [&str; 8] = ["bert", "deit", "distilbert", "marian", "roberta", "swin", "vit", "xlm-roberta"];

/// Larger models are refused: BERT-Large has 340 million parameters.
const MOST_PARAMETERS: u64 = 1 << 30;

/// Longer attention is refused: calibration holds all scores of every head in f32, 268 MB a head of so many tokens.
pub(crate) const MOST_TOKENS: u32 = 8192;

impl Model {
    /// Loads a folder in Hugging Face's layout.
    pub fn load(folder: &Path, loading: &Loading, device: &Device) -> Result<Loaded, CheckpointError> {
        let checkpoint = Checkpoint::open(folder)?;
        // The configuration is refused before the weights are looked at.
        let parameters = || checkpoint.parameters(loading, device);
        let (model, parameters) = match checkpoint.architecture() {
            "bert" | "distilbert" | "roberta" | "xlm-roberta" => {
                let config = BertConfig::read(&checkpoint, loading)?;
                let mut from = parameters()?;
                (Self::Bert(Bert::build(&config, &mut from)), from)
            }
            "vit" | "deit" => {
                let config = VitConfig::read(&checkpoint, loading)?;
                let mut from = parameters()?;
                (Self::Vit(Vit::build(&config, &mut from)), from)
            }
            "swin" => {
                let config = SwinConfig::read(&checkpoint, loading)?;
                let mut from = parameters()?;
                (Self::Swin(Swin::build(&config, &mut from)), from)
            }
            "marian" => {
                let config = MarianConfig::read(&checkpoint, loading)?;
                let mut from = parameters()?;
                (Self::Marian(Marian::build(&config, &mut from)), from)
            }
            _ => return Err(checkpoint.unknown(&ARCHITECTURES)),
        };
        let (drawn, ignored) = parameters.finish()?;
        Ok(Loaded { model, drawn, ignored })
    }

    /// Scores `[rows, classes]`; a row is an example, or a target token that a translation is asked about.
    ///
    /// # Panics
    /// When the inputs are not of the kind that this family reads.
    pub fn forward(&self, inputs: Inputs, mut attention: Attention<'_>) -> Tensor<2> {
        let layers = 0..self.layers();
        let last = layers.fold(self.begin(&inputs), |midway, at| self.layer(at, midway, &inputs, &mut attention));
        self.finish(last, &inputs)
    }

    /// How many layers there are; a translator's decoder comes after its encoder.
    pub fn layers(&self) -> usize {
        match self {
            Self::Marian(model) => (model.config().encoder.layers + model.config().decoder.layers) as usize,
            Self::Swin(model) => model.blocks(),
            Self::Encoder(model) => model.config().layers as usize,
            Self::Bert(model) => model.config().layers as usize,
            Self::Vit(model) => model.config().layers as usize,
        }
    }

    /// The attention modules of a layer, as [`ModelShape::modules`] counts them.
    pub fn modules_of(&self, layer: usize) -> Range<usize> {
        match self {
            Self::Marian(model) => match (layer, model.config().encoder.layers as usize) {
                (layer, encoder) if layer < encoder => layer..layer + 1,
                (layer, encoder) => 2 * layer - encoder..2 * layer - encoder + 2, // causal, cross
            },
            Self::Encoder(_) | Self::Bert(_) | Self::Vit(_) | Self::Swin(_) => layer..layer + 1,
        }
    }

    /// What goes into the first layer.
    ///
    /// # Panics
    /// When the inputs are not of the kind that this family reads.
    pub fn begin(&self, inputs: &Inputs) -> Midway {
        let x = match (self, inputs) {
            (Self::Encoder(model), inputs) => model.embed(inputs),
            (Self::Bert(model), Inputs::Text(batch)) => model.embed(batch),
            (Self::Vit(model), Inputs::Images(images)) => model.embed(images.clone()),
            (Self::Swin(model), Inputs::Images(images)) => model.embed(images.clone()),
            (Self::Marian(model), Inputs::Translation(batch)) => model.embed(batch.source.clone(), 0),
            _ => wrong_inputs(),
        };
        Midway { x, encoded: None }
    }

    /// From what goes into layer `at` to what goes into the next one, or from the last one to what [`Model::finish`] reads; `inputs` are
    /// those of [`Model::begin`].
    ///
    /// # Panics
    /// When there is no such layer, or the inputs are not of the kind that this family reads.
    pub fn layer(&self, at: usize, from: Midway, inputs: &Inputs, attention: &mut Attention<'_>) -> Midway {
        let Midway { x, encoded } = from;
        let x = match (self, inputs) {
            (Self::Encoder(model), inputs) => model.block(at, x, inputs, attention),
            (Self::Bert(model), Inputs::Text(batch)) => model.layer(at, x, batch, attention),
            (Self::Vit(model), _) => model.layer(at, x, attention),
            (Self::Swin(model), _) => model.block(at, x, attention),
            (Self::Marian(model), Inputs::Translation(TranslationBatch { real, target, lengths, .. })) => {
                let Some(after) = at.checked_sub(model.config().encoder.layers as usize) else {
                    let x = model.encoder_layer(at, x, &Context::padded(real.clone()), attention);
                    return Midway { x, encoded };
                };
                // The first decoder layer begins with the target.
                let (x, encoded) = match encoded {
                    Some(encoded) => (x, encoded),
                    None => (model.embed(target.clone(), 0), x),
                };
                let x = model.decoder_layer(after, x, lengths.as_deref(), encoded.clone(), real, attention);
                return Midway { x, encoded: Some(encoded) };
            }
            _ => wrong_inputs(),
        };
        Midway { x, encoded }
    }

    /// Scores as of [`Model::forward`], from what the last layer gives.
    ///
    /// # Panics
    /// When the inputs are not of the kind that this family reads.
    pub fn finish(&self, Midway { x, .. }: Midway, inputs: &Inputs) -> Tensor<2> {
        match (self, inputs) {
            (Self::Encoder(model), _) => model.classify(x),
            (Self::Bert(model), Inputs::Text(batch)) => model.classify(x, batch),
            (Self::Vit(model), _) => model.classify(x),
            (Self::Swin(model), _) => model.classify(x),
            (Self::Marian(model), Inputs::Translation(batch)) => model.score(x, batch.lengths.as_deref()),
            _ => wrong_inputs(),
        }
    }

    /// Where its parameters lie.
    pub fn device(&self) -> Device {
        self.devices().into_iter().next().expect("every model has parameters")
    }

    /// What it takes as one example.
    pub fn reads(&self) -> Reads {
        match self {
            Self::Encoder(model) => match model.config().input {
                EncoderInput::Image { side, channels, .. } => Reads::Images { side, channels },
                EncoderInput::Tokens { length, vocabulary } => Reads::Text { length, vocabulary, padding: 0 },
            },
            Self::Bert(model) => {
                let BertConfig { length, vocabulary, padding, .. } = *model.config();
                Reads::Text { length, vocabulary, padding }
            }
            Self::Vit(model) => Reads::Images { side: model.config().side, channels: model.config().channels },
            Self::Swin(model) => Reads::Images { side: model.config().side, channels: model.config().channels },
            Self::Marian(model) => {
                let MarianConfig { lengths: (source, target), vocabulary, .. } = *model.config();
                Reads::Translations { source, target, vocabulary }
            }
        }
    }

    /// Columns of its scores: classes, or the vocabulary of a translation.
    pub fn classes(&self) -> u32 {
        match self {
            Self::Encoder(model) => model.config().classes,
            Self::Bert(model) => model.config().classes,
            Self::Vit(model) => model.config().classes,
            Self::Swin(model) => model.config().classes,
            Self::Marian(model) => model.config().vocabulary,
        }
    }

    /// What a blueprint, a cost model and a kernel need to know of this model with its weights.
    pub fn shape(&self, name: &str) -> ModelShape {
        match self {
            Self::Encoder(model) => model.shape(name),
            Self::Bert(model) => model.shape(name),
            Self::Vit(model) => model.shape(name),
            Self::Swin(model) => model.shape(name),
            Self::Marian(model) => model.shape(name),
        }
    }
}

impl Pooling {
    /// One vector `[batch, width]` from `[batch, tokens, width]`; `real` is `[batch, tokens]`, 0 for padding.
    pub(crate) fn pool(self, hidden: Tensor<3>, real: &Tensor<2>) -> Tensor<2> {
        match self {
            Self::FirstToken => hidden.slice_dim(1, 0..1).squeeze_dim(1),
            Self::Mean => {
                let real: Tensor<3> = real.clone().unsqueeze_dim(2); // [batch, tokens, 1]
                let sum: Tensor<2> = (hidden * real.clone()).sum_dim(1).squeeze_dim(1);
                sum / real.sum_dim(1).squeeze_dim(1).clamp_min(1.0)
            }
        }
    }
}

fn wrong_inputs() -> ! {
    panic!("a model of images reads images, a model of text reads text, a translator translations")
}

/// Refuses a size of zero, and sizes whose products would overflow.
pub(crate) fn check_sizes(sizes: &[u32]) -> Result<(), String> {
    const MOST: u32 = 1 << 24;
    match sizes.iter().find(|size| !(1..=MOST).contains(*size)) {
        Some(size) => Err(format!("a size of {size}; sizes are 1 to {MOST}")),
        None => Ok(()),
    }
}

/// Refuses stacks that would take long to build however small their layers are.
pub(crate) fn check_layers(layers: u32) -> Result<(), String> {
    const MOST: u32 = 1024;
    match layers > MOST {
        true => Err(format!("{layers} layers; at most {MOST} are built")),
        false => Ok(()),
    }
}

pub(crate) fn check_parameters(parameters: u64) -> Result<(), String> {
    match parameters > MOST_PARAMETERS {
        true => Err(format!("{parameters} parameters; at most {MOST_PARAMETERS} are built")),
        false => Ok(()),
    }
}

/// Refuses more tokens than attend to each other at once.
pub(crate) fn check_tokens(tokens: u32) -> Result<(), String> {
    match tokens > MOST_TOKENS {
        true => Err(format!("attention over {tokens} tokens; at most {MOST_TOKENS} are computed")),
        false => Ok(()),
    }
}

/// Refuses images that patches do not tile, or whose patches are too many to compute even without attention.
pub(crate) fn check_image(side: u32, patch: u32) -> Result<(), String> {
    const MOST_PATCHES: u64 = 1 << 16;
    if !side.is_multiple_of(patch) {
        return Err(format!("an image of side {side}, which patches of side {patch} do not tile"));
    }
    let patches = u64::from(side / patch).pow(2);
    match patches > MOST_PATCHES {
        true => Err(format!("{patches} patches; at most {MOST_PATCHES} are computed")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, EncoderConfig, StackSize, VitVariant};

    fn encoder(input: EncoderInput) -> EncoderConfig {
        EncoderConfig { input, width: 2, layers: 1, heads: 1, mlp: 2, classes: 2 }
    }

    #[test]
    fn an_encoder_keeps_to_the_limits_of_every_family() {
        let small = encoder(EncoderInput::Tokens { length: 8, vocabulary: 5 });
        let refused = |config: EncoderConfig| config.check().unwrap_err();
        assert_eq!(small.check(), Ok(()));
        assert_eq!(refused(EncoderConfig { layers: 1025, ..small.clone() }), "1025 layers; at most 1024 are built");
        let layers = 100_000_000;
        assert_eq!(refused(EncoderConfig { layers, ..small.clone() }), "a size of 100000000; sizes are 1 to 16777216");
        assert_eq!(refused(EncoderConfig { mlp: 0, ..small.clone() }), "a size of 0; sizes are 1 to 16777216");
        // 4 w^2 + 2 w m in the layer, w (8 + 5 + 2) around it.
        assert_eq!(
            refused(EncoderConfig { width: 1 << 14, mlp: 1 << 14, ..small }),
            "1610858496 parameters; at most 1073741824 are built"
        );
        let patches = |side, patch| refused(encoder(EncoderInput::Image { side, patch, channels: 1, overlap: 0 }));
        assert_eq!(patches(10, 3), "an image of side 10, which patches of side 3 do not tile");
        assert_eq!(patches(10, 0), "a size of 0; sizes are 1 to 16777216");
        let overlapping = |overlap| encoder(EncoderInput::Image { side: 32, patch: 2, channels: 1, overlap });
        assert_eq!(overlapping(2).check(), Ok(()));
        assert_eq!(refused(overlapping(3)), "an overlap of 3 pixels between patches of side 2; at most 2 are computed");
    }

    #[test]
    fn no_family_computes_attention_over_more_than_8192_tokens() {
        let (activation, stack) = (Activation::Gelu, StackSize { layers: 1, heads: 1, mlp: 2 });
        let text = |length| encoder(EncoderInput::Tokens { length, vocabulary: 5 }).check();
        let image = |side| encoder(EncoderInput::Image { side, patch: 1, channels: 1, overlap: 0 }).check();
        let bert = |length| BertConfig { positions: 10_000, length, ..BertConfig::MINI }.check();
        let vit = |side| {
            let config = VitConfig {
                variant: VitVariant::Vit,
                side,
                patch: 1,
                channels: 1,
                width: 2,
                layers: 1,
                heads: 1,
                mlp: 2,
                activation,
                norm_epsilon: 1e-6,
                query_key_value_bias: true,
                classes: 2,
            };
            config.check()
        };
        let swin = |window| {
            let config = SwinConfig {
                side: window,
                patch: 1,
                channels: 1,
                width: 2,
                depths: vec![1],
                heads: vec![1],
                window,
                mlp_ratio: 1.0,
                activation,
                norm_epsilon: 1e-6,
                query_key_value_bias: true,
                classes: 2,
            };
            config.check()
        };
        let marian = |source, target| {
            let config = MarianConfig {
                vocabulary: 5,
                width: 2,
                encoder: stack,
                decoder: stack,
                positions: 10_000,
                activation,
                scaled_embedding: true,
                padding: 0,
                end: 1,
                start: 0,
                lengths: (source, target),
            };
            config.check()
        };
        for computed in [text(8192), bert(8192), marian(8192, 8192), image(90), vit(90), swin(90)] {
            assert_eq!(computed, Ok(()));
        }
        for (refused, tokens) in [
            (text(8193), 8193),
            (bert(8193), 8193),
            (marian(8193, 8192), 8193),
            (marian(8192, 8193), 8193),
            (image(91), 91 * 91 + 1),
            (vit(91), 91 * 91 + 1),
            (swin(91), 91 * 91),
        ] {
            assert_eq!(refused, Err(format!("attention over {tokens} tokens; at most 8192 are computed")));
        }
    }
}
