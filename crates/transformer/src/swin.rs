use burn::{
    module::{Module, Param},
    nn::Linear,
    tensor::{Device, Tensor, TensorData},
};
use maskwright_blueprint::{AttentionShape, ModelShape, ModuleShape};
use serde::Deserialize;

use crate::{
    Activation, Attention, Checkpoint, CheckpointError, Loading,
    attention::{Context, EXCLUDED, join_heads, split_heads},
    checkpoint::yes,
    layer_norm::LayerNorm,
    model::{check_image, check_layers, check_parameters, check_sizes, check_tokens},
    model_shape::{model_digest, product, self_attention},
    parameters::Parameters,
    patches::cut_patches,
    projection::{project, project_onto},
};

/// Size of a Swin Transformer (Liu et al. 2021, arXiv 2103.14030): attention inside square windows, shifted by half a
/// window in every other block, with a learned bias for each relative position; between stages four neighbouring tokens
/// become one of twice the width.
#[derive(Debug, Clone, PartialEq)]
pub struct SwinConfig {
    /// Pixels of an image's side; a multiple of `patch`.
    pub side: u32,
    pub patch: u32,
    pub channels: u32,
    /// Width of a token in the first stage; each stage doubles it.
    pub width: u32,
    /// Blocks of each stage.
    pub depths: Vec<u32>,
    /// Heads of each stage.
    pub heads: Vec<u32>,
    /// Tokens along a window's side; every stage's grid is a multiple of it.
    pub window: u32,
    /// Width inside the feed-forward part, as a multiple of the token's.
    pub mlp_ratio: f64,
    pub activation: Activation,
    pub norm_epsilon: f64,
    /// Whether queries, keys and values have biases.
    pub query_key_value_bias: bool,
    pub classes: u32,
}

/// One stage's sizes.
#[derive(Debug, Clone, Copy)]
struct StageSize {
    /// Tokens along the side of the stage's grid.
    grid: u32,
    width: u32,
    mlp: u32,
    depth: u32,
    heads: u32,
}

/// A Swin Transformer with a classifier.
#[derive(Module, Debug)]
pub struct Swin {
    projection: Linear,
    embedding_norm: LayerNorm,
    stages: Vec<Stage>,
    norm: LayerNorm,
    classifier: Linear,
    #[module(skip)]
    config: SwinConfig,
}

#[derive(Module, Debug)]
struct Stage {
    blocks: Vec<Block>,
    merging: Option<Merging>,
}

#[derive(Module, Debug)]
struct Block {
    attention_norm: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    /// `[(2 window - 1)^2, heads]`: a bias for each distance between query and key.
    relative_positions: Param<Tensor<2>>,
    output: Linear,
    mlp_norm: LayerNorm,
    expand: Linear,
    contract: Linear,
}

/// Four neighbouring tokens side by side, normalised, then projected to twice the width.
#[derive(Module, Debug)]
struct Merging {
    norm: LayerNorm,
    reduction: Linear,
}

#[derive(Deserialize)]
struct SwinJson {
    image_size: u32,
    patch_size: u32,
    num_channels: u32,
    embed_dim: u32,
    depths: Vec<u32>,
    num_heads: Vec<u32>,
    window_size: u32,
    mlp_ratio: f64,
    hidden_act: String,
    #[serde(default = "norm_epsilon")]
    layer_norm_eps: f64,
    #[serde(default = "yes")]
    qkv_bias: bool,
    #[serde(default)]
    use_absolute_embeddings: bool,
}

/// What the transformers library has for Swin where `config.json` says nothing.
fn norm_epsilon() -> f64 {
    1e-5
}

/// More stages than any published model has; widths double with each.
const MOST_STAGES: usize = 6;

