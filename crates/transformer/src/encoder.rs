use std::fmt;

use burn::{
    module::{Module, Param},
    nn::{Embedding, EmbeddingConfig, Linear, LinearConfig},
    tensor::{Device, Tensor},
};
use maskwright_blueprint::{ModelShape, ModuleShape};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Attention, TextBatch, TranslationBatch,
    attention::{Context, join_heads},
    gelu::gelu,
    initialise,
    layer_norm::LayerNorm,
    model::{check_image, check_layers, check_parameters, check_sizes, check_tokens},
    model_shape::{model_digest, product, self_attention},
    patches::cut_overlapping_patches,
    projection::{project, project_onto},
};

/// A pre-norm Transformer encoder that classifies by its first token: ViT (Dosovitskiy et al. 2021, arXiv 2010.11929)
/// for images, the same blocks for token sequences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    pub input: EncoderInput,
    /// Width of a token; a multiple of `heads`.
    pub width: u32,
    pub layers: u32,
    pub heads: u32,
    /// Width inside the feed-forward part.
    pub mlp: u32,
    pub classes: u32,
}

/// What one example is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum EncoderInput {
    /// A square image cut into square patches; a class token goes before them, so 32 / 4 gives 65 tokens. A patch sees
    /// `overlap` pixels beyond each of its sides, too, at most `patch`, with zeros around the normalised image: a convolution with
    /// padding. After PVT v2 (Wang et al. 2022, arXiv 2106.13797), whose kernel is `2 patch - 1`; here it is `patch + 2 overlap`, so
    /// that a patch stays in the middle of what it sees.
    Image {
        side: u32,
        patch: u32,
        channels: u32,
        #[serde(default)]
        overlap: u32,
    },
    /// A sequence of at most `length` tokens; the first of them is the class token.
    Tokens { length: u32, vocabulary: u32 },
}

/// Digests of models are taken from this: without `overlap` where there is none, as before there was such a field.
impl fmt::Debug for EncoderInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { side, patch, channels, overlap } => {
                let mut image = f.debug_struct("Image");
                image.field("side", side).field("patch", patch).field("channels", channels);
                if *overlap > 0 {
                    image.field("overlap", overlap);
                }
                image.finish()
            }
            Self::Tokens { length, vocabulary } => {
                f.debug_struct("Tokens").field("length", length).field("vocabulary", vocabulary).finish()
            }
        }
    }
}

/// A batch of examples.
#[derive(Debug, Clone)]
pub enum Inputs {
    /// `[batch, channels, side, side]`
    Images(Tensor<4>),
    Text(TextBatch),
    Translation(TranslationBatch),
}

#[derive(Module, Debug)]
pub struct Encoder {
    embedding: InputEmbedding,
    positions: Param<Tensor<3>>, // [1, tokens, width]
    blocks: Vec<Block>,
    norm: LayerNorm,
    classifier: Linear,
    #[module(skip)]
    config: EncoderConfig,
}

#[derive(Module, Debug)]
enum InputEmbedding {
    Patches(PatchEmbedding),
    Tokens(Embedding),
}

#[derive(Module, Debug)]
struct PatchEmbedding {
    projection: Linear,
    class_token: Param<Tensor<3>>, // [1, 1, width]
    #[module(skip)]
    patch: usize,
    #[module(skip)]
    overlap: usize,
}

#[derive(Module, Debug)]
struct Block {
    attention_norm: LayerNorm,
    query_key_value: Linear,
    output: Linear,
    mlp_norm: LayerNorm,
    expand: Linear,
    contract: Linear,
    #[module(skip)]
    heads: usize,
}

/// Pixels that a patch sees, of all channels.
fn seen_pixels(patch: u32, overlap: u32, channels: u32) -> u64 {
    (u64::from(patch) + 2 * u64::from(overlap)).saturating_pow(2).saturating_mul(channels.into())
}

impl EncoderConfig {
    /// Why no such model can be built, if so.
    pub fn check(&self) -> Result<(), String> {
        let Self { input, width, layers, heads, mlp, classes } = *self;
        check_sizes(&[width, layers, heads, mlp, classes])?;
        check_layers(layers)?;
        if !width.is_multiple_of(heads) {
            return Err(format!("width {width} is no multiple of {heads} heads"));
        }
        let inputs = match input {
            EncoderInput::Image { side, patch, channels, overlap } => {
                check_sizes(&[side, patch, channels])?;
                check_image(side, patch)?;
                if overlap > patch {
                    return Err(format!(
                        "an overlap of {overlap} pixels between patches of side {patch}; at most {patch} are computed"
                    ));
                }
                seen_pixels(patch, overlap, channels)
            }
            EncoderInput::Tokens { length, vocabulary } => {
                check_sizes(&[length, vocabulary])?;
                u64::from(vocabulary)
            }
        };
        check_tokens(self.tokens())?;
        let layer = u64::from(layers).saturating_mul(4 * u64::from(width) + 2 * u64::from(mlp));
        let rows = layer.saturating_add(inputs).saturating_add(self.tokens().into()).saturating_add(classes.into());
        check_parameters(u64::from(width).saturating_mul(rows))
    }

