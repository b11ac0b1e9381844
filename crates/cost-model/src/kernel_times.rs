//! What our own kernels take on a machine that was calibrated: a finer account than units and rates.

use std::collections::BTreeMap;

use maskwright_blueprint::{AttentionShape, BlockSize, Precision};
use serde::{Deserialize, Serialize};

use crate::{
    Figure, HeadWork, ModuleWork, Softmax,
    machine::Machine,
    plan::{Plan, Stages, dram_cycles},
    traffic,
};

/// Cycles of one core that the attention kernels take, fitted to timings on one machine with its inputs in the caches.
/// The `flash` dataflow counts these in place of the units' rates.
///
/// A *tile* is as many queries of one block row as are computed at once: `matrix.tile_queries`, or a whole block row where
/// that is less. A *run* is a row's blocks of one precision. Keys are counted in whole groups of eight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelTimes {
    /// Both products of a tile with one key, for each feature of the head, by block size and precision.
    pub product_cycles: BTreeMap<BlockSize, BTreeMap<Precision, Figure>>,
    /// Softmax of a tile's scores with one key, conversions from and to the precision included.
    pub softmax_cycles: BTreeMap<Precision, Figure>,
    /// The same at 8 bit with the integer softmax.
    pub integer_softmax_cycles: Figure,
    /// Finding and addressing one block, for each tile.
    pub block_cycles: Figure,
    /// Beginning a run, for each tile.
    pub run_cycles: BTreeMap<Precision, Figure>,
    /// The same for each feature of the head.
    pub run_feature_cycles: Figure,
    /// Finishing a tile, for each feature of the head.
    pub row_cycles: Figure,
    /// Packing an element of a head's queries, keys and values where it has blocks of that precision; 8 and 16 bit.
    pub pack_cycles: BTreeMap<Precision, Figure>,
}

/// Every coefficient of [`KernelTimes`] in one list: products by block size and precision, softmax by precision and in
/// integers, block, runs by precision, run and row for each feature, packing at 8 and 16 bit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rates([f64; RATES]);

pub(crate) const RATES: usize = 21;
const SOFTMAX: usize = 9;
const INTEGER_SOFTMAX: usize = 12;
const BLOCK: usize = 13;
const RUN: usize = 14;
const RUN_FEATURE: usize = 17;
const ROW: usize = 18;
const PACK: usize = 19;

/// Where blocks of each precision may be computed instead. The kernels compute each where the mask says; a prediction
/// takes the cheapest of these, so that it never falls when a block is raised (`docs/decisions/101`).
const PROMOTIONS: [[usize; 3]; 4] = [[0, 1, 2], [1, 1, 2], [0, 2, 2], [2, 2, 2]];

impl KernelTimes {
    /// Every number with its place in the file.
    pub(crate) fn figures(&self) -> Vec<(String, &Figure)> {
        let mut all = Vec::new();
        for (size, of_size) in &self.product_cycles {
            all.extend(named(format!("product_cycles.{size}."), of_size));
        }
        all.extend(named("softmax_cycles.".into(), &self.softmax_cycles));
        all.push(("kernels.integer_softmax_cycles".into(), &self.integer_softmax_cycles));
        all.push(("kernels.block_cycles".into(), &self.block_cycles));
        all.extend(named("run_cycles.".into(), &self.run_cycles));
        all.push(("kernels.run_feature_cycles".into(), &self.run_feature_cycles));
        all.push(("kernels.row_cycles".into(), &self.row_cycles));
        all.extend(named("pack_cycles.".into(), &self.pack_cycles));
        all
    }

    /// What is impossible, given the most multiply-accumulates a cycle at each precision and the queries of a tile.
    pub(crate) fn problems(&self, macs_per_cycle: &BTreeMap<Precision, Figure>, tile_queries: f64) -> Vec<String> {
        let mut problems = Vec::new();
        let all_precisions = |of: &BTreeMap<Precision, Figure>| of.len() == Precision::ALL.len();
        let whole = self.product_cycles.len() == BlockSize::ALL.len()
            && self.product_cycles.values().all(all_precisions)
            && all_precisions(&self.softmax_cycles)
            && all_precisions(&self.run_cycles);
        if !whole {
            problems.push("kernels has figures for block sizes 8, 16, 32 and precisions 1, 2, 4: all of them".into());
        }
        if !self.pack_cycles.keys().eq(&[Precision::Int8, Precision::Half]) {
            problems.push("kernels.pack_cycles has figures for precisions 1 and 2".into());
        }
        for (size, of_size) in &self.product_cycles {
            for (precision, figure) in of_size {
                let tile = tile_queries.min(f64::from(size.tokens()));
                let peak = macs_per_cycle.get(precision).map_or(0.0, |rate| rate.value);
                if figure.value * peak < 2.0 * tile * (1.0 - 1e-9) {
                    problems.push(format!(
                        "kernels.product_cycles.{size}.{} is faster than matrix.macs_per_cycle",
                        precision.bytes()
                    ));
                }
            }
        }
        problems
    }
}

