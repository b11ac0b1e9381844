use burn::{
    module::Module,
    nn::{Embedding, Linear},
    tensor::{Device, Tensor, activation::relu},
};
use maskwright_blueprint::{ModelShape, ModuleShape};
use serde::Deserialize;

use crate::{
    Activation, Attention, Checkpoint, CheckpointError, Loading, Pooling, TextBatch,
    attention::{Context, join_heads, split_heads},
    layer_norm::LayerNorm,
    model::{check_layers, check_parameters, check_sizes, check_tokens},
    model_shape::{model_digest, product, self_attention},
    parameters::Parameters,
    projection::{project, project_onto},
};

/// Size of a BERT encoder (Devlin et al. 2019, arXiv 1810.04805): post-norm, learned positions, bidirectional.
///
/// DistilBERT (arXiv 1910.01108) is the same without token types; RoBERTa (arXiv 1907.11692) is the same with positions
/// counted from the padding token's number. They differ in the names of their tensors and in their classifiers.
#[derive(Debug, Clone, PartialEq)]
pub struct BertConfig {
    pub variant: BertVariant,
    pub vocabulary: u32,
    pub width: u32,
    pub layers: u32,
    pub heads: u32,
    /// Width inside the feed-forward part.
    pub mlp: u32,
    /// Rows of the table of positions; RoBERTa uses all but the first `padding + 1`.
    pub positions: u32,
    /// 0 for DistilBERT.
    pub token_types: u32,
    /// The token that fills up short sequences.
    pub padding: u32,
    pub activation: Activation,
    pub norm_epsilon: f64,
    pub pooling: Pooling,
    pub classes: u32,
    /// Tokens of one example: what masks and costs are made for.
    pub length: u32,
}

impl BertConfig {
    /// BERT-mini (Turc et al. 2019, arXiv 1908.08962) for 128 tokens and two classes.
    pub const MINI: Self = Self {
        variant: BertVariant::Bert,
        vocabulary: 30_522,
        width: 256,
        layers: 4,
        heads: 4,
        mlp: 1024,
        positions: 512,
        token_types: 2,
        padding: 0,
        activation: Activation::Gelu,
        norm_epsilon: 1e-12,
        pooling: Pooling::FirstToken,
        classes: 2,
        length: 128,
    };
}

/// Whose names the tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BertVariant {
    Bert,
    DistilBert,
    Roberta,
}

/// A BERT encoder with a classifier.
#[derive(Module, Debug)]
pub struct Bert {
    words: Embedding,
    positions: Embedding,
    token_types: Option<Embedding>,
    embedding_norm: LayerNorm,
    layers: Vec<Layer>,
    head: Head,
    #[module(skip)]
    config: BertConfig,
}

#[derive(Module, Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attention_norm: LayerNorm,
    expand: Linear,
    contract: Linear,
    output_norm: LayerNorm,
}

/// From one vector for each example to class scores; `dense` where the first token is that vector.
#[derive(Module, Debug)]
struct Head {
    dense: Option<Linear>,
    classifier: Linear,
}

/// `config.json` of BERT and RoBERTa.
#[derive(Deserialize)]
struct BertJson {
    vocab_size: u32,
    hidden_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    intermediate_size: u32,
    max_position_embeddings: u32,
    type_vocab_size: u32,
    pad_token_id: Option<u32>,
    hidden_act: String,
    #[serde(default = "norm_epsilon")]
    layer_norm_eps: f64,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
}

/// `config.json` of DistilBERT.
#[derive(Deserialize)]
struct DistilBertJson {
    vocab_size: u32,
    dim: u32,
    n_layers: u32,
    n_heads: u32,
    hidden_dim: u32,
    max_position_embeddings: u32,
    pad_token_id: Option<u32>,
    activation: String,
}

/// What the transformers library has for BERT and RoBERTa where `config.json` says nothing, and for DistilBERT always.
fn norm_epsilon() -> f64 {
    1e-12
}

