//! Which blocks are computed more finely than the mask asks, because that is faster.
//!
//! A row begins a run for each of its precisions, and a head packs its numbers for each. One 8-bit block beside 16-bit ones
//! costs less as one more of those. And where two blocks share a vector, an odd one of each of two precisions leaves half of
//! two vectors empty. What a mask says of a block is therefore the least that is done for it.

use maskwright_blueprint::{AttentionShape, BlockSize, HeadMask, RowPromotion};

use crate::{Kernel, PlanOptions, lanes::MAX_WIDTH};

/// Whether blocks may be computed at a finer precision than the mask says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Promotion {
    /// Where that is faster on the kernel at hand. 8-bit blocks under an integer softmax stay what they are.
    #[default]
    WhereFaster,
    /// Every block as the mask says.
    Never,
}

/// Cycles that a kernel takes on the CPU that it was tuned on, as `maskwright device calibrate` fits them. Elsewhere they
/// keep their ratios more or less, which is all that a choice needs. By precision: [`Precision::ALL`].
struct Rates {
    /// Both products, for each query, key and feature.
    product: [f64; 3],
    /// Softmax, for each query and key.
    softmax: [f64; 3],
    /// Finding and addressing a block, for each tile of queries.
    block: f64,
    /// Beginning a run, for each tile.
    run: f64,
    /// Bringing a run at 8 bit to the unit of others, for each tile.
    mix: f64,
    /// Packing a number.
    pack: [f64; 3],
    /// What else there is to tell two tables from each other, where a unit for matrices has one and vectors another.
    beside: Beside,
    /// For each query, a word of keys or features that is missing to two vectors of 16, and a fifth of one to a third.
    load: f64,
}

/// Of the cost model's `KernelTimes` what one table alone can do without.
struct Beside {
    head: f64,
    tile: f64,
    /// For each feature of a tile.
    output: f64,
    /// Packing a key whose words are no whole vectors.
    pack_key: f64,
}

const NOTHING: Beside = Beside { head: 0.0, tile: 0.0, output: 0.0, pack_key: 0.0 };

/// On Zen 4, 2026-11-30, as those of AVX2 and AVX-512.
const PORTABLE: Rates = Rates {
    product: [1.68, 0.766, 0.470],
    softmax: [6.09, 4.10, 4.77],
    block: 15.5,
    run: 171.0,
    mix: 324.0,
    pack: [2.45, 1.46, 1.62],
    beside: NOTHING,
    load: 0.0,
};
const AVX2: Rates = Rates {
    product: [0.102, 0.157, 0.149],
    softmax: [1.14, 1.09, 0.868],
    block: 27.9,
    run: 243.0,
    mix: 243.0,
    pack: [0.483, 0.469, 0.496],
    beside: NOTHING,
    load: 0.0,
};
/// On Ice Lake, but for numbers that are in proportion as on Zen 4: packing at 16 bit, to 8 bit, since it became so much
/// cheaper, a run and what mixes, to what a run took when each was a step of the online softmax, softmax at 16 and 32 bit, to
/// what it took with maxima, and at 8 bit, to what it took with scores of 32 bit.
const AVX512_VNNI: Rates = Rates {
    product: [0.0192, 0.1117, 0.0741],
    softmax: [0.19, 0.68, 0.69],
    block: 38.3,
    run: 400.0,
    mix: 60.0,
    pack: [0.332, 0.374, 0.602],
    beside: NOTHING,
    load: 0.0525,
};
/// On Zen 4, which begins one product of 512 bits a cycle.
const AVX512: Rates = Rates {
    product: [0.0325, 0.0664, 0.136],
    softmax: [0.158, 0.19, 0.54],
    block: 20.7,
    run: 350.0,
    mix: 103.0,
    pack: [0.312, 0.213, 0.171],
    beside: NOTHING,
    load: 0.0,
};

/// Heads that AMX multiplies, on Emerald Rapids, 2026-12-01, the means of three calibrations.
const AMX: Rates = Rates {
    product: [0.0111, 0.0179, 0.0755],
    softmax: [0.28, 0.25, 1.14],
    block: 17.3,
    run: 113.0,
    mix: 164.0,
    pack: [0.254, 0.154, 0.32],
    beside: Beside { head: 1570.0, tile: 0.0, output: 5.9, pack_key: 9.5 },
    load: 0.0705,
};
/// Heads beside them, on the same CPU. The fits find packing at 32 bit in what else a head and a tile take.
const AMX_VECTORS: Rates = Rates {
    product: [0.016, 0.1072, 0.079],
    softmax: [0.16, 0.25, 0.2],
    block: 28.4,
    run: 307.0,
    mix: 39.0,
    pack: [0.335, 0.308, 0.0],
    beside: Beside { head: 540.0, tile: 54.6, output: 1.47, pack_key: 0.4 },
    load: 0.0377,
};

/// What the cost model's `kernel_times` counts, and explains, under this name.
const TO_THREE: f64 = 0.2;

