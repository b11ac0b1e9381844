//! BERT-mini with random weights, and what is timed of it.

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Distribution, Tensor},
};
use maskwright_blueprint::{BlockMask, BlockSize, Blueprint, HeadMask, Precision, Provenance};
use maskwright_transformer::{Attention, Bert, BertConfig, CompiledMasks, Targets, TextBatch, adamw, cross_entropy};
use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};

/// How attention is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Every score, by burn's operations.
    Dense,
    /// Every score, block by block.
    Whole,
    /// Masked and fake-quantised, put together from tensor operations.
    Composed,
    /// Masked and quantised, block by block.
    Blocks,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Dense, Self::Whole, Self::Composed, Self::Blocks];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Whole => "whole",
            Self::Composed => "composed",
            Self::Blocks => "blocks",
        }
    }
}

const BATCH: usize = 32;
const CONFIG: BertConfig = BertConfig::MINI;

/// Blocks of 16 at density .3, four in ten of them in 8 bit, four in 16 bit, two in single precision.
fn blueprint(model: &Bert) -> Blueprint {
    use Precision::{Half, Int8, Single};
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let shape = model.shape("bert-mini");
    let blocks = 128 / 16;
    let others = (0.3 * (blocks * blocks) as f64 - blocks as f64) / (blocks * (blocks - 1)) as f64;
    let mut mask = || {
        let cells = (0..blocks * blocks).map(|at| {
            let active = at % (blocks + 1) == 0 || rng.random_bool(others);
            active.then(|| [Int8, Int8, Half, Half, Single][rng.random_range(0..5)])
        });
        let blocks = BlockMask::new(blocks, cells.collect()).expect("the diagonal is active");
        HeadMask { block_size: BlockSize::B16, blocks }
    };
    let masks = (0..CONFIG.layers).map(|_| (0..CONFIG.heads).map(|_| mask()).collect()).collect();
    Blueprint::new(shape, masks, Provenance::default()).expect("the masks fit")
}

fn masks(way: Way, blueprint: &Blueprint, device: &Device) -> Option<CompiledMasks> {
    match way {
        Way::Dense => None,
        Way::Whole => Some(CompiledMasks::dense(&blueprint.model().modules, device)),
        Way::Composed => Some(CompiledMasks::composed(blueprint, device)),
        Way::Blocks => Some(CompiledMasks::new(blueprint, device)),
    }
}

fn batch(device: &Device) -> TextBatch {
    let tokens = Tensor::<2>::random([BATCH, 128], Distribution::Uniform(0.0, 30_000.0), device).int();
    TextBatch { token_types: Tensor::zeros([BATCH, 128], device), real: Tensor::ones([BATCH, 128], device), tokens }
}

fn attention(masks: &Option<CompiledMasks>) -> Attention<'_> {
    masks.as_ref().map_or(Attention::Dense, Attention::Masked)
}

/// One forward pass over the batch.
pub fn forward(way: Way, device: Device) -> impl FnMut() {
    let model = CONFIG.init(7, &device);
    let masks = masks(way, &blueprint(&model), &device);
    let batch = batch(&device);
    move || {
        model.forward(&batch, &mut attention(&masks)).into_data();
    }
}

/// One training step: forward, backward, AdamW.
pub fn train(way: Way, device: Device) -> impl FnMut() {
    let device = device.autodiff();
    let model = CONFIG.init(7, &device);
    let masks = masks(way, &blueprint(&model), &device);
    let batch = batch(&device);
    let labels = [0, 1].repeat(BATCH / 2);
    let mut optimiser = adamw(1e-4, None, &device);
    let mut model = Some(model.train());
    move || {
        let now = model.take().expect("every step leaves a model");
        let scores = now.forward(&batch, &mut attention(&masks));
        let gradients =
            GradientsParams::from_grads(cross_entropy(scores, Targets::labels(labels.clone())).backward(), &now);
        model = Some(optimiser.step(1e-5, now, gradients));
    }
}
