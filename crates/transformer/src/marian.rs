mod decoding;
mod target_so_far;
mod translator_config;

use std::ops::Range;

use burn::{
    module::{Module, Param},
    nn::{Embedding, Linear},
    tensor::{Device, Int, Tensor, TensorData},
};
use maskwright_blueprint::{AttentionKind, AttentionShape, ModelShape, ModuleShape};
use serde::Deserialize;

use crate::{
    Activation, Attention, Checkpoint, CheckpointError, Loading,
    attention::{BiasIs, Context, EXCLUDED, join_heads, split_heads},
    checkpoint::yes,
    layer_norm::LayerNorm,
    model::{check_layers, check_parameters, check_sizes, check_tokens},
    model_shape::{model_digest, product},
    parameters::Parameters,
    projection::{project, project_onto},
};

pub use decoding::Decoding;
pub use translator_config::TranslatorConfig;

/// Size of an encoder-decoder Transformer (Vaswani et al. 2017, arXiv 1706.03762) as Marian builds it: post-norm,
/// sinusoidal positions, one table for source words, target words and output scores.
#[derive(Debug, Clone, PartialEq)]
pub struct MarianConfig {
    pub vocabulary: u32,
    pub width: u32,
    pub encoder: StackSize,
    pub decoder: StackSize,
    /// The longest source and the longest target.
    pub positions: u32,
    pub activation: Activation,
    /// Whether word vectors are multiplied by the square root of the width.
    pub scaled_embedding: bool,
    /// The token that fills up short sequences; never generated.
    pub padding: u32,
    /// The token that ends a sequence.
    pub end: u32,
    /// The token that a target starts with.
    pub start: u32,
    /// Tokens of a source and of a target: what masks and costs are made for.
    pub lengths: (u32, u32),
}

/// Size of the encoder or the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackSize {
    pub layers: u32,
    pub heads: u32,
    /// Width inside the feed-forward part.
    pub mlp: u32,
}

/// An encoder-decoder Transformer that translates.
#[derive(Module, Debug)]
pub struct Marian {
    words: Embedding,
    encoder: Vec<EncoderLayer>,
    decoder: Vec<DecoderLayer>,
    score_bias: Param<Tensor<2>>, // [1, vocabulary]
    #[module(skip)]
    config: MarianConfig,
}

#[derive(Module, Debug)]
struct EncoderLayer {
    attention: AttentionLayer,
    feed_forward: FeedForward,
}

#[derive(Module, Debug)]
struct DecoderLayer {
    attention: AttentionLayer,
    cross_attention: AttentionLayer,
    feed_forward: FeedForward,
}

#[derive(Module, Debug)]
struct AttentionLayer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm: LayerNorm,
}

#[derive(Module, Debug)]
struct FeedForward {
    expand: Linear,
    contract: Linear,
    norm: LayerNorm,
}

/// Sentences and their translations, padded on the right.
#[derive(Debug, Clone)]
pub struct TranslationBatch {
    /// `[batch, source tokens]`
    pub source: Tensor<2, Int>,
    /// `[batch, source tokens]`: 1 for each real token, 0 for padding.
    pub real: Tensor<2>,
    /// `[batch, target tokens]`: the start token, then the translation without its last token. Row `t` of the scores is
    /// about what comes after token `t`.
    pub target: Tensor<2, Int>,
    /// Tokens of each target that are no padding, which is on the right; none where there is no padding.
    pub lengths: Option<Vec<usize>>,
}

#[derive(Deserialize)]
struct MarianJson {
    vocab_size: u32,
    d_model: u32,
    encoder_layers: u32,
    encoder_attention_heads: u32,
    encoder_ffn_dim: u32,
    decoder_layers: u32,
    decoder_attention_heads: u32,
    decoder_ffn_dim: u32,
    max_position_embeddings: u32,
    activation_function: String,
    #[serde(default)]
    scale_embedding: bool,
    pad_token_id: u32,
    eos_token_id: u32,
    decoder_start_token_id: u32,
    #[serde(default = "yes")]
    share_encoder_decoder_embeddings: bool,
    #[serde(default)]
    normalize_before: bool,
    #[serde(default)]
    normalize_embedding: bool,
    #[serde(default)]
    add_final_layer_norm: bool,
}

