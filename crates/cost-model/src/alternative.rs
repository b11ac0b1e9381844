use std::sync::Arc;

use maskwright_blueprint::{AttentionKind, AttentionShape, BlockMask, BlockSize, HeadMask, Precision};
use serde::{Deserialize, Serialize};

use crate::{Cost, CostError, CostModel, HeadCost, HeadWork, ModuleWork, Softmax, Work, work::check_grid};

/// Another way of saving attention, so that a blueprint can be compared with what it replaces.
///
/// Costs are those of attention in every layer of a stack, at equal shape and precision; accuracy is another matter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Alternative {
    /// Every score, in every layer.
    Dense,
    /// Keys within `window` tokens on either side.
    Local { window: u32 },
    /// A local window of `stride` tokens, and every `stride`-th key (Sparse Transformer, arXiv 1904.10509).
    Strided { stride: u32 },
    /// A local window, the first `global` tokens as rows and columns, `random` blocks a row (BigBird, arXiv 2007.14062).
    BigBird { window: u32, global: u32, random: u32 },
    /// K and V projected to `rank` tokens: `O(N k)` (Linformer, arXiv 2006.04768).
    Linformer { rank: u32 },
    /// Softmax by `features` random features: `O(N m d)` (Performer, arXiv 2009.14794).
    Performer { features: u32 },
    /// Every layer passes on this share of its tokens, in (0, 1] (as SpAtten, arXiv 2012.09852, prunes).
    TokenPruning { kept: f64 },
    /// Share of examples that leave after each layer; the rest leave after the last. The cost is the expected one
    /// (DeeBERT, arXiv 2004.12993).
    EarlyExit { leaving: Vec<f64> },
    /// Scores from one-bit queries and keys by XNOR and popcount (BiT, arXiv 2205.13016).
    BinaryScores,
    /// Scores from queries and keys in {-1, 0, 1}: two bit planes.
    TernaryScores,
    /// Scores from queries and keys projected to `rank` elements.
    LowRank { rank: u32 },
    /// A recurrence with `state` elements a channel instead of attention: `O(N)` (Mamba, arXiv 2312.00752).
    StateSpace { state: u32 },
    /// This share of the layers attends, the others convolve each channel over `kernel` tokens (ConvBERT, arXiv 2008.02496).
    HybridConvolution { attending: f64, kernel: u32 },
}

/// Blocks of the sparse patterns.
const PATTERN_BLOCK: BlockSize = BlockSize::B32;

/// Longer stacks and busier patterns are refused: nothing that a stranger asks for takes unbounded time.
const MOST_LAYERS: u32 = 4096;
const MOST_RANDOM_BLOCKS: u32 = 256;

/// One 8-bit MAC's time and energy buys this many one-bit products: its bits.
const BITS_PER_BYTE: f64 = 8.0;

/// Operations of a state-space recurrence for each state element: decay, input, output.
const STATE_OPERATIONS: f64 = 3.0;

impl Alternative {
    /// The family at the settings of its papers, for a stack of `layers` layers.
    pub fn family(layers: u32) -> Vec<Self> {
        // A twelfth of the examples leaves after each layer of twelve: half of the layers on average.
        let leaving = vec![1.0 / f64::from(layers.max(1)); layers.saturating_sub(1) as usize];
        vec![
            Self::Dense,
            Self::Local { window: 64 },
            Self::Strided { stride: 64 },
            Self::BigBird { window: 96, global: 64, random: 3 },
            Self::Linformer { rank: 256 },
            Self::Performer { features: 256 },
            Self::TokenPruning { kept: 0.9 },
            Self::EarlyExit { leaving },
            Self::BinaryScores,
            Self::TernaryScores,
            Self::LowRank { rank: 16 },
            Self::StateSpace { state: 16 },
            Self::HybridConvolution { attending: 0.5, kernel: 9 },
        ]
    }

    /// For tables: what it is and its settings.
    pub fn name(&self) -> String {
        match self {
            Self::Dense => "dense".into(),
            Self::Local { window } => format!("local, window {window}"),
            Self::Strided { stride } => format!("strided, stride {stride}"),
            Self::BigBird { window, global, random } => {
                format!("BigBird, window {window}, global {global}, random {random}")
            }
            Self::Linformer { rank } => format!("Linformer, rank {rank}"),
            Self::Performer { features } => format!("Performer, {features} features"),
            Self::TokenPruning { kept } => format!("token pruning, {kept} kept a layer"),
            Self::EarlyExit { leaving } => {
                let layers = leaving.len() + 1;
                format!("early exit, {:.1} of {layers} layers expected", expected_layers(leaving, layers))
            }
            Self::BinaryScores => "binary scores".into(),
            Self::TernaryScores => "ternary scores".into(),
            Self::LowRank { rank } => format!("low-rank scores, rank {rank}"),
            Self::StateSpace { state } => format!("state space, state {state}"),
            Self::HybridConvolution { attending, kernel } => {
                format!("hybrid, {attending} attending, convolution over {kernel}")
            }
        }
    }

