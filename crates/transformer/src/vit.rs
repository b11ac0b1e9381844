use burn::{
    module::{Module, Param},
    nn::Linear,
    tensor::{Device, Tensor},
};
use maskwright_blueprint::{ModelShape, ModuleShape};
use serde::Deserialize;

use crate::{
    Activation, Attention, Checkpoint, CheckpointError, Loading,
    attention::{Context, join_heads, split_heads},
    checkpoint::yes,
    layer_norm::LayerNorm,
    model::{check_image, check_layers, check_parameters, check_sizes, check_tokens},
    model_shape::{model_digest, product, self_attention},
    parameters::Parameters,
    patches::cut_patches,
    projection::{project, project_onto},
};

/// Size of a Vision Transformer (Dosovitskiy et al. 2021, arXiv 2010.11929): pre-norm, learned positions, square
/// patches after a class token. DeiT (Touvron et al. 2021, arXiv 2012.12877) has a distillation token as well.
#[derive(Debug, Clone, PartialEq)]
pub struct VitConfig {
    pub variant: VitVariant,
    /// Pixels of an image's side; a multiple of `patch`.
    pub side: u32,
    pub patch: u32,
    pub channels: u32,
    pub width: u32,
    pub layers: u32,
    pub heads: u32,
    /// Width inside the feed-forward part.
    pub mlp: u32,
    pub activation: Activation,
    pub norm_epsilon: f64,
    /// Whether queries, keys and values have biases.
    pub query_key_value_bias: bool,
    pub classes: u32,
}

/// Which tokens stand before the patches, and who classifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VitVariant {
    /// A class token, which is classified.
    Vit,
    /// A class token, which is classified, and a distillation token.
    Deit,
    /// A class token and a distillation token, each with a classifier; their mean counts.
    DistilledDeit,
}

/// A Vision Transformer with a classifier.
#[derive(Module, Debug)]
pub struct Vit {
    class_token: Param<Tensor<3>>, // [1, 1, width]
    distillation_token: Option<Param<Tensor<3>>>,
    projection: Linear,
    positions: Param<Tensor<3>>, // [1, tokens, width]
    layers: Vec<Layer>,
    norm: LayerNorm,
    classifier: Linear,
    distillation_classifier: Option<Linear>,
    #[module(skip)]
    config: VitConfig,
}

#[derive(Module, Debug)]
struct Layer {
    attention_norm: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    mlp_norm: LayerNorm,
    expand: Linear,
    contract: Linear,
}

#[derive(Deserialize)]
struct VitJson {
    image_size: u32,
    patch_size: u32,
    num_channels: u32,
    hidden_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    intermediate_size: u32,
    hidden_act: String,
    #[serde(default = "norm_epsilon")]
    layer_norm_eps: f64,
    #[serde(default = "yes")]
    qkv_bias: bool,
    #[serde(default)]
    architectures: Vec<String>,
}

/// What the transformers library has for ViT and DeiT where `config.json` says nothing.
fn norm_epsilon() -> f64 {
    1e-12
}

impl VitConfig {
    /// From a checkpoint's `config.json`.
    pub(crate) fn read(checkpoint: &Checkpoint, loading: &Loading) -> Result<Self, CheckpointError> {
        let json: VitJson = checkpoint.config()?;
        let distilled = json.architectures.iter().any(|name| name.ends_with("WithTeacher"));
        let config = Self {
            variant: match checkpoint.architecture() {
                "vit" => VitVariant::Vit,
                _ if distilled => VitVariant::DistilledDeit,
                _ => VitVariant::Deit,
            },
            side: json.image_size,
            patch: json.patch_size,
            channels: json.num_channels,
            width: json.hidden_size,
            layers: json.num_hidden_layers,
            heads: json.num_attention_heads,
            mlp: json.intermediate_size,
            activation: checkpoint.activation("hidden_act", &json.hidden_act)?,
            norm_epsilon: json.layer_norm_eps,
            query_key_value_bias: json.qkv_bias,
            classes: loading.classes.unwrap_or_else(|| checkpoint.labels()),
        };
        config.check().map_err(|reason| checkpoint.refuse(reason))?;
        Ok(config)
    }