/// What the tensors of a variant are called.
struct Names {
    body: &'static str,
    layer: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    output: &'static str,
    attention_norm: &'static str,
    expand: &'static str,
    contract: &'static str,
    output_norm: &'static str,
    head_dense: &'static str,
    classifier: &'static str,
    /// Tensors that belong to other tasks, or are no weights.
    ignored: &'static [&'static str],
}

impl BertVariant {
    fn names(self) -> Names {
        let bert = Names {
            body: "bert",
            layer: "encoder.layer",
            query: "attention.self.query",
            key: "attention.self.key",
            value: "attention.self.value",
            output: "attention.output.dense",
            attention_norm: "attention.output.LayerNorm",
            expand: "intermediate.dense",
            contract: "output.dense",
            output_norm: "output.LayerNorm",
            head_dense: "pooler.dense",
            classifier: "classifier",
            ignored: &["cls."],
        };
        match self {
            Self::Bert => bert,
            Self::Roberta => Names {
                body: "roberta",
                head_dense: "classifier.dense",
                classifier: "classifier.out_proj",
                ignored: &["lm_head."],
                ..bert
            },
            Self::DistilBert => Names {
                body: "distilbert",
                layer: "transformer.layer",
                query: "attention.q_lin",
                key: "attention.k_lin",
                value: "attention.v_lin",
                output: "attention.out_lin",
                attention_norm: "sa_layer_norm",
                expand: "ffn.lin1",
                contract: "ffn.lin2",
                output_norm: "output_layer_norm",
                head_dense: "pre_classifier",
                classifier: "classifier",
                ignored: &["vocab_"],
            },
        }
    }
}

impl BertConfig {
    /// From a checkpoint's `config.json`.
    pub(crate) fn read(checkpoint: &Checkpoint, loading: &Loading) -> Result<Self, CheckpointError> {
        let classes = loading.classes.unwrap_or_else(|| checkpoint.labels());
        let pooling = loading.pooling;
        let mut config = match checkpoint.architecture() {
            "distilbert" => {
                let json: DistilBertJson = checkpoint.config()?;
                Self {
                    variant: BertVariant::DistilBert,
                    vocabulary: json.vocab_size,
                    width: json.dim,
                    layers: json.n_layers,
                    heads: json.n_heads,
                    mlp: json.hidden_dim,
                    positions: json.max_position_embeddings,
                    token_types: 0,
                    padding: json.pad_token_id.unwrap_or(0),
                    activation: checkpoint.activation("activation", &json.activation)?,
                    norm_epsilon: norm_epsilon(),
                    pooling,
                    classes,
                    length: 0,
                }
            }
            architecture => {
                let json: BertJson = checkpoint.config()?;
                if json.position_embedding_type.is_some_and(|kind| kind != "absolute") {
                    return Err(checkpoint.refuse("positions that are not absolute"));
                }
                if json.is_decoder == Some(true) {
                    return Err(checkpoint.refuse("BERT as a decoder"));
                }
                let variant = if architecture == "bert" { BertVariant::Bert } else { BertVariant::Roberta };
                Self {
                    variant,
                    vocabulary: json.vocab_size,
                    width: json.hidden_size,
                    layers: json.num_hidden_layers,
                    heads: json.num_attention_heads,
                    mlp: json.intermediate_size,
                    positions: json.max_position_embeddings,
                    token_types: json.type_vocab_size,
                    padding: json.pad_token_id.unwrap_or(if variant == BertVariant::Bert { 0 } else { 1 }),
                    activation: checkpoint.activation("hidden_act", &json.hidden_act)?,
                    norm_epsilon: json.layer_norm_eps,
                    pooling,
                    classes,
                    length: 0,
                }
            }
        };
        config.length = checkpoint.length("length", loading.length, config.longest())?;
        config.check().map_err(|reason| checkpoint.refuse(reason))?;
        Ok(config)
    }