/// Not in `config.json`: what the library that writes it has built in.
const NORM_EPSILON: f64 = 1e-5;

impl MarianConfig {
    /// From a checkpoint's `config.json`.
    pub(crate) fn read(checkpoint: &Checkpoint, loading: &Loading) -> Result<Self, CheckpointError> {
        let json: MarianJson = checkpoint.config()?;
        if !json.share_encoder_decoder_embeddings {
            return Err(checkpoint.refuse("two vocabularies, one for the source and one for the target"));
        }
        if json.normalize_before || json.normalize_embedding || json.add_final_layer_norm {
            return Err(checkpoint.refuse("normalisation before the layers, of the embedding or after the last layer"));
        }
        let positions = json.max_position_embeddings;
        let config = Self {
            vocabulary: json.vocab_size,
            width: json.d_model,
            encoder: StackSize {
                layers: json.encoder_layers,
                heads: json.encoder_attention_heads,
                mlp: json.encoder_ffn_dim,
            },
            decoder: StackSize {
                layers: json.decoder_layers,
                heads: json.decoder_attention_heads,
                mlp: json.decoder_ffn_dim,
            },
            positions,
            activation: checkpoint.activation("activation_function", &json.activation_function)?,
            scaled_embedding: json.scale_embedding,
            padding: json.pad_token_id,
            end: json.eos_token_id,
            start: json.decoder_start_token_id,
            lengths: (
                checkpoint.length("length", loading.length, positions)?,
                checkpoint.length("target_length", loading.target_length, positions)?,
            ),
        };
        config.check().map_err(|reason| checkpoint.refuse(reason))?;
        Ok(config)
    }

    /// Why no such model can be built, if so.
    pub fn check(&self) -> Result<(), String> {
        let Self { vocabulary, width, encoder, decoder, positions, lengths: (source, target), .. } = *self;
        check_sizes(&[vocabulary, width, positions, source, target])?;
        if !width.is_multiple_of(2) {
            return Err(format!("width {width}; half of it are sines, half cosines"));
        }
        if source.max(target) > positions {
            return Err(format!("{} tokens where the model has {positions} positions", source.max(target)));
        }
        check_tokens(source.max(target))?;
        if let Some(token) = [self.padding, self.end, self.start].into_iter().find(|token| *token >= vocabulary) {
            return Err(format!("token {token} of a vocabulary of {vocabulary}"));
        }
        let mut rows = u64::from(vocabulary) + u64::from(positions);
        for (stack, attentions) in [(encoder, 1), (decoder, 2)] {
            check_sizes(&[stack.layers, stack.heads, stack.mlp])?;
            check_layers(stack.layers)?;
            if !width.is_multiple_of(stack.heads) {
                return Err(format!("width {width} is no multiple of {} heads", stack.heads));
            }
            let layer = attentions * 4 * u64::from(width) + 2 * u64::from(stack.mlp);
            rows = rows.saturating_add(layer.saturating_mul(stack.layers.into()));
        }
        check_parameters(rows.saturating_mul(width.into()))
    }

    /// A model with weights drawn from `seed`.
    pub fn init(&self, seed: u64, device: &Device) -> Marian {
        Marian::build(self, &mut Parameters::drawn(seed, device))
    }
}