    /// Why no such model can be built, if so.
    pub fn check(&self) -> Result<(), String> {
        let Self { side, patch, channels, width, layers, heads, mlp, classes, .. } = *self;
        check_sizes(&[side, patch, channels, width, layers, heads, mlp, classes])?;
        check_layers(layers)?;
        check_image(side, patch)?;
        check_tokens(self.tokens())?;
        if !width.is_multiple_of(heads) {
            return Err(format!("width {width} is no multiple of {heads} heads"));
        }
        let pixels = u64::from(patch).pow(2).saturating_mul(channels.into());
        let layer = u64::from(layers).saturating_mul(4 * u64::from(width) + 2 * u64::from(mlp));
        let rows = layer.saturating_add(pixels).saturating_add(self.tokens().into()).saturating_add(classes.into());
        check_parameters(u64::from(width).saturating_mul(rows))
    }

    /// Tokens of one image, with those before the patches.
    pub fn tokens(&self) -> u32 {
        (self.side / self.patch).pow(2) + self.extra_tokens()
    }

    /// A model with weights drawn from `seed`.
    pub fn init(&self, seed: u64, device: &Device) -> Vit {
        Vit::build(self, &mut Parameters::drawn(seed, device))
    }

    fn extra_tokens(&self) -> u32 {
        if self.variant == VitVariant::Vit { 1 } else { 2 }
    }
}

impl Vit {
    /// Asks for every tensor; classifiers that the checkpoint lacks, or has for other classes, are drawn.
    pub(crate) fn build(config: &VitConfig, from: &mut Parameters) -> Self {
        let size = |value: u32| value as usize;
        let (width, mlp, epsilon) = (size(config.width), size(config.mlp), config.norm_epsilon);
        let (channels, patch, classes) = (size(config.channels), size(config.patch), size(config.classes));
        let body = from.prefix(if config.variant == VitVariant::Vit { "vit" } else { "deit" });
        for unused in ["embeddings.mask_token", "pooler."] {
            from.ignore(&format!("{body}{unused}"));
        }
        from.ignore("decoder."); // of masked image modelling
        let is_distilled = config.variant == VitVariant::DistilledDeit;
        let embeddings = format!("{body}embeddings");
        let layer = |at| {
            let name = |part| format!("{body}encoder.layer.{at}.{part}");
            let mut input = |part| match config.query_key_value_bias {
                true => from.linear(&name(part), width, width),
                false => from.linear_without_bias(&name(part), width, width),
            };
            Layer {
                query: input("attention.attention.query"),
                key: input("attention.attention.key"),
                value: input("attention.attention.value"),
                output: from.linear(&name("attention.output.dense"), width, width),
                attention_norm: from.norm(&name("layernorm_before"), width, epsilon),
                mlp_norm: from.norm(&name("layernorm_after"), width, epsilon),
                expand: from.linear(&name("intermediate.dense"), width, mlp),
                contract: from.linear(&name("output.dense"), mlp, width),
            }
        };
        Self {
            layers: (0..config.layers).map(layer).collect(),
            class_token: from.table(&format!("{embeddings}.cls_token"), [1, 1, width]),
            distillation_token: (config.variant != VitVariant::Vit)
                .then(|| from.table(&format!("{embeddings}.distillation_token"), [1, 1, width])),
            projection: from
                .patches(&format!("{embeddings}.patch_embeddings.projection"), [width, channels, patch, patch]),
            positions: from.table(&format!("{embeddings}.position_embeddings"), [1, size(config.tokens()), width]),
            norm: from.norm(&format!("{body}layernorm"), width, epsilon),
            classifier: from.classifier(if is_distilled { "cls_classifier" } else { "classifier" }, width, classes),
            distillation_classifier: is_distilled.then(|| from.classifier("distillation_classifier", width, classes)),
            config: config.clone(),
        }
    }

    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// What the last layer gives for each token, normalised: `[batch, tokens, width]`; images are
    /// `[batch, channels, side, side]`.
    pub fn hidden(&self, images: Tensor<4>, attention: &mut Attention<'_>) -> Tensor<3> {
        let (layers, context) = (0..self.layers.len(), Context::default());
        let layer = |x, at: usize| self.layers[at].forward(x, at, &self.config, attention, &context);
        self.norm.forward(layers.fold(self.embed(images), layer))
    }