    /// Tokens of one example, the class token included.
    pub fn tokens(&self) -> u32 {
        match self.input {
            EncoderInput::Image { side, patch, .. } => (side / patch).pow(2) + 1,
            EncoderInput::Tokens { length, .. } => length,
        }
    }

    /// A model with weights drawn from `seed`.
    pub fn init(&self, seed: u64, device: &Device) -> Encoder {
        let width = self.width as usize;
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        let norm = || LayerNorm::init(width, device);
        let embedding = match self.input {
            EncoderInput::Image { patch, channels, overlap, .. } => InputEmbedding::Patches(PatchEmbedding {
                projection: linear(seen_pixels(patch, overlap, channels) as usize, width),
                class_token: Param::from_tensor(Tensor::zeros([1, 1, width], device)),
                patch: patch as usize,
                overlap: overlap as usize,
            }),
            EncoderInput::Tokens { vocabulary, .. } => {
                InputEmbedding::Tokens(EmbeddingConfig::new(vocabulary as usize, width).init(device))
            }
        };
        let block = |_| Block {
            attention_norm: norm(),
            query_key_value: linear(width, 3 * width),
            output: linear(width, width),
            mlp_norm: norm(),
            expand: linear(width, self.mlp as usize),
            contract: linear(self.mlp as usize, width),
            heads: self.heads as usize,
        };
        let encoder = Encoder {
            embedding,
            positions: Param::from_tensor(Tensor::zeros([1, self.tokens() as usize, width], device)),
            blocks: (0..self.layers).map(block).collect(),
            norm: norm(),
            classifier: linear(width, self.classes as usize),
            config: self.clone(),
        };
        initialise(encoder, seed)
    }
}

impl Encoder {
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// What a blueprint, a cost model and a kernel need to know of this model with its weights.
    pub fn shape(&self, name: &str) -> ModelShape {
        let EncoderConfig { input, width, layers, heads, mlp, classes } = self.config;
        let tokens = self.config.tokens();
        let attention = self_attention(heads, tokens, width);
        let module = |layer| ModuleShape { name: format!("block.{layer}.attention"), shape: attention };
        let mut linears = vec![
            product(tokens, width, 3 * width, layers),
            product(tokens, width, width, layers),
            product(tokens, width, mlp, layers),
            product(tokens, mlp, width, layers),
            product(1, width, classes, 1),
        ];
        if let EncoderInput::Image { patch, channels, overlap, .. } = input {
            linears.insert(0, product(tokens - 1, seen_pixels(patch, overlap, channels) as u32, width, 1));
        }
        // A block normalises twice, adds twice and activates once; the last normalisation follows the blocks.
        let block = u64::from(tokens) * (4 * u64::from(width) + u64::from(mlp));
        let elementwise = u64::from(layers) * block + u64::from(tokens) * u64::from(width);
        let digest = model_digest(&self.config, self);
        ModelShape { name: name.into(), digest, modules: (0..layers).map(module).collect(), linears, elementwise }
    }

    /// Class scores `[batch, classes]`.
    ///
    /// # Panics
    /// When the inputs are not of the kind that the configuration says, or longer.
    pub fn forward(&self, inputs: Inputs, mut attention: Attention<'_>) -> Tensor<2> {
        let blocks = 0..self.blocks.len();
        self.classify(blocks.fold(self.embed(&inputs), |x, at| self.block(at, x, &inputs, &mut attention)))
    }

    /// What goes into the first block, `[batch, tokens, width]`.
    pub(crate) fn embed(&self, inputs: &Inputs) -> Tensor<3> {
        let x = self.embedding.forward(inputs);
        let [_, tokens, _] = x.dims();
        x + self.positions.val().slice_dim(1, 0..tokens)
    }

    pub(crate) fn block(&self, at: usize, x: Tensor<3>, inputs: &Inputs, attention: &mut Attention<'_>) -> Tensor<3> {
        let context = match inputs {
            Inputs::Text(batch) => Context::padded(batch.real.clone()),
            _ => Context::default(),
        };
        // The class token is all that is read of the last block.
        let context = context.reading((at + 1 == self.blocks.len()).then_some(1));
        self.blocks[at].forward(x, at, attention, &context)
    }