impl Marian {
    /// Asks for every tensor.
    pub(crate) fn build(config: &MarianConfig, from: &mut Parameters) -> Self {
        let width = config.width as usize;
        // One table has up to four names; a file holds any one of them.
        let names = ["model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"];
        let words = from.first_of(&names);
        names.into_iter().filter(|name| *name != words).for_each(|name| from.ignore(&format!("{name}.")));
        // Positions are computed.
        ["encoder", "decoder"].into_iter().for_each(|stack| from.ignore(&format!("model.{stack}.embed_positions.")));
        // Multiplied by the root of the width, words are as large as positions; as scores, of deviation 1.
        let words = from.embedding_of(words, config.vocabulary as usize, width, (width as f32).sqrt().recip());
        let encoder = |at| {
            let name = format!("model.encoder.layers.{at}");
            EncoderLayer {
                attention: AttentionLayer::build(from, &format!("{name}.self_attn"), width),
                feed_forward: FeedForward::build(from, &name, width, config.encoder.mlp as usize),
            }
        };
        let encoder = (0..config.encoder.layers).map(encoder).collect();
        let decoder = |at| {
            let name = format!("model.decoder.layers.{at}");
            DecoderLayer {
                attention: AttentionLayer::build(from, &format!("{name}.self_attn"), width),
                cross_attention: AttentionLayer::build(from, &format!("{name}.encoder_attn"), width),
                feed_forward: FeedForward::build(from, &name, width, config.decoder.mlp as usize),
            }
        };
        let decoder = (0..config.decoder.layers).map(decoder).collect();
        let score_bias = from.constant("final_logits_bias", [1, config.vocabulary as usize], 0.0);
        Self { words, encoder, decoder, score_bias, config: config.clone() }
    }

    pub fn config(&self) -> &MarianConfig {
        &self.config
    }

    /// What the encoder gives for each source token, `[batch, source tokens, width]`; arbitrary for padding. `real` is
    /// `[batch, source tokens]`, 0 for padding.
    pub fn encode(&self, source: Tensor<2, Int>, real: &Tensor<2>, attention: &mut Attention<'_>) -> Tensor<3> {
        let context = Context::padded(real.clone());
        let layers = 0..self.encoder.len();
        layers.fold(self.embed(source, 0), |x, at| self.encoder_layer(at, x, &context, attention))
    }

    pub(crate) fn encoder_layer(
        &self,
        at: usize,
        x: Tensor<3>,
        context: &Context,
        attention: &mut Attention<'_>,
    ) -> Tensor<3> {
        let (layer, heads) = (&self.encoder[at], self.config.encoder.heads as usize);
        let x = layer.attention.forward(x.clone(), x, at, heads, attention, context);
        layer.feed_forward.forward(x, self.config.activation)
    }

    /// Scores of every word after each target token that is no padding, `[rows, vocabulary]`, one target after the other.
    pub fn forward(&self, batch: TranslationBatch, attention: &mut Attention<'_>) -> Tensor<2> {
        let encoded = self.encode(batch.source, &batch.real, attention);
        let lengths = batch.lengths.as_deref();
        self.score(self.states(batch.target, lengths, encoded, &batch.real, attention), lengths)
    }

    /// Scores of every word after each target token, `[batch, target tokens, vocabulary]`.
    pub fn decode(
        &self,
        target: Tensor<2, Int>,
        encoded: Tensor<3>,
        real: &Tensor<2>,
        attention: &mut Attention<'_>,
    ) -> Tensor<3> {
        let [batch, tokens] = target.dims();
        let states = self.states(target, None, encoded, real, attention);
        self.score(states, None).reshape([batch, tokens, self.config.vocabulary as usize])
    }

    /// What the last layer gives for each target token, `[batch, target tokens, width]`.
    fn states(
        &self,
        target: Tensor<2, Int>,
        lengths: Option<&[usize]>,
        encoded: Tensor<3>,
        real: &Tensor<2>,
        attention: &mut Attention<'_>,
    ) -> Tensor<3> {
        let layers = 0..self.decoder.len();
        let embedded = self.embed(target, 0);
        layers.fold(embedded, |x, at| self.decoder_layer(at, x, lengths, encoded.clone(), real, attention))
    }

    /// `lengths` are the tokens of each target that are no padding, where there is padding.
    pub(crate) fn decoder_layer(
        &self,
        at: usize,
        x: Tensor<3>,
        lengths: Option<&[usize]>,
        encoded: Tensor<3>,
        real: &Tensor<2>,
        attention: &mut Attention<'_>,
    ) -> Tensor<3> {
        let (layer, heads) = (&self.decoder[at], self.config.decoder.heads as usize);
        let causal = causal_context(x.dims()[1], lengths, &x.device());
        let cross = Context::crossing(real.clone(), &causal);
        let module = self.encoder.len() + 2 * at;
        let x = layer.attention.forward(x.clone(), x, module, heads, attention, &causal);
        let x = layer.cross_attention.forward(x, encoded, module + 1, heads, attention, &cross);
        layer.feed_forward.forward(x, self.config.activation)
    }