    fn check(&self) -> Result<(), CostError> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let sound = match self {
            Self::Dense | Self::BinaryScores | Self::TernaryScores => true,
            Self::Local { window: size } | Self::Strided { stride: size } => *size > 0,
            Self::BigBird { window, random, .. } => *window > 0 && *random <= MOST_RANDOM_BLOCKS,
            Self::Linformer { rank: size }
            | Self::Performer { features: size }
            | Self::LowRank { rank: size }
            | Self::StateSpace { state: size } => *size > 0,
            Self::TokenPruning { kept } => share(*kept) && *kept > 0.0,
            Self::EarlyExit { leaving } => {
                leaving.iter().copied().all(share) && leaving.iter().sum::<f64>() <= 1.0 + 1e-9
            }
            Self::HybridConvolution { attending, kernel } => share(*attending) && *kernel > 0,
        };
        if sound { Ok(()) } else { Err(CostError::Alternative { name: self.name() }) }
    }
}

impl CostModel {
    /// What `layers` attention modules of one shape cost, done this way.
    pub fn alternative(
        &self,
        alternative: &Alternative,
        shape: &AttentionShape,
        layers: u32,
        precision: Precision,
    ) -> Result<Cost, CostError> {
        alternative.check()?;
        if layers == 0 || layers > MOST_LAYERS {
            return Err(CostError::Shape {
                what: "the number of layers",
                found: layers.into(),
                limit: MOST_LAYERS.into(),
            });
        }
        // Refuses shapes and precisions before anything is multiplied with them.
        let whole = Work::bare(shape, PATTERN_BLOCK, precision)?;
        let scores =
            whole.modules.iter().flat_map(|module| &module.heads).map(|head| head.active_scores()).sum::<u64>() as f64;
        let dense = self.layer(&whole)?;
        let stack = |layer: HeadCost, layers: f64| self.total([layer.times(layers)]);
        let every = f64::from(layers);
        let (heads, queries, keys) = (f64::from(shape.heads), f64::from(shape.queries), f64::from(shape.keys));
        let dim = f64::from(shape.head_dim);
        let width = f64::from(precision.bytes());
        // Q, K, V and O once.
        let operands = heads * 2.0 * (queries + keys) * dim * width;
        let float = self.softmax_lane_cycles();
        let module = self.module(shape, Softmax::Float);
        let fused =
            |macs: f64, lane_cycles: f64, bytes: f64| module + self.roofline(macs, precision, lane_cycles, bytes);
        Ok(match alternative {
            Alternative::Dense => stack(dense, every),
            Alternative::Local { .. } | Alternative::Strided { .. } | Alternative::BigBird { .. } => {
                let pattern = pattern(shape, precision, |row, column| alternative.has_block(row, column, shape))?;
                stack(self.layer(&pattern)?, every)
            }
            Alternative::Linformer { rank } => {
                let keys = (*rank).min(shape.keys);
                let short = AttentionShape { kind: AttentionKind::CrossAttention, keys, ..*shape };
                let attention = self.layer(&Work::bare(&short, PATTERN_BLOCK, precision)?)?;
                let rank = f64::from(keys);
                let projections = 2.0 * heads * rank * f64::from(shape.keys);
                let bytes = heads * 2.0 * f64::from(shape.keys) * (dim + rank) * width;
                stack(attention + self.roofline(projections * dim, precision, 0.0, bytes), every)
            }
            Alternative::Performer { features } => {
                let features = f64::from(*features);
                let macs = heads * 2.0 * (queries + keys) * dim * features;
                stack(fused(macs, heads * (queries + keys) * features * float, operands), every)
            }
            Alternative::TokenPruning { kept } => {
                let mut sum = HeadCost::default();
                for layer in 0..layers {
                    let share = kept.powi(layer as i32);
                    let left = |tokens: u32| ((f64::from(tokens) * share).ceil() as u32).max(1);
                    let shape = AttentionShape { queries: left(shape.queries), keys: left(shape.keys), ..*shape };
                    sum = sum + self.layer(&Work::bare(&shape, PATTERN_BLOCK, precision)?)?;
                }
                self.total([sum])
            }
            Alternative::EarlyExit { leaving } => stack(dense, expected_layers(leaving, layers as usize)),
            Alternative::BinaryScores | Alternative::TernaryScores => {
                let planes = if *alternative == Alternative::BinaryScores { 1.0 } else { 2.0 };
                let products = scores * dim;
                // Bits take the place of the bytes of one operand.
                let macs = products * (1.0 + planes / (BITS_PER_BYTE * width));
                let saved = heads * (queries + keys) * dim * (width - planes / BITS_PER_BYTE);
                stack(fused(macs, scores * float, operands - saved), every)
            }
            Alternative::LowRank { rank } => {
                let rank = f64::from(*rank).min(dim);
                let macs = heads * (queries + keys) * dim * rank + scores * (rank + dim);
                stack(fused(macs, scores * float, operands), every)
            }
            Alternative::StateSpace { state } => {
                let updates = heads * queries * dim * f64::from(*state) * STATE_OPERATIONS;
                stack(module + self.macs_on_lanes(precision, updates, operands), every)
            }
            Alternative::HybridConvolution { attending, kernel } => {
                let taps = heads * queries * dim * f64::from(*kernel);
                let bytes = heads * 2.0 * queries * dim * width;
                let convolution = module + self.macs_on_lanes(precision, taps, bytes);
                self.total([dense.times(every * attending), convolution.times(every * (1.0 - attending))])
            }
        })
    }
}