fn named(name: String, of: &BTreeMap<Precision, Figure>) -> impl Iterator<Item = (String, &Figure)> {
    of.iter().map(move |(precision, figure)| (format!("kernels.{name}{}", precision.bytes()), figure))
}

impl Rates {
    pub(crate) fn of(times: &KernelTimes) -> Self {
        let mut rates = [0.0; RATES];
        let by_precision = |to: &mut [f64], of: &BTreeMap<Precision, Figure>| {
            for (to, precision) in to.iter_mut().zip(Precision::ALL) {
                *to = of.get(&precision).map_or(0.0, |figure| figure.value);
            }
        };
        for (products, size) in rates[..SOFTMAX].chunks_exact_mut(3).zip(BlockSize::ALL) {
            if let Some(of_size) = times.product_cycles.get(&size) {
                by_precision(products, of_size);
            }
        }
        by_precision(&mut rates[SOFTMAX..INTEGER_SOFTMAX], &times.softmax_cycles);
        rates[INTEGER_SOFTMAX] = times.integer_softmax_cycles.value;
        rates[BLOCK] = times.block_cycles.value;
        by_precision(&mut rates[RUN..RUN_FEATURE], &times.run_cycles);
        rates[RUN_FEATURE] = times.run_feature_cycles.value;
        rates[ROW] = times.row_cycles.value;
        by_precision(&mut rates[PACK..], &times.pack_cycles);
        Self(rates)
    }

    /// The same as numbers of a profile; `figure` adds the source.
    pub(crate) fn times(rates: [f64; RATES], figure: impl Fn(f64) -> Figure) -> KernelTimes {
        let by_precision = |of: &[f64]| Precision::ALL.into_iter().zip(of.iter().map(|rate| figure(*rate))).collect();
        let products = BlockSize::ALL.into_iter().zip(rates[..SOFTMAX].chunks_exact(3).map(by_precision));
        KernelTimes {
            product_cycles: products.collect(),
            softmax_cycles: by_precision(&rates[SOFTMAX..INTEGER_SOFTMAX]),
            integer_softmax_cycles: figure(rates[INTEGER_SOFTMAX]),
            block_cycles: figure(rates[BLOCK]),
            run_cycles: by_precision(&rates[RUN..RUN_FEATURE]),
            run_feature_cycles: figure(rates[RUN_FEATURE]),
            row_cycles: figure(rates[ROW]),
            pack_cycles: by_precision(&rates[PACK..]),
        }
    }

    fn cycles(&self, counts: &[f64; RATES], of: std::ops::Range<usize>) -> f64 {
        self.0[of.clone()].iter().zip(&counts[of]).map(|(rate, count)| rate * count).sum()
    }
}

/// The least that each coefficient can be: no product is faster than the peak.
pub(crate) fn floors(machine: &Machine) -> [f64; RATES] {
    let mut floors = [0.0; RATES];
    for (at, floor) in floors[..SOFTMAX].iter_mut().enumerate() {
        let (size, precision) = (BlockSize::ALL[at / 3], Precision::ALL[at % 3]);
        *floor = 2.0 * f64::from(tile(machine, size)) / machine.peak_rate(precision);
    }
    floors
}

/// What each coefficient is multiplied with when a module is computed as its masks say.
pub(crate) fn counts(machine: &Machine, module: &ModuleWork) -> [f64; RATES] {
    let mut counts = [0.0; RATES];
    for head in &module.heads {
        for band in &head.bands[0] {
            let row = Row { size: head.block_size, tiles: tiles(machine, head.block_size, band.queries) };
            row.count(band.keys_by_precision(), module.shape.head_dim, module.softmax, &mut counts);
        }
        count_packing(head.blocks.map(|blocks| blocks > 0), &module.shape, &mut counts);
    }
    counts
}