impl SwinConfig {
    /// From a checkpoint's `config.json`.
    pub(crate) fn read(checkpoint: &Checkpoint, loading: &Loading) -> Result<Self, CheckpointError> {
        let json: SwinJson = checkpoint.config()?;
        if json.use_absolute_embeddings {
            return Err(checkpoint.refuse("absolute positions in Swin"));
        }
        let config = Self {
            side: json.image_size,
            patch: json.patch_size,
            channels: json.num_channels,
            width: json.embed_dim,
            depths: json.depths,
            heads: json.num_heads,
            window: json.window_size,
            mlp_ratio: json.mlp_ratio,
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
        let Self { side, patch, channels, width, window, classes, .. } = *self;
        check_sizes(&[side, patch, channels, width, window, classes])?;
        check_sizes(&self.depths)?;
        check_sizes(&self.heads)?;
        check_image(side, patch)?;
        check_tokens(window.saturating_pow(2))?;
        if self.depths.is_empty() || self.depths.len() > MOST_STAGES || self.depths.len() != self.heads.len() {
            let (depths, heads) = (self.depths.len(), self.heads.len());
            return Err(format!(
                "{depths} depths and {heads} numbers of heads; both are one for each of 1 to {MOST_STAGES} stages"
            ));
        }
        check_layers(self.depths.iter().sum())?;
        if !(self.mlp_ratio > 0.0 && self.mlp_ratio <= 64.0) {
            return Err(format!("an mlp_ratio of {}", self.mlp_ratio));
        }
        let mut grid = side / patch;
        let mut parameters = u64::from(width) * u64::from(patch).pow(2) * u64::from(channels);
        for (at, stage) in self.stages().enumerate() {
            if at > 0 && !grid.is_multiple_of(2) {
                return Err(format!("a grid of {grid} x {grid} tokens, which cannot be halved"));
            }
            grid = stage.grid;
            if grid == 0 || !grid.is_multiple_of(window) {
                return Err(format!(
                    "a grid of {grid} x {grid} tokens, which windows of {window} x {window} do not tile"
                ));
            }
            if !stage.width.is_multiple_of(stage.heads) {
                return Err(format!("width {} is no multiple of {} heads", stage.width, stage.heads));
            }
            let width = u64::from(stage.width);
            let block = (12 * width).saturating_add(2 * u64::from(stage.mlp)).saturating_mul(width);
            parameters = parameters.saturating_add(block.saturating_mul(stage.depth.into()));
        }
        check_parameters(parameters)
    }

    /// A model with weights drawn from `seed`.
    pub fn init(&self, seed: u64, device: &Device) -> Swin {
        Swin::build(self, &mut Parameters::drawn(seed, device))
    }

    fn stages(&self) -> impl Iterator<Item = StageSize> + '_ {
        self.depths.iter().zip(&self.heads).enumerate().map(|(at, (&depth, &heads))| {
            let width = self.width.saturating_mul(1 << at);
            let mlp = (self.mlp_ratio * f64::from(width)) as u32;
            StageSize { grid: (self.side / self.patch) >> at, width, mlp, depth, heads }
        })
    }

    /// By how many tokens the windows of a stage's `block`-th block are shifted. A grid of one window is not.
    fn shift(&self, stage: StageSize, block: usize) -> usize {
        let shifted = block % 2 == 1 && stage.grid > self.window;
        if shifted { self.window as usize / 2 } else { 0 }
    }
}

impl Swin {
    /// Asks for every tensor; a classifier that the checkpoint lacks, or has for other classes, is drawn.
    pub(crate) fn build(config: &SwinConfig, from: &mut Parameters) -> Self {
        let size = |value: u32| value as usize;
        let body = from.prefix("swin");
        let epsilon = config.norm_epsilon;
        from.ignore(&format!("{body}embeddings.mask_token"));
        from.ignore("decoder."); // of masked image modelling
        let stages: Vec<StageSize> = config.stages().collect();
        let block = |from: &mut Parameters, stage: StageSize, name: String| {
            let (width, mlp) = (size(stage.width), size(stage.mlp));
            let name = |part: &str| format!("{name}.{part}");
            from.ignore(&name("attention.self.relative_position_index"));
            let input = |from: &mut Parameters, part| match config.query_key_value_bias {
                true => from.linear(&name(part), width, width),
                false => from.linear_without_bias(&name(part), width, width),
            };
            let distances = (2 * size(config.window) - 1).pow(2);
            Block {
                attention_norm: from.norm(&name("layernorm_before"), width, epsilon),
                query: input(from, "attention.self.query"),
                key: input(from, "attention.self.key"),
                value: input(from, "attention.self.value"),
                relative_positions: from
                    .table(&name("attention.self.relative_position_bias_table"), [distances, size(stage.heads)]),
                output: from.linear(&name("attention.output.dense"), width, width),
                mlp_norm: from.norm(&name("layernorm_after"), width, epsilon),
                expand: from.linear(&name("intermediate.dense"), width, mlp),
                contract: from.linear(&name("output.dense"), mlp, width),
            }
        };
        let stage = |(at, &stage): (usize, &StageSize)| {
            let (name, width) = (format!("{body}encoder.layers.{at}"), size(stage.width));
            let blocks = (0..stage.depth).map(|number| block(from, stage, format!("{name}.blocks.{number}"))).collect();
            let merging = (at + 1 < stages.len()).then(|| Merging {
                norm: from.norm(&format!("{name}.downsample.norm"), 4 * width, epsilon),
                reduction: from.linear_without_bias(&format!("{name}.downsample.reduction"), 4 * width, 2 * width),
            });
            Stage { blocks, merging }
        };
        let built = stages.iter().enumerate().map(stage).collect();
        let (channels, patch, width) = (size(config.channels), size(config.patch), size(config.width));
        let last_width = width << (stages.len() - 1);
        let embeddings = format!("{body}embeddings");
        Self {
            stages: built,
            projection: from
                .patches(&format!("{embeddings}.patch_embeddings.projection"), [width, channels, patch, patch]),
            embedding_norm: from.norm(&format!("{embeddings}.norm"), width, epsilon),
            norm: from.norm(&format!("{body}layernorm"), last_width, epsilon),
            classifier: from.classifier("classifier", last_width, size(config.classes)),
            config: config.clone(),
        }
    }