    /// Scores of every word after each target token that is no padding, `[rows, vocabulary]`, one target after the other,
    /// from what the last layer gives.
    pub(crate) fn score(&self, x: Tensor<3>, lengths: Option<&[usize]>) -> Tensor<2> {
        let (device, tokens) = (x.device(), x.dims()[1]);
        let states = x.flatten::<2>(0, 1); // [batch * tokens, width]
        let states = match lengths {
            Some(lengths) => states.select(0, real_rows(lengths, tokens, &device)),
            None => states,
        };
        states.matmul(self.words.weight.val().transpose()) + self.score_bias.val()
    }

    /// What a blueprint, a cost model and a kernel need to know of one translation with a target of full length, scored
    /// in one pass.
    pub fn shape(&self, name: &str) -> ModelShape {
        let MarianConfig { vocabulary, width, encoder, decoder, lengths: (source, target), .. } = self.config;
        let module = |name: String, kind, stack: StackSize, queries, keys| {
            let shape =
                AttentionShape { kind, heads: stack.heads, queries, keys, head_dim: width / stack.heads, windows: 1 };
            ModuleShape { name, shape }
        };
        let mut modules = Vec::new();
        for at in 0..encoder.layers {
            let name = format!("encoder.{at}.attention");
            modules.push(module(name, AttentionKind::SelfAttention, encoder, source, source));
        }
        for at in 0..decoder.layers {
            let name = |part| format!("decoder.{at}.{part}");
            modules.push(module(name("attention"), AttentionKind::CausalSelfAttention, decoder, target, target));
            modules.push(module(name("cross_attention"), AttentionKind::CrossAttention, decoder, target, source));
        }
        let linears = vec![
            product(source, width, width, 4 * encoder.layers),
            product(source, width, encoder.mlp, encoder.layers),
            product(source, encoder.mlp, width, encoder.layers),
            product(target, width, width, 6 * decoder.layers), // of self-attention four, of cross-attention two
            product(source, width, width, 2 * decoder.layers), // keys and values of cross-attention
            product(target, width, decoder.mlp, decoder.layers),
            product(target, decoder.mlp, width, decoder.layers),
            product(target, width, vocabulary, 1),
        ];
        // Positions are added; each attention and each feed-forward part adds and normalises, the latter activates too.
        let wide = u64::from(width);
        let stack = |tokens: u32, stack: StackSize, parts: u64| {
            u64::from(tokens) * (wide + u64::from(stack.layers) * (2 * parts * wide + u64::from(stack.mlp)))
        };
        let elementwise = stack(source, encoder, 2) + stack(target, decoder, 3);
        let digest = model_digest(&self.config, self);
        ModelShape { name: name.into(), digest, modules, linears, elementwise }
    }

    /// Word vectors with positions, the first token at position `first`: `[batch, tokens, width]`.
    pub(crate) fn embed(&self, tokens: Tensor<2, Int>, first: usize) -> Tensor<3> {
        let (length, width) = (tokens.dims()[1], self.config.width as usize);
        let end = first + length;
        assert!(end <= self.config.positions as usize, "{end} tokens, {} positions", self.config.positions);
        let words = self.words.forward(tokens);
        let scale = if self.config.scaled_embedding { (width as f32).sqrt() } else { 1.0 };
        let positions =
            Tensor::<2>::from_data(TensorData::new(sinusoids(first..end, width), [length, width]), &words.device());
        words.mul_scalar(scale) + positions.unsqueeze()
    }
}