/// How one core runs one head of one example.
pub(crate) fn plan(
    machine: &Machine,
    rates: &Rates,
    head: &HeadWork,
    shape: &AttentionShape,
    softmax: Softmax,
    stages: &Stages,
) -> Plan {
    let mut best = (f64::INFINITY, [0.0; RATES]);
    for promotion in PROMOTIONS {
        let mut counts = [0.0; RATES];
        let mut used = [false; 3];
        for (blocks, to) in head.blocks.iter().zip(promotion) {
            used[to] |= *blocks > 0;
        }
        count_packing(used, shape, &mut counts);
        for band in &head.bands[0] {
            let row = Row { size: head.block_size, tiles: tiles(machine, head.block_size, band.queries) };
            let keys = promoted(band.keys_by_precision(), promotion);
            let cheapest = PROMOTIONS.map(|again| {
                let mut counts = [0.0; RATES];
                row.count(promoted(keys, again), shape.head_dim, softmax, &mut counts);
                (rates.cycles(&counts, 0..RATES), counts)
            });
            let cheapest = cheapest.into_iter().reduce(|a, b| if b.0 < a.0 { b } else { a });
            for (sum, count) in counts.iter_mut().zip(cheapest.map_or([0.0; RATES], |(_, counts)| counts)) {
                *sum += count;
            }
        }
        let cycles = rates.cycles(&counts, 0..RATES);
        if cycles < best.0 {
            best = (cycles, counts);
        }
    }
    let (cycles, counts) = best;
    let products = rates.cycles(&counts, 0..SOFTMAX);
    let vector = rates.cycles(&counts, SOFTMAX..BLOCK);
    let bytes = traffic::fused(machine, head, shape);
    let from_dram = bytes.last().map_or(0.0, |bytes| dram_cycles(machine, *bytes));
    let transfers = if fits_the_caches(machine, shape) { 0.0 } else { from_dram };
    Plan {
        qk: products / 2.0,
        softmax: vector,
        pv: products / 2.0,
        blocks: rates.cycles(&counts, BLOCK..RATES),
        behind: [(transfers, cycles), (0.0, 0.0), (0.0, 0.0)],
        matrix_busy: products,
        // Energy goes by what softmax asks of the lanes: what was timed may fall where a run is computed more finely.
        vector_busy: stages.softmax,
        bytes,
        ..Plan::default()
    }
}

/// One block row of a head.
#[derive(Clone, Copy)]
struct Row {
    size: BlockSize,
    tiles: f64,
}

impl Row {
    fn count(self, keys: [u32; 3], head_dim: u32, softmax: Softmax, counts: &mut [f64; RATES]) {
        let (tiles, features) = (self.tiles, f64::from(head_dim));
        let size = BlockSize::ALL.iter().position(|size| *size == self.size).unwrap_or(0);
        for (precision, keys) in Precision::ALL.into_iter().zip(keys).filter(|(_, keys)| *keys > 0) {
            let at = precision.index();
            let groups = f64::from(keys.next_multiple_of(8));
            let integer = precision == Precision::Int8 && softmax == Softmax::Integer;
            counts[3 * size + at] += tiles * groups * features;
            counts[if integer { INTEGER_SOFTMAX } else { SOFTMAX + at }] += tiles * groups;
            counts[BLOCK] += tiles * f64::from(keys.div_ceil(self.size.tokens()));
            counts[RUN + at] += tiles;
            counts[RUN_FEATURE] += tiles * features;
        }
        counts[ROW] += tiles * features;
    }
}

fn count_packing(used: [bool; 3], shape: &AttentionShape, counts: &mut [f64; RATES]) {
    let elements = (f64::from(shape.queries) + 2.0 * f64::from(shape.keys)) * f64::from(shape.head_dim);
    for (count, used) in counts[PACK..].iter_mut().zip(used) {
        *count += if used { elements } else { 0.0 };
    }
}

fn promoted(keys: [u32; 3], promotion: [usize; 3]) -> [u32; 3] {
    let mut to = [0; 3];
    for (keys, at) in keys.into_iter().zip(promotion) {
        to[at] += keys;
    }
    to
}

fn tile(machine: &Machine, size: BlockSize) -> u32 {
    machine.tile_queries.min(size.tokens())
}

fn tiles(machine: &Machine, size: BlockSize, queries: u32) -> f64 {
    f64::from(queries.div_ceil(tile(machine, size)))
}

/// Whether queries, keys, values and outputs of a module lie in the last cache, as they did when times were taken.
fn fits_the_caches(machine: &Machine, shape: &AttentionShape) -> bool {
    let tokens = 2.0 * (f64::from(shape.queries) + f64::from(shape.keys));
    let bytes = 4.0 * f64::from(shape.heads) * f64::from(shape.head_dim) * tokens;
    machine.levels.iter().rev().nth(1).is_some_and(|cache| bytes <= cache.core_bytes * machine.cores)
}