    /// Why no such model can be built, if so.
    pub fn check(&self) -> Result<(), String> {
        let Self { vocabulary, width, layers, heads, mlp, classes, length, .. } = *self;
        check_sizes(&[vocabulary, width, layers, heads, mlp, classes, length])?;
        check_layers(layers)?;
        if self.padding >= vocabulary {
            return Err(format!("padding token {} of a vocabulary of {vocabulary}", self.padding));
        }
        if !width.is_multiple_of(heads) {
            return Err(format!("width {width} is no multiple of {heads} heads"));
        }
        if length > self.longest() {
            return Err(format!("{length} tokens where the model has {} positions", self.longest()));
        }
        check_tokens(length)?;
        let tables = u64::from(vocabulary) + u64::from(self.positions) + u64::from(self.token_types);
        let layer = u64::from(layers).saturating_mul(4 * u64::from(width) + 2 * u64::from(mlp));
        check_parameters(u64::from(width).saturating_mul(tables.saturating_add(layer)))
    }

    /// The longest sequence that has positions.
    pub fn longest(&self) -> u32 {
        self.positions.saturating_sub(self.first_position())
    }

    /// A model with weights drawn from `seed`.
    pub fn init(&self, seed: u64, device: &Device) -> Bert {
        Bert::build(self, &mut Parameters::drawn(seed, device))
    }

    fn first_position(&self) -> u32 {
        match self.variant {
            BertVariant::Roberta => self.padding.saturating_add(1),
            BertVariant::Bert | BertVariant::DistilBert => 0,
        }
    }
}

impl Bert {
    /// Asks for every tensor; a classifier that the checkpoint lacks, or has for other classes, is drawn.
    pub(crate) fn build(config: &BertConfig, from: &mut Parameters) -> Self {
        let size = |value: u32| value as usize;
        let (width, mlp, epsilon) = (size(config.width), size(config.mlp), config.norm_epsilon);
        let names = config.variant.names();
        let body = from.prefix(names.body);
        let embeddings = format!("{body}embeddings");
        from.ignore(&format!("{embeddings}.position_ids"));
        names.ignored.iter().for_each(|prefix| from.ignore(prefix));
        let layer = |at| {
            let name = |part| format!("{body}{}.{at}.{part}", names.layer);
            Layer {
                query: from.linear(&name(names.query), width, width),
                key: from.linear(&name(names.key), width, width),
                value: from.linear(&name(names.value), width, width),
                output: from.linear(&name(names.output), width, width),
                attention_norm: from.norm(&name(names.attention_norm), width, epsilon),
                expand: from.linear(&name(names.expand), width, mlp),
                contract: from.linear(&name(names.contract), mlp, width),
                output_norm: from.norm(&name(names.output_norm), width, epsilon),
            }
        };
        let layers = (0..config.layers).map(layer).collect();
        let table =
            |from: &mut Parameters, name: &str, rows| from.embedding(&format!("{embeddings}.{name}"), rows, width);
        Self {
            layers,
            words: table(from, "word_embeddings", size(config.vocabulary)),
            positions: table(from, "position_embeddings", size(config.positions)),
            token_types: (config.token_types > 0)
                .then(|| table(from, "token_type_embeddings", size(config.token_types))),
            embedding_norm: from.norm(&format!("{embeddings}.LayerNorm"), width, epsilon),
            head: Head::build(config, &body, from),
            config: config.clone(),
        }
    }

    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// What the last layer gives for each token, `[batch, tokens, width]`; arbitrary for padding.
    ///
    /// # Panics
    /// When the batch is longer than the model's positions.
    pub fn hidden(&self, batch: &TextBatch, attention: &mut Attention<'_>) -> Tensor<3> {
        let (layers, context) = (0..self.layers.len(), Context::padded(batch.real.clone()));
        layers.fold(self.embed(batch), |x, at| self.layers[at].forward(x, at, &self.config, attention, &context))
    }

    /// What goes into the first layer, `[batch, tokens, width]`.
    pub(crate) fn embed(&self, batch: &TextBatch) -> Tensor<3> {
        let tokens = batch.tokens.dims()[1];
        assert!(tokens <= self.config.longest() as usize, "{tokens} tokens, {} positions", self.config.longest());
        let first = self.config.first_position() as usize;
        let positions = self.positions.weight.val().slice_dim(0, first..first + tokens); // [tokens, width]
        let mut x = self.words.forward(batch.tokens.clone()) + positions.unsqueeze();
        if let Some(table) = &self.token_types {
            x = x + match table.weight.dims() {
                [1, _] => table.weight.val().unsqueeze(), // one type: whatever the tokeniser says
                _ => table.forward(batch.token_types.clone()),
            };
        }
        self.embedding_norm.forward(x)
    }