/// Position `p` as `sin(p / 10000^(2i / width))` for i from 0 to half the width, then the cosines. Vaswani et al. have
/// sines and cosines by turns.
fn sinusoids(positions: Range<usize>, width: usize) -> Vec<f32> {
    let angle = |position: usize, at: usize| position as f64 / 10_000_f64.powf(2.0 * at as f64 / width as f64);
    let row = |position: usize| {
        let sines = (0..width / 2).map(move |at| angle(position, at).sin());
        sines.chain((0..width / 2).map(move |at| angle(position, at).cos()))
    };
    positions.flat_map(row).map(|value| value as f32).collect()
}

/// No token attends to a later one, and none to padding on the right.
fn causal_context(tokens: usize, lengths: Option<&[usize]>, device: &Device) -> Context {
    let row = |query| (0..tokens).map(move |key| if key > query { EXCLUDED } else { 0.0 });
    let bias = TensorData::new((0..tokens).flat_map(row).collect::<Vec<f32>>(), [1, 1, tokens, tokens]);
    let real = lengths.map(|lengths| {
        let real = lengths.iter().flat_map(|real| (0..tokens).map(move |at| f32::from(u8::from(at < *real))));
        let dims = [lengths.len(), 1, tokens, 1];
        Tensor::from_data(TensorData::new(real.collect::<Vec<f32>>(), dims), device)
    });
    Context {
        bias: Some(Tensor::from_data(bias, device)),
        real_queries: real.clone(),
        real_keys: real,
        bias_is: BiasIs::Causality(lengths.map(Into::into)),
        ..Context::default()
    }
}

/// Places of the tokens that are no padding among all of them.
fn real_rows(lengths: &[usize], tokens: usize, device: &Device) -> Tensor<1, Int> {
    let rows = lengths.iter().enumerate().flat_map(|(at, real)| at * tokens..at * tokens + real);
    let rows: Vec<i32> = rows.map(|row| row as i32).collect();
    Tensor::from_data(rows.as_slice(), device)
}

impl AttentionLayer {
    fn build(from: &mut Parameters, name: &str, width: usize) -> Self {
        Self {
            query: from.linear(&format!("{name}.q_proj"), width, width),
            key: from.linear(&format!("{name}.k_proj"), width, width),
            value: from.linear(&format!("{name}.v_proj"), width, width),
            output: from.linear(&format!("{name}.out_proj"), width, width),
            norm: from.norm(&format!("{name}_layer_norm"), width, NORM_EPSILON),
        }
    }

    /// Attention from `x` to `memory`, added to `x` and normalised.
    fn forward(
        &self,
        x: Tensor<3>,
        memory: Tensor<3>,
        module: usize,
        heads: usize,
        attention: &mut Attention<'_>,
        context: &Context,
    ) -> Tensor<3> {
        let q = split_heads(project(&self.query, x.clone()), heads);
        let [k, v] = self.keys_values(memory, heads);
        self.add(x, attention.attend(module, q, k, v, context))
    }

    /// Keys and values `[batch, heads, tokens, head_dim]`.
    fn keys_values(&self, memory: Tensor<3>, heads: usize) -> [Tensor<4>; 2] {
        let key = split_heads(project(&self.key, memory.clone()), heads);
        [key, split_heads(project(&self.value, memory), heads)]
    }

    /// What was attended to `[batch, heads, tokens, head_dim]`, added to `x` and normalised.
    fn add(&self, x: Tensor<3>, attended: Tensor<4>) -> Tensor<3> {
        self.norm.forward(project_onto(&self.output, join_heads(attended), x))
    }
}

impl FeedForward {
    fn build(from: &mut Parameters, layer: &str, width: usize, mlp: usize) -> Self {
        Self {
            expand: from.linear(&format!("{layer}.fc1"), width, mlp),
            contract: from.linear(&format!("{layer}.fc2"), mlp, width),
            norm: from.norm(&format!("{layer}.final_layer_norm"), width, NORM_EPSILON),
        }
    }

    fn forward(&self, x: Tensor<3>, activation: Activation) -> Tensor<3> {
        let hidden = activation.forward(project(&self.expand, x.clone()));
        self.norm.forward(project_onto(&self.contract, hidden, x))
    }
}