    pub fn config(&self) -> &SwinConfig {
        &self.config
    }

    /// What the last stage gives for each of its tokens, normalised: `[batch, tokens, width]`; images are
    /// `[batch, channels, side, side]`.
    pub fn hidden(&self, images: Tensor<4>, attention: &mut Attention<'_>) -> Tensor<3> {
        let blocks = 0..self.blocks();
        self.norm.forward(blocks.fold(self.embed(images), |x, at| self.block(at, x, attention)))
    }

    /// What goes into the first block, `[batch, tokens, width]`.
    pub(crate) fn embed(&self, images: Tensor<4>) -> Tensor<3> {
        let patches = cut_patches(images, self.config.patch as usize);
        self.embedding_norm.forward(project(&self.projection, patches))
    }

    /// Blocks of all stages.
    pub(crate) fn blocks(&self) -> usize {
        self.stages.iter().map(|stage| stage.blocks.len()).sum()
    }

    /// The `module`-th block of all stages, with the merging behind it at a stage's end.
    pub(crate) fn block(&self, module: usize, x: Tensor<3>, attention: &mut Attention<'_>) -> Tensor<3> {
        let places = self.stages.iter().zip(self.config.stages());
        let mut places = places.flat_map(|(stage, size)| (0..stage.blocks.len()).map(move |at| (stage, size, at)));
        let (stage, size, at) = places.nth(module).expect("one of the model's blocks");
        let (grid, window) = (size.grid as usize, self.config.window as usize);
        let windows = Windows { grid, window, shift: self.config.shift(size, at) };
        let block = &stage.blocks[at];
        let x = block.forward(x, module, size.heads as usize, &windows, self.config.activation, attention);
        match &stage.merging {
            Some(merging) if at + 1 == stage.blocks.len() => merging.forward(x, grid),
            _ => x,
        }
    }

    /// Class scores `[batch, classes]` from what the last block gives.
    pub(crate) fn classify(&self, x: Tensor<3>) -> Tensor<2> {
        self.classifier.forward(self.norm.forward(x).mean_dim(1).squeeze_dim(1))
    }

    /// What a blueprint, a cost model and a kernel need to know. A module's windows share the masks.
    pub fn shape(&self, name: &str) -> ModelShape {
        let config = &self.config;
        let window = config.window.pow(2);
        let patches = (config.side / config.patch).pow(2);
        let mut linears = vec![product(patches, config.patch.pow(2) * config.channels, config.width, 1)];
        let (mut modules, mut elementwise) = (Vec::new(), u64::from(patches * config.width));
        for (at, stage) in config.stages().enumerate() {
            let StageSize { grid, width, mlp, depth, heads } = stage;
            let windows = (grid / config.window).pow(2);
            let shape = AttentionShape { windows, ..self_attention(heads, window, width) };
            modules.extend(
                (0..depth).map(|block| ModuleShape { name: format!("stage.{at}.block.{block}.attention"), shape }),
            );
            let tokens = grid.pow(2);
            linears.push(product(tokens, width, width, 4 * depth));
            linears.push(product(tokens, width, mlp, depth));
            linears.push(product(tokens, mlp, width, depth));
            if at + 1 < config.depths.len() {
                linears.push(product(tokens / 4, 4 * width, 2 * width, 1));
            }
            // A block normalises twice, adds twice and activates once; merging or the end normalises once more.
            let per_token = u64::from(depth) * (4 * u64::from(width) + u64::from(mlp)) + u64::from(width);
            elementwise += u64::from(tokens) * per_token;
        }
        let last_width = config.width << (config.depths.len() - 1);
        linears.push(product(1, last_width, config.classes, 1));
        let digest = model_digest(config, self);
        ModelShape { name: name.into(), digest, modules, linears, elementwise }
    }
}

impl Block {
    fn forward(
        &self,
        x: Tensor<3>,
        module: usize,
        heads: usize,
        windows: &Windows,
        activation: Activation,
        attention: &mut Attention<'_>,
    ) -> Tensor<3> {
        let batch = x.dims()[0];
        let cut = windows.cut(self.attention_norm.forward(x.clone())); // [batch * windows, window^2, width]
        let input = |of: &Linear| split_heads(project(of, cut.clone()), heads);
        let (q, k, v) = (input(&self.query), input(&self.key), input(&self.value));
        let bias = windows.relative(self.relative_positions.val());
        let bias = match windows.excluded(batch, &x.device()) {
            Some(excluded) => bias + excluded,
            None => bias,
        };
        let context = Context { bias: Some(bias), ..Context::default() };
        let attended = join_heads(attention.attend(module, q, k, v, &context));
        let x = x + windows.join(project(&self.output, attended));
        let hidden = activation.forward(project(&self.expand, self.mlp_norm.forward(x.clone())));
        project_onto(&self.contract, hidden, x)
    }
}

