//! Which blocks are computed more finely than the mask asks, because that is faster.
//!
//! A row begins a run for each of its precisions, and a head packs its numbers for each. One 8-bit block beside 16-bit ones
//! costs less as one more of those. What a mask says of a block is therefore the least that is done for it.

use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, HeadMask, Precision};

use crate::{Kernel, PlanOptions};

/// Whether blocks may be computed at a finer precision than the mask says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Promotion {
    /// Where that is faster on the kernel at hand. 8-bit blocks under an integer softmax stay what they are.
    #[default]
    WhereFaster,
    /// Every block as the mask says.
    Never,
}

/// What becomes of the blocks of each precision in one row.
pub(crate) type Promoted = [Precision; 3];

/// Nothing.
pub(crate) const AS_MASKED: Promoted = Precision::ALL;

/// Cycles that a kernel takes on the CPU that it was tuned on, as `maskwright device calibrate` fits them. Elsewhere they
/// keep their ratios more or less, which is all that a choice needs. By precision: [`Precision::ALL`].
struct Rates {
    /// Both products, for each query, key and feature.
    product: [f64; 3],
    /// Softmax, for each query and key.
    softmax: [f64; 3],
    /// Finding and addressing a block, for each tile of queries.
    block: f64,
    /// Beginning a run, for each tile. What a tile takes whatever its runs are does not matter here.
    run: f64,
    /// Packing a number.
    pack: [f64; 3],
    /// For each query, a word of keys or features that is missing to two vectors of 16, and a fifth of one to a third.
    load: f64,
}

/// On Zen 4, 2026-11-29, as those of AVX2 (of which `run` alone was fitted again when all precisions became one step) and AVX-512.
const PORTABLE: Rates = Rates {
    product: [1.68, 0.764, 0.458],
    softmax: [5.75, 4.93, 4.68],
    block: 20.2,
    run: 224.0,
    pack: [1.92, 1.36, 1.54],
    load: 0.0,
};
const AVX2: Rates = Rates {
    product: [0.103, 0.152, 0.138],
    softmax: [1.01, 1.18, 1.02],
    block: 20.8,
    run: 376.0,
    pack: [0.287, 0.389, 0.441],
    load: 0.0,
};
/// On Ice Lake, but for two numbers that are in proportion as on Zen 4: packing at 16 bit, to 8 bit, since it became so much cheaper, and a
/// run, to what one took when each was a step of the online softmax.
const AVX512_VNNI: Rates = Rates {
    product: [0.0192, 0.1117, 0.0741],
    softmax: [0.587, 0.80, 1.05],
    block: 38.3,
    run: 510.0,
    pack: [0.332, 0.374, 0.602],
    load: 0.0525,
};
/// On Zen 4, which begins one product of 512 bits a cycle.
const AVX512: Rates = Rates {
    product: [0.0324, 0.0642, 0.126],
    softmax: [0.421, 0.309, 0.766],
    block: 23.0,
    run: 384.0,
    pack: [0.273, 0.190, 0.334],
    load: 0.0006,
};

/// What the cost model's `kernel_times` counts, and explains, under these names.
const PADDING: f64 = 4.0;
const TO_THREE: f64 = 0.2;

/// Numbers of one word, by precision.
const PER_WORD: [f64; 3] = [4.0, 2.0, 1.0];

/// Tensors that are packed, by precision.
const PACKED: [f64; 3] = [3.0, 3.0, 1.0];

