//! MAS-Attention: two streams over row tiles.
//!
//! While the vector unit computes `P_{i-1} = softmax(C_{i-1})`, the matrix unit computes `O_{i-2} = P_{i-2} V` and then
//! `C_i = Q_i K^T`; DRAM loads ahead. Tiles of neighbouring heads follow each other without a gap.

use maskwright_blueprint::{AttentionShape, BlockSize};

use crate::{
    Band, HeadWork, Softmax,
    machine::Machine,
    plan::{Plan, Stages, dram_cycles},
    traffic::{key_bytes, query_bytes},
};

pub(crate) fn plan(
    machine: &Machine,
    row_tile: usize,
    head: &HeadWork,
    shape: &AttentionShape,
    stages: &Stages,
    softmax: Softmax,
) -> Plan {
    let bands = &head.bands[row_tile];
    let native = native_stages(machine, head, shape, softmax);
    let tiling = steady(machine, head, shape, bands, &tiles(&native, bands.len()));
    let mut bytes = crate::traffic::fused(machine, head, shape);
    if let Some(last) = bytes.last_mut() {
        *last = tiling.dram_bytes;
    }
    let compute = tiling.compute + stages.blocks;
    Plan {
        memory: tiling.cycles - tiling.compute,
        behind: Default::default(),
        ..Plan::overlapped(machine, head, shape, stages, (compute, tiling.vector), bytes)
    }
}

/// The level of bands whose bands are row tiles: the least traffic of those that are as fast as the fastest, and of these the
/// smallest, since its pipeline fills soonest. Tiles whose scores do not fit are taken only where none fits, and then the
/// smallest.
///
/// Every tiling is tried, on the dense shape: a mask changes counts but never the tiling, so that a block more never makes
/// a head cheaper.
pub(crate) fn row_tile(machine: &Machine, block_size: BlockSize, shape: &AttentionShape, softmax: Softmax) -> usize {
    let dense = HeadWork::dense(shape, block_size, machine.finest());
    let native = native_stages(machine, &dense, shape, softmax);
    let tilings = dense.bands.iter().enumerate().filter(|(_, bands)| bands.len() <= native.len());
    let tilings: Vec<(usize, Steady)> = tilings
        .map(|(level, bands)| (level, steady(machine, &dense, shape, bands, &tiles(&native, bands.len()))))
        .collect();
    let in_place = || tilings.iter().filter(|(_, tiling)| tiling.overwritten.spilled == 0.0);
    let fastest = in_place().map(|(_, tiling)| tiling.cycles).fold(f64::INFINITY, f64::min);
    in_place()
        .filter(|(_, tiling)| tiling.cycles <= fastest * (1.0 + AS_FAST))
        .reduce(|best, next| if next.1.dram_bytes < best.1.dram_bytes { next } else { best })
        .or(tilings.first())
        .expect("the whole head is one tile")
        .0
}

/// Tilings that differ by less in time are as fast as each other.
const AS_FAST: f64 = 0.01;

/// What of K and V gives way to scores, as shares in [0, 1]: first K, then V as well, never P.
struct Overwritten {
    keys: f64,
    values: f64,
    /// Share of the scores that the level has no room for even so.
    spilled: f64,
}

impl Overwritten {
    /// Two tiles of scores live at once, beside two tiles' rows of Q and O.
    fn of(machine: &Machine, head: &HeadWork, shape: &AttentionShape, bands: &[Band]) -> Self {
        let width = f64::from(head.whole().finest().bytes());
        let whole = key_bytes(head.whole(), shape.head_dim);
        let rows: f64 = 4.0 * f64::from(bands[0].queries) * f64::from(shape.head_dim) * width;
        let widest = bands.iter().map(|band| band.keys[0]).max().unwrap_or(0);
        let scores = 2.0 * f64::from(bands[0].queries) * f64::from(widest) * width;
        let room = machine.levels[machine.levels.len() - 2].core_bytes - rows - scores;
        Self {
            keys: (2.0 - room / whole).clamp(0.0, 1.0),
            values: (1.0 - room / whole).clamp(0.0, 1.0),
            spilled: (-room / scores).clamp(0.0, 1.0),
        }
    }
}

/// One tiling in full swing.
struct Steady {
    /// With transfers.
    cycles: f64,
    /// Without.
    compute: f64,
    vector: f64,
    dram_bytes: f64,
    overwritten: Overwritten,
}

fn steady(machine: &Machine, head: &HeadWork, shape: &AttentionShape, bands: &[Band], tiles: &[Stages]) -> Steady {
    let width = f64::from(head.whole().finest().bytes());
    let whole = key_bytes(head.whole(), shape.head_dim);
    let overwritten = Overwritten::of(machine, head, shape, bands);
    let needed: f64 = bands.iter().map(|band| key_bytes(*band, shape.head_dim)).sum();
    let loaded = |overwritten: f64| whole + overwritten * (needed - whole);
    let spilled = overwritten.spilled * 4.0 * head.active_scores() as f64 * width;
    let keys = loaded(overwritten.keys) + loaded(overwritten.values);
    let dram_bytes = 2.0 * query_bytes(head, shape.head_dim) + keys + spilled;
    let transfer = dram_cycles(machine, dram_bytes) / bands.len() as f64;
    let (mut cycles, mut compute, mut vector) = (0.0, 0.0, 0.0);
    for at in 0..tiles.len() {
        let earlier = |back: usize| (at + tiles.len() * back - back) % tiles.len();
        let softmax = tiles[earlier(1)].softmax;
        // What gave way arrives while it is used: there is no other place for it.
        let product = |of: usize, overwritten: f64| {
            let product = tiles[of].product;
            if overwritten == 0.0 {
                return [product, product];
            }
            let again = dram_cycles(machine, overwritten * key_bytes(bands[of], shape.head_dim));
            [product, product.max(again)]
        };
        let output = product(earlier(2), overwritten.values);
        let scores = product(at, overwritten.keys);
        compute += machine.together(output[0] + scores[0], softmax);
        cycles += machine.together(output[1] + scores[1], softmax).max(transfer);
        vector += softmax;
    }
    Steady { cycles, compute, vector, dram_bytes, overwritten }
}

/// What each of the head's native bands takes.
pub(crate) fn native_stages(
    machine: &Machine,
    head: &HeadWork,
    shape: &AttentionShape,
    softmax: Softmax,
) -> Vec<Stages> {
    let bands = head.bands_of(machine.tile_queries).chunks(1);
    bands.map(|band| Stages::of_bands(machine, band, shape, softmax)).collect()
}

/// Native bands put together in `count` row tiles.
pub(crate) fn tiles(native: &[Stages], count: usize) -> Vec<Stages> {
    let in_tile = native.len().div_ceil(count).next_power_of_two();
    native.chunks(in_tile).map(|bands| bands.iter().copied().sum()).collect()
}

/// Cycles by which the pipeline's first and last tiles take longer than tiles in full swing, for native tiles of whole rows.
pub(crate) fn fill_cycles(machine: &Machine, shape: &AttentionShape, dense: Band, softmax: Softmax) -> f64 {
    let product = machine.product(dense, shape.head_dim).cycles;
    let vector = machine.softmax_cycles(dense, softmax);
    // C_1, then C_2 beside P_1, ..., O_{n-1} beside P_n, then O_n.
    2.0 * product + 2.0 * product.max(vector) - 2.0 * (2.0 * product).max(vector)
}