    /// Class scores `[batch, classes]` from what the last block gives.
    pub(crate) fn classify(&self, x: Tensor<3>) -> Tensor<2> {
        let class_token = x.slice_dim(1, 0..1); // [batch, 1, width]
        self.classifier.forward(self.norm.forward(class_token).squeeze_dim(1))
    }
}

impl InputEmbedding {
    fn forward(&self, inputs: &Inputs) -> Tensor<3> {
        match (self, inputs) {
            (Self::Patches(embedding), Inputs::Images(images)) => embedding.forward(images.clone()),
            (Self::Tokens(embedding), Inputs::Text(batch)) => embedding.forward(batch.tokens.clone()),
            _ => panic!("a model of images reads images, a model of tokens reads tokens"),
        }
    }
}

impl PatchEmbedding {
    fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        let batch = images.dims()[0];
        let patches = cut_overlapping_patches(images, self.patch, self.overlap);
        let tokens = project(&self.projection, patches); // [batch, patches, width]
        let class_token = self.class_token.val().repeat_dim(0, batch);
        Tensor::cat(vec![class_token, tokens], 1)
    }
}

impl Block {
    fn forward(&self, x: Tensor<3>, module: usize, attention: &mut Attention<'_>, context: &Context) -> Tensor<3> {
        let [batch, tokens, width] = x.dims();
        let head_dim = width / self.heads;
        let normed = self.attention_norm.forward(x.clone());
        let heads = project(&self.query_key_value, normed).reshape([batch, tokens, 3, self.heads, head_dim]);
        let part = |at: usize| {
            let part: Tensor<4> = heads.clone().slice_dim(2, at..at + 1).squeeze_dim(2);
            part.swap_dims(1, 2) // [batch, heads, tokens, head_dim]
        };
        let attended = attention.attend(module, part(0), part(1), part(2), context);
        let x = project_onto(&self.output, join_heads(attended), context.read_of(x));
        let hidden = gelu(project(&self.expand, self.mlp_norm.forward(x.clone())));
        project_onto(&self.contract, hidden, x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_without_overlap_are_told_as_before_there_was_any() {
        let image = |overlap| EncoderInput::Image { side: 32, patch: 4, channels: 1, overlap };
        assert_eq!(format!("{:?}", image(0)), "Image { side: 32, patch: 4, channels: 1 }");
        assert_eq!(format!("{:?}", image(2)), "Image { side: 32, patch: 4, channels: 1, overlap: 2 }");
        let tokens = EncoderInput::Tokens { length: 8, vocabulary: 5 };
        assert_eq!(format!("{tokens:?}"), "Tokens { length: 8, vocabulary: 5 }");
        let before: EncoderInput = serde_json::from_str(r#"{"Image":{"side":32,"patch":4,"channels":1}}"#).unwrap();
        assert_eq!(before, image(0));
    }

    #[test]
    fn overlapping_patches_widen_the_first_product_alone_and_see_their_neighbours() {
        let input = |overlap| EncoderInput::Image { side: 32, patch: 4, channels: 1, overlap };
        let model = |overlap| {
            let config = EncoderConfig { input: input(overlap), width: 8, layers: 1, heads: 2, mlp: 16, classes: 3 };
            config.init(1, &Device::flex())
        };
        let (tiled, overlapping) = (model(0).shape(""), model(1).shape(""));
        assert_eq!((tiled.linears[0].inputs, overlapping.linears[0].inputs), (16, 36));
        assert_eq!(tiled.linears[1..], overlapping.linears[1..]);
        assert_eq!(tiled.modules, overlapping.modules);
        assert_ne!(tiled.digest, overlapping.digest);
        // One pixel at a corner of four patches: tokens that begin otherwise than without it.
        let changed = |overlap| -> Vec<usize> {
            let (model, image) = (model(overlap), Tensor::zeros([1, 1, 32, 32], &Device::flex()));
            let dotted = image.clone().slice_fill([0..1, 0..1, 3..4, 3..4], 1.0);
            let [plain, dotted] = [image, dotted].map(|image| model.embed(&Inputs::Images(image)));
            let changes: Vec<f32> = (dotted - plain).abs().sum_dim(2).into_data().try_to_vec().unwrap();
            (0..changes.len()).filter(|at| changes[*at] > 0.0).collect()
        };
        assert_eq!(changed(0), [1]); // 0 is the class token
        assert_eq!(changed(1), [1, 2, 9, 10]);
    }
}