/// Numbers of one word, by precision.
const PER_WORD: [f64; 3] = [4.0, 2.0, 1.0];

/// Whether queries are packed, and tensors of keys that are, by precision.
const PACKED: [(f64, f64); 3] = [(1.0, 2.0), (1.0, 2.0), (0.0, 1.0)];

/// For each block row of a head, what is fastest for the head as a whole.
pub(crate) fn of_head(
    mask: &HeadMask,
    shape: &AttentionShape,
    options: &PlanOptions,
    integer: bool,
) -> Vec<RowPromotion> {
    let rows = mask.blocks.rows();
    let as_masked = vec![RowPromotion::NONE; rows];
    if options.promotion == Promotion::Never {
        return as_masked;
    }
    let vectors = options.kernel.of_head(mask.block_size.tokens(), shape.head_dim) != options.kernel;
    // Of heads packed for several precisions or a coarse one, and for single precision alone.
    let tables = match options.kernel {
        Kernel::Portable => [&PORTABLE; 2],
        Kernel::Avx2 => [&AVX2; 2],
        Kernel::Avx512Vnni => [&AVX512_VNNI; 2],
        Kernel::Avx512 => [&AVX512; 2],
        Kernel::Amx if vectors => [&AMX_VECTORS; 2],
        Kernel::Amx => [&AMX, &AMX_VECTORS],
    };
    let ways: Vec<Vec<Way>> = (0..rows)
        .map(|row| {
            let row = Row::of(mask, shape, options.kernel, row);
            let ways = RowPromotion::ways(row.of_vector).iter().filter(|way| !integer || way.keeps_int8());
            let cycles = |blocks: [u32; 3]| {
                let several = row.cycles(tables[0], blocks, shape.head_dim);
                let differ = !std::ptr::eq(tables[0], tables[1]) && blocks[..2] == [0, 0];
                [several, if differ { row.cycles(tables[1], blocks, shape.head_dim) } else { several }]
            };
            let way = |promotion: &RowPromotion| {
                let blocks = promotion.blocks(row.blocks)?;
                Some(Way { promotion: *promotion, blocks, cycles: cycles(blocks) })
            };
            ways.filter_map(way).collect()
        })
        .collect();
    let needed = needed(mask, shape);
    let mut best = (f64::INFINITY, as_masked);
    // Every set of precisions that the head may be packed for, all of them first.
    for packed in (1..8_u32).rev().map(|set| [0, 1, 2].map(|at| set >> at & 1 == 1)) {
        let alone = usize::from(packed == [false, false, true]);
        let rates = tables[alone];
        let (mut total, mut from) = (rates.beside.head, 0);
        for at in (0..3).filter(|at| packed[*at]) {
            let (queries, keys) = PACKED[at];
            let tokens = queries * f64::from(shape.queries) + keys * f64::from(needed[from]);
            total += rates.pack[at] * tokens * f64::from(shape.head_dim);
            if !shape.head_dim.is_multiple_of(PER_WORD[at] as u32 * MAX_WIDTH as u32) {
                total += rates.beside.pack_key * f64::from(needed[from]);
            }
            from = at + 1;
        }
        let (mut choices, mut coarse) = (Vec::with_capacity(rows), false);
        for ways in &ways {
            let ways = ways.iter().filter(|way| (0..3).all(|at| way.blocks[at] == 0 || packed[at]));
            let Some(way) = ways.reduce(|a, b| if b.cycles[alone] < a.cycles[alone] { b } else { a }) else { break };
            total += way.cycles[alone];
            coarse |= way.blocks[..2] != [0, 0];
            choices.push(way.promotion);
        }
        // Where nothing coarse is left, the head is one of single precision alone, whatever else it might have been packed for.
        if choices.len() == rows && (coarse || alone == 1) && total < best.0 {
            best = (total, choices);
        }
    }
    best.1
}

/// A way to compute a row.
struct Way {
    promotion: RowPromotion,
    /// What it leaves of the row's blocks, by precision.
    blocks: [u32; 3],
    /// In a head that is packed for several precisions or a coarse one, and in one of single precision alone.
    cycles: [f64; 2],
}

/// Keys that some row needs at a precision or a finer one, and which therefore are packed for it. Those that it needs more finely
/// than its mask says are not counted for that.
fn needed(mask: &HeadMask, shape: &AttentionShape) -> [u32; 3] {
    let mut needed = [0; 3];
    for column in 0..mask.blocks.columns() {
        let columns = mask.blocks.columns();
        let rows = (0..mask.blocks.rows()).filter(|row| column < shape.kind.columns_of(*row, columns));
        let finest = rows.filter_map(|row| mask.blocks.get(row, column)).max();
        let Some(finest) = finest else { continue };
        for needed in &mut needed[..=finest.index()] {
            *needed += mask.block_size.extent(column as u32, shape.keys);
        }
    }
    needed
}