    /// What layer `at` gives for the tokens that are read of it.
    pub(crate) fn layer(&self, at: usize, x: Tensor<3>, batch: &TextBatch, attention: &mut Attention<'_>) -> Tensor<3> {
        let read = match self.config.pooling {
            Pooling::FirstToken if at + 1 == self.layers.len() => Some(1),
            Pooling::FirstToken | Pooling::Mean => None,
        };
        let context = Context::padded(batch.real.clone()).reading(read);
        self.layers[at].forward(x, at, &self.config, attention, &context)
    }

    /// Class scores `[batch, classes]`.
    pub fn forward(&self, batch: &TextBatch, attention: &mut Attention<'_>) -> Tensor<2> {
        let layers = 0..self.layers.len();
        self.classify(layers.fold(self.embed(batch), |x, at| self.layer(at, x, batch, attention)), batch)
    }

    /// Class scores `[batch, classes]` from what the last layer gives, for all tokens or those that are read.
    pub(crate) fn classify(&self, hidden: Tensor<3>, batch: &TextBatch) -> Tensor<2> {
        let pooled = self.config.pooling.pool(hidden, &batch.real);
        let pooled = match &self.head.dense {
            Some(dense) if self.config.variant == BertVariant::DistilBert => relu(dense.forward(pooled)),
            Some(dense) => dense.forward(pooled).tanh(),
            None => pooled,
        };
        self.head.classifier.forward(pooled)
    }

    /// What a blueprint, a cost model and a kernel need to know.
    pub fn shape(&self, name: &str) -> ModelShape {
        let BertConfig { length: tokens, width, mlp, layers, heads, classes, .. } = self.config;
        let attention = self_attention(heads, tokens, width);
        let module = |layer| ModuleShape { name: format!("layer.{layer}.attention"), shape: attention };
        let mut linears = vec![
            product(tokens, width, width, 4 * layers),
            product(tokens, width, mlp, layers),
            product(tokens, mlp, width, layers),
            product(1, width, classes, 1),
        ];
        if self.head.dense.is_some() {
            linears.push(product(1, width, width, 1));
        }
        // Embeddings are added and normalised; a layer normalises twice, adds twice and activates once.
        let (tokens, width, mlp) = (u64::from(tokens), u64::from(width), u64::from(mlp));
        let elementwise = tokens * (3 * width + u64::from(layers) * (4 * width + mlp));
        let digest = model_digest(&self.config, self);
        ModelShape { name: name.into(), digest, modules: (0..layers).map(module).collect(), linears, elementwise }
    }
}

impl Layer {
    fn forward(
        &self,
        x: Tensor<3>,
        module: usize,
        config: &BertConfig,
        attention: &mut Attention<'_>,
        context: &Context,
    ) -> Tensor<3> {
        let heads = |of: &Linear| split_heads(project(of, x.clone()), config.heads as usize);
        let attended = attention.attend(module, heads(&self.query), heads(&self.key), heads(&self.value), context);
        let x = self.attention_norm.forward(project_onto(&self.output, join_heads(attended), context.read_of(x)));
        let hidden = config.activation.forward(project(&self.expand, x.clone()));
        self.output_norm.forward(project_onto(&self.contract, hidden, x))
    }
}