/// One module whose heads all have the blocks that are `active`.
fn pattern(shape: &AttentionShape, precision: Precision, active: impl Fn(u32, u32) -> bool) -> Result<Work, CostError> {
    check_grid(shape, PATTERN_BLOCK)?;
    let (rows, columns) = (PATTERN_BLOCK.cover(shape.queries), PATTERN_BLOCK.cover(shape.keys));
    let cells = (0..rows)
        .flat_map(|row| (0..columns).map(move |column| (row, column)))
        .map(|(row, column)| active(row, column).then_some(precision))
        .collect();
    let blocks = BlockMask::new(columns as usize, cells).expect("every pattern keeps a block of every row");
    let head = Arc::new(HeadWork::of(&HeadMask { block_size: PATTERN_BLOCK, blocks }, shape));
    let heads = vec![head; shape.heads as usize];
    let module = ModuleWork { name: "attention".into(), shape: *shape, softmax: Softmax::Float, heads };
    Ok(Work { modules: vec![module], linears: vec![], elementwise: 0 })
}

impl Alternative {
    /// Whether a sparse pattern has a block; the diagonal always is one of them.
    fn has_block(&self, row: u32, column: u32, shape: &AttentionShape) -> bool {
        let tokens = PATTERN_BLOCK.tokens();
        let diagonal = (u64::from(row) * u64::from(shape.keys) / u64::from(shape.queries)) as u32;
        let diagonal = diagonal.min(PATTERN_BLOCK.cover(shape.keys) - 1);
        // Tokens between the nearest edges of two blocks.
        let apart = (column.abs_diff(diagonal)).saturating_sub(1) * tokens;
        let near = |window: u32| column == diagonal || apart < window;
        match *self {
            Self::Local { window } => near(window),
            Self::Strided { stride } => {
                near(stride) || (column * tokens).div_ceil(stride) * stride < (column + 1) * tokens
            }
            Self::BigBird { window, global, random } => {
                let first = global.div_ceil(tokens);
                // Fixed pseudo-random blocks: the same picture in every run.
                let drawn = (0..random).any(|draw| scatter(row, draw) % PATTERN_BLOCK.cover(shape.keys) == column);
                near(window) || row < first || column < first || drawn
            }
            _ => true,
        }
    }
}

/// A fixed hash of two numbers (Knuth's multiplicative constants).
fn scatter(row: u32, draw: u32) -> u32 {
    let mixed = (row.wrapping_mul(2_654_435_761)) ^ (draw.wrapping_add(1).wrapping_mul(2_246_822_519));
    (mixed ^ (mixed >> 15)).wrapping_mul(3_266_489_917) >> 8
}

/// Layers that an example passes on average when shares of all examples leave after each.
fn expected_layers(leaving: &[f64], layers: usize) -> f64 {
    let mut staying = 1.0;
    let mut expected = 0.0;
    for layer in 0..layers {
        expected += staying;
        staying -= leaving.get(layer).copied().unwrap_or(0.0);
    }
    expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twelfth_leaving_after_each_of_twelve_layers_passes_half_of_them() {
        // 12 + 11 + ... + 1 twelfths.
        assert!((expected_layers(&[1.0 / 12.0; 11], 12) - 6.5).abs() < 1e-12);
        assert_eq!(expected_layers(&[], 12), 12.0);
    }

    #[test]
    fn a_local_window_of_64_tokens_reaches_two_blocks_of_32_to_either_side_and_its_edges() {
        let shape = AttentionShape {
            kind: AttentionKind::SelfAttention,
            heads: 1,
            queries: 512,
            keys: 512,
            head_dim: 8,
            windows: 1,
        };
        let local = Alternative::Local { window: 64 };
        let row: Vec<u32> = (0..16).filter(|column| local.has_block(8, *column, &shape)).collect();
        assert_eq!(row, [6, 7, 8, 9, 10]);
    }
}