/// What decides the time of one block row.
struct Row {
    block_size: f64,
    tiles: f64,
    queries: f64,
    /// By precision.
    blocks: [u32; 3],
    /// Blocks that share a vector.
    of_vector: u32,
    /// Keys of a vector of 16; zero where vectors are narrower.
    wide: f64,
}

impl Row {
    fn of(mask: &HeadMask, shape: &AttentionShape, kernel: Kernel, row: usize) -> Self {
        let tokens = mask.block_size.tokens();
        let tile = kernel.tile_queries().min(tokens);
        let tiles = mask.block_size.extent(row as u32, shape.queries).div_ceil(tile);
        let end = shape.kind.columns_of(row, mask.blocks.columns());
        let mut blocks = [0; 3];
        for precision in mask.blocks.row(row)[..end].iter().flatten() {
            blocks[precision.index()] += 1;
        }
        // Two blocks of 8 share a vector of 16 keys.
        let of_vector = if mask.block_size == BlockSize::B8 && kernel.vector_words() > tokens { 2 } else { 1 };
        let wide = if kernel.vector_words() == 16 { 16.0 } else { 0.0 };
        let (tiles, queries) = (f64::from(tiles), f64::from(tiles * tile));
        Self { block_size: f64::from(tokens), tiles, queries, blocks, of_vector, wide }
    }

    /// Of so many keys or features, those that are missing, as `load` has it.
    fn missing(&self, of: f64) -> f64 {
        let two = 2.0 * self.wide;
        (two - of).max(0.0) + TO_THREE * (two + self.wide - of.max(two)).max(0.0)
    }

    /// With so many `blocks` of each precision.
    fn cycles(&self, rates: &Rates, blocks: [u32; 3], head_dim: u32) -> f64 {
        let d = f64::from(head_dim);
        let run = |at: usize| {
            let keys = f64::from(blocks[at]) * self.block_size;
            let scored = f64::from(blocks[at].next_multiple_of(self.of_vector)) * self.block_size;
            let product = rates.product[at] * (scored + keys) * d / 2.0;
            let loads = (self.missing(scored) * d + keys * self.missing(d)) / (2.0 * PER_WORD[at]);
            let product = product + rates.load * loads;
            let softmax = rates.softmax[at] * scored;
            let found = rates.block * f64::from(blocks[at]);
            self.tiles * (rates.run + found) + self.queries * (product + softmax)
        };
        let mixes = blocks[0] > 0 && blocks[1] + blocks[2] > 0;
        let runs: f64 = (0..3).filter(|at| blocks[*at] > 0).map(run).sum();
        let of_tile = rates.beside.tile + rates.beside.output * d + if mixes { rates.mix } else { 0.0 };
        runs + self.tiles * of_tile
    }
}

#[cfg(test)]
mod tests {
    use maskwright_blueprint::{AttentionKind, BlockMask, Precision};

    use super::*;

    /// Blocks that a head of blocks of 16 and 64 features computes at each precision with AMX: of so many rows and columns, all of
    /// them active, one block of each row `first`, others `others`.
    fn computed(rows: usize, first: Precision, others: Precision) -> [u32; 3] {
        let (kind, tokens) = (AttentionKind::SelfAttention, 16 * rows as u32);
        let shape = AttentionShape { kind, heads: 1, queries: tokens, keys: tokens, head_dim: 64, windows: 1 };
        let cells = (0..rows * rows).map(|at| Some(if at % (rows + 1) == 0 { first } else { others }));
        let blocks = BlockMask::new(rows, cells.collect()).unwrap();
        let options = PlanOptions::on(Kernel::Amx).promotion(Promotion::WhereFaster);
        let ways = of_head(&HeadMask { block_size: BlockSize::B16, blocks }, &shape, &options, false);
        let mut of_row = [0; 3];
        of_row[first.index()] += 1;
        of_row[others.index()] += rows as u32 - 1;
        ways.iter().fold([0; 3], |sum, way| {
            let of_row = way.blocks(of_row).unwrap();
            std::array::from_fn(|at| sum[at] + of_row[at])
        })
    }

    #[test]
    fn a_unit_for_matrices_is_not_asked_for_a_block_here_and_there() {
        use Precision::{Half, Int8, Single};
        // By the unit's rates alone, a block would stay what it is, and so would two of three in a row.
        assert_eq!([computed(1, Int8, Int8), computed(1, Half, Half)], [[0, 0, 1]; 2]);
        assert_eq!([computed(3, Single, Int8), computed(3, Single, Half)], [[0, 0, 9]; 2]);
        // Eight coarse blocks a row do.
        assert_eq!(computed(8, Half, Half), [0, 64, 0]);
        assert_eq!(computed(8, Single, Half), [0, 56, 8]);
        // As long calls of 8 and 16 bit alone were measured.
        assert_eq!(computed(32, Int8, Int8), [1024, 0, 0]);
    }
}