    /// What goes into the first layer, `[batch, tokens, width]`.
    pub(crate) fn embed(&self, images: Tensor<4>) -> Tensor<3> {
        let [batch, ..] = images.dims();
        let repeated = |token: &Param<Tensor<3>>| token.val().repeat_dim(0, batch);
        let mut tokens = vec![repeated(&self.class_token)];
        tokens.extend(self.distillation_token.as_ref().map(repeated));
        tokens.push(project(&self.projection, cut_patches(images, self.config.patch as usize)));
        Tensor::cat(tokens, 1) + self.positions.val()
    }

    /// What layer `at` gives for the tokens that are read of it.
    pub(crate) fn layer(&self, at: usize, x: Tensor<3>, attention: &mut Attention<'_>) -> Tensor<3> {
        let classified = 1 + usize::from(self.distillation_classifier.is_some());
        let context = Context::default().reading((at + 1 == self.layers.len()).then_some(classified));
        self.layers[at].forward(x, at, &self.config, attention, &context)
    }

    /// Class scores `[batch, classes]` from what the last layer gives, for all tokens or those that are read.
    pub(crate) fn classify(&self, x: Tensor<3>) -> Tensor<2> {
        let hidden = self.norm.forward(x);
        let token = |at: usize| hidden.clone().slice_dim(1, at..at + 1).squeeze_dim::<2>(1);
        let scores = self.classifier.forward(token(0));
        match &self.distillation_classifier {
            Some(classifier) => (scores + classifier.forward(token(1))).mul_scalar(0.5),
            None => scores,
        }
    }

    /// What a blueprint, a cost model and a kernel need to know.
    pub fn shape(&self, name: &str) -> ModelShape {
        let VitConfig { patch, channels, width, mlp, layers, heads, classes, .. } = self.config;
        let tokens = self.config.tokens();
        let attention = self_attention(heads, tokens, width);
        let module = |layer| ModuleShape { name: format!("layer.{layer}.attention"), shape: attention };
        let classifiers = if self.distillation_classifier.is_some() { 2 } else { 1 };
        let linears = vec![
            product(tokens - self.config.extra_tokens(), patch * patch * channels, width, 1),
            product(tokens, width, width, 4 * layers),
            product(tokens, width, mlp, layers),
            product(tokens, mlp, width, layers),
            product(1, width, classes, classifiers),
        ];
        // A layer normalises twice, adds twice and activates once; the last normalisation follows the layers.
        let (tokens, width, mlp) = (u64::from(tokens), u64::from(width), u64::from(mlp));
        let elementwise = tokens * (width + u64::from(layers) * (4 * width + mlp));
        let digest = model_digest(&self.config, self);
        ModelShape { name: name.into(), digest, modules: (0..layers).map(module).collect(), linears, elementwise }
    }
}

impl Layer {
    fn forward(
        &self,
        x: Tensor<3>,
        module: usize,
        config: &VitConfig,
        attention: &mut Attention<'_>,
        context: &Context,
    ) -> Tensor<3> {
        let normed = self.attention_norm.forward(x.clone());
        let heads = |of: &Linear| split_heads(project(of, normed.clone()), config.heads as usize);
        let (q, k, v) = (heads(&self.query), heads(&self.key), heads(&self.value));
        let attended = attention.attend(module, q, k, v, context);
        let x = project_onto(&self.output, join_heads(attended), context.read_of(x));
        let hidden = config.activation.forward(project(&self.expand, self.mlp_norm.forward(x.clone())));
        project_onto(&self.contract, hidden, x)
    }
}