impl Head {
    fn build(config: &BertConfig, body: &str, from: &mut Parameters) -> Self {
        let names = config.variant.names();
        let (width, classes) = (config.width as usize, config.classes as usize);
        let dense_name = match config.variant {
            BertVariant::Bert => format!("{body}{}", names.head_dense), // the pooler belongs to the body
            BertVariant::DistilBert | BertVariant::Roberta => names.head_dense.into(),
        };
        let dense = match config.pooling {
            Pooling::Mean => {
                from.ignore(&dense_name);
                None
            }
            Pooling::FirstToken => Some(from.classifier(&dense_name, width, width)),
        };
        from.ignore(&format!("{body}pooler.")); // RoBERTa's, which its classifier does not use
        Self { dense, classifier: from.classifier(names.classifier, width, classes) }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Int;
    use maskwright_blueprint::{BlockMask, BlockSize, Blueprint, HeadMask, Precision, Provenance};

    use super::*;
    use crate::CompiledMasks;

    /// Scores, and the gradients of their squares by the last layer's queries, keys and outputs.
    fn run(model: &Bert, scores: Tensor<2>) -> Vec<Tensor<2>> {
        let gradients = scores.clone().powi_scalar(2).sum().backward();
        let Layer { query, key, value, output, expand, .. } = model.layers.last().unwrap();
        let of = |linear: &Linear| linear.weight.val().grad(&gradients);
        // Without attention there is no gradient by queries.
        let gradients = [query, key, value, output, expand].into_iter().filter_map(of);
        [scores.inner()].into_iter().chain(gradients).collect()
    }

    #[test]
    fn the_tokens_that_are_read_of_the_last_layer_are_what_they_are_among_all() {
        let device = Device::flex().autodiff();
        let tokens = Tensor::<1, Int>::arange(0..66, &device).reshape([3, 22]);
        let real: Tensor<2> = Tensor::ones([3, 22], &device).slice_fill([1..2, 9..22], 0.0);
        let batch = TextBatch { token_types: Tensor::zeros([3, 22], &device), real, tokens };
        let small =
            BertConfig { vocabulary: 70, width: 32, layers: 2, heads: 2, mlp: 64, length: 30, ..BertConfig::MINI };
        let model = small.init(5, &device);
        let cells = (0..16).map(|at| (at % 3 != 1).then(|| Precision::ALL[at % 3]));
        let blocks = BlockMask::new(4, cells.collect()).unwrap();
        let masks = vec![vec![HeadMask { block_size: BlockSize::B8, blocks }; 2]; 2];
        let blueprint = Blueprint::new(model.shape("small"), masks, Provenance::default()).unwrap();
        let (compiled, composed) =
            (CompiledMasks::new(&blueprint, &device), CompiledMasks::composed(&blueprint, &device));
        let ways =
            || [Attention::Masked(&compiled), Attention::Masked(&composed), Attention::Dense, Attention::Identity];
        for (at, (mut way, mut same)) in ways().into_iter().zip(ways()).enumerate() {
            let last = (0..2).fold(model.embed(&batch), |x, at| model.layer(at, x, &batch, &mut way));
            assert_eq!(last.dims(), [3, 1, 32]);
            let read = run(&model, model.classify(last, &batch));
            let of_all = run(&model, model.classify(model.hidden(&batch, &mut same), &batch));
            assert_eq!((read.len(), of_all.len()), if at == 3 { (4, 4) } else { (6, 6) });
            for (read, of_all) in read.into_iter().zip(of_all) {
                let size: f32 = of_all.clone().abs().max().into_scalar();
                let furthest: f32 = (read - of_all).abs().max().into_scalar();
                assert!(furthest < 1e-5 * size, "way {at}: {furthest} of {size}");
            }
        }
    }

    #[test]
    fn a_model_that_averages_reads_every_token() {
        let device = Device::flex();
        let small = BertConfig {
            vocabulary: 9,
            width: 16,
            layers: 1,
            heads: 2,
            mlp: 8,
            pooling: Pooling::Mean,
            ..BertConfig::MINI
        };
        let (model, tokens) = (small.init(5, &device), Tensor::ones([2, 7], &device));
        let batch =
            TextBatch { token_types: Tensor::zeros([2, 7], &device), real: Tensor::ones([2, 7], &device), tokens };
        let x = model.embed(&batch);
        assert_eq!(model.layer(0, x, &batch, &mut Attention::Dense).dims(), [2, 7, 16]);
    }
}