impl Merging {
    /// `[batch, grid^2, width]` to `[batch, grid^2 / 4, 2 width]`.
    fn forward(&self, x: Tensor<3>, grid: usize) -> Tensor<3> {
        let [batch, _, width] = x.dims();
        let half = grid / 2;
        let x: Tensor<6> = x.reshape([batch, half, 2, half, 2, width]).permute([0, 1, 3, 4, 2, 5]); // [.., x, y, width]
        project(&self.reduction, self.norm.forward(x.reshape([batch, half * half, 4 * width])))
    }
}

/// How a grid of tokens is cut into windows.
struct Windows {
    /// Tokens along the grid's side.
    grid: usize,
    /// Tokens along a window's side.
    window: usize,
    /// By how many tokens the grid is rolled up and left before it is cut.
    shift: usize,
}

impl Windows {
    fn across(&self) -> usize {
        self.grid / self.window
    }

    /// `[batch, grid^2, width]` to `[batch * windows, window^2, width]`.
    fn cut(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, _, width] = x.dims();
        let (across, window) = (self.across(), self.window);
        let mut grid: Tensor<4> = x.reshape([batch, self.grid, self.grid, width]);
        if self.shift > 0 {
            let back = -(self.shift as i64);
            grid = grid.roll(&[back, back], &[1, 2]);
        }
        let cut: Tensor<6> = grid.reshape([batch, across, window, across, window, width]).permute([0, 1, 3, 2, 4, 5]);
        cut.reshape([batch * across * across, window * window, width])
    }

    /// The inverse of [`Windows::cut`].
    fn join(&self, x: Tensor<3>) -> Tensor<3> {
        let (across, window) = (self.across(), self.window);
        let [cut, _, width] = x.dims();
        let batch = cut / (across * across);
        let grid: Tensor<6> = x.reshape([batch, across, across, window, window, width]).permute([0, 1, 3, 2, 4, 5]);
        let mut grid: Tensor<4> = grid.reshape([batch, self.grid, self.grid, width]);
        if self.shift > 0 {
            let forth = self.shift as i64;
            grid = grid.roll(&[forth, forth], &[1, 2]);
        }
        grid.reshape([batch, self.grid * self.grid, width])
    }

    /// A table's bias for each query and key of a window: `[1, heads, window^2, window^2]`.
    fn relative(&self, table: Tensor<2>) -> Tensor<4> {
        let (window, heads) = (self.window, table.dims()[1]);
        let tokens = window * window;
        let distance = |query: usize, key: usize| query + window - 1 - key; // 0 to 2 window - 2
        let row = |query: usize, key: usize| {
            let (down, right) = (distance(query / window, key / window), distance(query % window, key % window));
            (down * (2 * window - 1) + right) as i32
        };
        let rows: Vec<i32> = (0..tokens).flat_map(|query| (0..tokens).map(move |key| row(query, key))).collect();
        let rows = Tensor::from_data(TensorData::new(rows, [tokens * tokens]), &table.device());
        table.select(0, rows).reshape([tokens, tokens, heads]).permute([2, 0, 1]).unsqueeze()
    }

    /// After a shift, the windows at the lower and right edge hold tokens from opposite edges of the image, which must
    /// not attend to each other: `[batch * windows, 1, window^2, window^2]`, 0 or [`EXCLUDED`].
    fn excluded(&self, batch: usize, device: &Device) -> Option<Tensor<4>> {
        if self.shift == 0 {
            return None;
        }
        let (across, window) = (self.across(), self.window);
        let tokens = window * window;
        // Rows (and columns) of the rolled grid that came from the upper (left) edge.
        let wrapped = |at: usize| at >= self.grid - self.shift;
        let region = |of_window: usize, token: usize| {
            let row = of_window / across * window + token / window;
            let column = of_window % across * window + token % window;
            (wrapped(row), wrapped(column))
        };
        let mut values = Vec::with_capacity(across * across * tokens * tokens);
        for at in 0..across * across {
            for query in 0..tokens {
                let apart = |key| region(at, query) != region(at, key);
                values.extend((0..tokens).map(|key| if apart(key) { EXCLUDED } else { 0.0 }));
            }
        }
        let data = TensorData::new(values, [across * across, 1, tokens, tokens]);
        Some(Tensor::<4>::from_data(data, device).repeat_dim(0, batch))
    }
}