/// For each block row of a head, what is fastest for the head as a whole.
pub(crate) fn of_head(mask: &HeadMask, shape: &AttentionShape, options: &PlanOptions, integer: bool) -> Vec<Promoted> {
    let rows = mask.blocks.rows();
    let as_masked = vec![AS_MASKED; rows];
    if options.promotion == Promotion::Never {
        return as_masked;
    }
    let rates = match options.kernel {
        Kernel::Portable => &PORTABLE,
        Kernel::Avx2 => &AVX2,
        Kernel::Avx512Vnni => &AVX512_VNNI,
        Kernel::Avx512 => &AVX512,
    };
    let allowed = |choice: &&Promoted| !integer || choice[0] == Precision::Int8;
    let costs: Vec<[Option<f64>; 6]> = (0..rows)
        .map(|row| {
            let row = Row::of(mask, shape, options.kernel, row);
            Precision::PROMOTIONS
                .each_ref()
                .map(|choice| allowed(&choice).then(|| row.cycles(rates, choice, shape.head_dim)))
        })
        .collect();
    let used: Vec<[bool; 3]> = (0..rows).map(|row| Row::of(mask, shape, options.kernel, row).used()).collect();
    let packing = f64::from(shape.keys) * f64::from(shape.head_dim);
    let mut best = (f64::INFINITY, as_masked);
    // Every set of precisions that the head may be packed for, all of them first.
    for packed in (1..8_u32).rev().map(|set| [0, 1, 2].map(|at| set >> at & 1 == 1)) {
        let mut total: f64 = (0..3).filter(|at| packed[*at]).map(|at| PACKED[at] * rates.pack[at] * packing).sum();
        let mut choices = Vec::with_capacity(rows);
        for (costs, used) in costs.iter().zip(&used) {
            let fits = |choice: &Promoted| (0..3).all(|at| !used[at] || packed[choice[at].index()]);
            let of_row = Precision::PROMOTIONS.iter().zip(costs).filter(|(choice, _)| fits(choice));
            let of_row = of_row.filter_map(|(choice, cost)| Some((*choice, (*cost)?)));
            let Some((choice, cost)) = of_row.reduce(|a, b| if b.1 < a.1 { b } else { a }) else { break };
            total += cost;
            choices.push(choice);
        }
        if choices.len() == rows && total < best.0 {
            best = (total, choices);
        }
    }
    best.1
}

/// What decides the time of one block row.
struct Row {
    block_size: f64,
    tiles: f64,
    queries: f64,
    keys: [f64; 3],
    /// Keys without a use in each run.
    padding: f64,
    /// Keys of a vector of 16; zero where vectors are narrower.
    wide: f64,
}

impl Row {
    fn of(mask: &HeadMask, shape: &AttentionShape, kernel: Kernel, row: usize) -> Self {
        let tokens = mask.block_size.tokens();
        let tile = kernel.tile_queries().min(tokens);
        let tiles = mask.block_size.extent(row as u32, shape.queries).div_ceil(tile);
        let end = if shape.kind == AttentionKind::CausalSelfAttention { row + 1 } else { mask.blocks.columns() };
        let mut keys = [0.0; 3];
        for precision in mask.blocks.row(row)[..end].iter().flatten() {
            keys[precision.index()] += f64::from(tokens);
        }
        // Two blocks of 8 share a vector of 16 keys.
        let half = mask.block_size == BlockSize::B8 && kernel.vector_words() > tokens;
        let padding = if half { PADDING } else { 0.0 };
        let wide = if kernel.vector_words() == 16 { 16.0 } else { 0.0 };
        let (tiles, queries) = (f64::from(tiles), f64::from(tiles * tile));
        Self { block_size: f64::from(tokens), tiles, queries, keys, padding, wide }
    }

    /// Of so many keys or features, those that are missing, as `load` has it.
    fn missing(&self, of: f64) -> f64 {
        let two = 2.0 * self.wide;
        (two - of).max(0.0) + TO_THREE * (two + self.wide - of.max(two)).max(0.0)
    }

    fn used(&self) -> [bool; 3] {
        self.keys.map(|keys| keys > 0.0)
    }

    fn cycles(&self, rates: &Rates, choice: &Promoted, head_dim: u32) -> f64 {
        let mut keys = [0.0; 3];
        for (of, to) in self.keys.iter().zip(choice) {
            keys[to.index()] += of;
        }
        let d = f64::from(head_dim);
        let run = |at: usize| {
            let scored = keys[at] + self.padding;
            let product = rates.product[at] * (scored + keys[at]) * d / 2.0;
            let loads = (self.missing(scored) * d + keys[at] * self.missing(d)) / (2.0 * PER_WORD[at]);
            let product = product + rates.load * loads;
            let softmax = rates.softmax[at] * scored;
            let blocks = rates.block * keys[at] / self.block_size;
            self.tiles * (rates.run + blocks) + self.queries * (product + softmax)
        };
        (0..3).filter(|at| keys[*at] > 0.0).map(run).sum()
    }
}
