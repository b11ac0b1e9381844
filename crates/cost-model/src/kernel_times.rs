//! What our own kernels take on a machine that was calibrated: a finer account than units and rates.

use std::collections::BTreeMap;

use maskwright_blueprint::{AttentionShape, BlockSize, Precision, RowPromotion};
use serde::{Deserialize, Serialize};

use crate::{
    Band, Figure, HeadWork, ModuleWork, Softmax,
    machine::Machine,
    plan::{Plan, Stages, dram_cycles},
    traffic,
};

/// Cycles of one core that the attention kernels take, fitted to timings on one machine with its inputs in the caches.
/// The `flash` dataflow counts these in place of the units' rates.
///
/// A *tile* is as many queries of one block row as are computed at once: `matrix.tile_queries`, or a whole block row where
/// that is less. A row's last tile is computed whole. A *run* is what a row has of one precision. A *word* is 32 bits: one
/// number, or two, or four, by precision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelTimes {
    /// Both products, for each query of a tile, key and feature.
    pub product_cycles: BTreeMap<Precision, Figure>,
    /// Softmax, for each query of a tile and key: conversions from and to the precision, and writing and reading scores.
    pub softmax_cycles: BTreeMap<Precision, Figure>,
    /// The same at 8 bit with the integer softmax.
    pub integer_softmax_cycles: Figure,
    /// Finding and addressing one block, for each tile.
    pub block_cycles: Figure,
    /// Beginning and ending a run, for each tile.
    pub run_cycles: Figure,
    /// Bringing a run at 8 bit, whose weights are in a unit of their own, to that of the row's others, for each tile.
    pub mix_cycles: Figure,
    /// Beginning and ending a tile, whatever runs it has.
    pub tile_cycles: Figure,
    /// Writing a feature of the tile's output.
    pub output_cycles: Figure,
    /// Beginning a head.
    pub head_cycles: Figure,
    /// Packing a number where the head has blocks of that precision: keys that a row needs at that or a finer one, and at 8 and 16 bit
    /// their values and all queries, too.
    pub pack_cycles: BTreeMap<Precision, Figure>,
    /// The same for each key on top, where a key's words are no whole vectors.
    pub pack_key_cycles: Figure,
    /// A byte of inputs and outputs that comes from farther away than a core's own caches, twice where it is packed: where those of all heads, with
    /// what is packed of one, are more than half of what these caches hold, and wholly at 1.2 times as much.
    pub far_byte_cycles: Figure,
    /// The same on top of it, from there on, and wholly at four times as much.
    pub farther_byte_cycles: Figure,
    /// The same on top of these, where one head with what is packed of it is more than four tenths of what those caches hold, and wholly at eight tenths: what is
    /// asked for of the next one drives it away.
    pub crowded_byte_cycles: Figure,
    /// A word of keys, and one of values, that a tile multiplies where a head alone, with what is packed of it at that
    /// precision, is more than those caches hold: from nine tenths of them on, and wholly at twice as much.
    pub far_word_cycles: Figure,
    /// For each query, a word of keys or features that is missing to two vectors of 16, and a fifth of one that is missing to a
    /// third: products with so few wait for loads.
    pub load_cycles: Figure,
}

/// Every coefficient of [`KernelTimes`] in one list, in the order of its fields.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rates([f64; RATES]);

pub(crate) const RATES: usize = 22;
const SOFTMAX: usize = 3;
const INTEGER_SOFTMAX: usize = 6;
const BLOCK: usize = 7;
const RUN: usize = 8;
const MIX: usize = 9;
const TILE: usize = 10;
const OUTPUT: usize = 11;
const HEAD: usize = 12;
const PACK: usize = 13;
const PACK_KEY: usize = 16;
const FAR_BYTE: usize = 17;
const FARTHER_BYTE: usize = 18;
const CROWDED_BYTE: usize = 19;
const FAR_WORD: usize = 20;
const LOAD: usize = 21;

/// What is missing to a third vector counts so much of what is missing to a second: measured on a core that waits, eight
/// queries take 8.0 cycles a word with one vector and 8.9 with two, of which products are 4 and 8.
const TO_THREE: f64 = 0.2;

/// What one head finds of a core's own caches: measured, masks of 1,024 tokens are predicted without bias so.
const HEADS_SHARE: f64 = 0.9;

/// Where bytes of inputs and outputs begin to cost more, and wholly do, in shares of what the caches hold. Read and written in turn over and over, nothing
/// of all heads is far up to half of it, and everything from four times as much on; how steep it is between them is the machine's, and so fitted.
const FAR: [f64; 2] = [0.5, 1.2];
const FARTHER: [f64; 2] = [1.2, 4.0];
/// The same of one head.
const CROWDED: [f64; 2] = [0.4, 0.8];

/// Numbers of one word at each precision.
const PER_WORD: [f64; 3] = [4.0, 2.0, 1.0];

impl KernelTimes {
    /// Every number with its place in the file, where the whole is `of_file`.
    pub(crate) fn figures(&self, of_file: &str) -> Vec<(String, &Figure)> {
        let mut all = Vec::new();
        let named = [("product", &self.product_cycles), ("softmax", &self.softmax_cycles), ("pack", &self.pack_cycles)];
        for (name, of) in named {
            let place = |precision: &Precision| format!("{of_file}.{name}_cycles.{}", precision.bytes());
            all.extend(of.iter().map(|(precision, figure)| (place(precision), figure)));
        }
        let others = [
            ("integer_softmax_cycles", &self.integer_softmax_cycles),
            ("block_cycles", &self.block_cycles),
            ("run_cycles", &self.run_cycles),
            ("mix_cycles", &self.mix_cycles),
            ("tile_cycles", &self.tile_cycles),
            ("output_cycles", &self.output_cycles),
            ("head_cycles", &self.head_cycles),
            ("pack_key_cycles", &self.pack_key_cycles),
            ("far_byte_cycles", &self.far_byte_cycles),
            ("farther_byte_cycles", &self.farther_byte_cycles),
            ("crowded_byte_cycles", &self.crowded_byte_cycles),
            ("far_word_cycles", &self.far_word_cycles),
            ("load_cycles", &self.load_cycles),
        ];
        all.extend(others.into_iter().map(|(name, figure)| (format!("{of_file}.{name}"), figure)));
        all
    }

    /// What is impossible of what is `of_file`, given the most multiply-accumulates a cycle at each precision.
    pub(crate) fn problems(&self, of_file: &str, macs_per_cycle: &BTreeMap<Precision, Figure>) -> Vec<String> {
        let mut problems = Vec::new();
        if [&self.product_cycles, &self.softmax_cycles, &self.pack_cycles]
            .iter()
            .any(|of| of.len() < Precision::ALL.len())
        {
            problems.push(format!(
                "{of_file} has product_cycles, softmax_cycles and pack_cycles for precisions 1, 2, 4: all of them"
            ));
        }
        for (precision, figure) in &self.product_cycles {
            let peak = macs_per_cycle.get(precision).map_or(0.0, |rate| rate.value);
            if figure.value * peak < 2.0 * (1.0 - 1e-9) {
                problems.push(format!(
                    "{of_file}.product_cycles.{} is faster than matrix.macs_per_cycle",
                    precision.bytes()
                ));
            }
        }
        problems
    }
}

impl Rates {
    pub(crate) fn of(times: &KernelTimes) -> Self {
        let by_precision = |of: &BTreeMap<Precision, Figure>| {
            Precision::ALL.map(|precision| of.get(&precision).map_or(0.0, |figure| figure.value))
        };
        let mut rates = [0.0; RATES];
        rates[..SOFTMAX].copy_from_slice(&by_precision(&times.product_cycles));
        rates[SOFTMAX..INTEGER_SOFTMAX].copy_from_slice(&by_precision(&times.softmax_cycles));
        rates[PACK..PACK_KEY].copy_from_slice(&by_precision(&times.pack_cycles));
        rates[INTEGER_SOFTMAX] = times.integer_softmax_cycles.value;
        rates[BLOCK] = times.block_cycles.value;
        rates[RUN] = times.run_cycles.value;
        rates[MIX] = times.mix_cycles.value;
        rates[TILE] = times.tile_cycles.value;
        rates[OUTPUT] = times.output_cycles.value;
        rates[HEAD] = times.head_cycles.value;
        rates[PACK_KEY] = times.pack_key_cycles.value;
        rates[FAR_BYTE] = times.far_byte_cycles.value;
        rates[FARTHER_BYTE] = times.farther_byte_cycles.value;
        rates[CROWDED_BYTE] = times.crowded_byte_cycles.value;
        rates[FAR_WORD] = times.far_word_cycles.value;
        rates[LOAD] = times.load_cycles.value;
        Self(rates)
    }

    /// Numbers of a profile; `figure` adds the source.
    pub(crate) fn times(rates: [f64; RATES], figure: impl Fn(f64) -> Figure) -> KernelTimes {
        let by_precision = |of: &[f64]| Precision::ALL.into_iter().zip(of.iter().map(|rate| figure(*rate))).collect();
        KernelTimes {
            product_cycles: by_precision(&rates[..SOFTMAX]),
            softmax_cycles: by_precision(&rates[SOFTMAX..INTEGER_SOFTMAX]),
            integer_softmax_cycles: figure(rates[INTEGER_SOFTMAX]),
            block_cycles: figure(rates[BLOCK]),
            run_cycles: figure(rates[RUN]),
            mix_cycles: figure(rates[MIX]),
            tile_cycles: figure(rates[TILE]),
            output_cycles: figure(rates[OUTPUT]),
            head_cycles: figure(rates[HEAD]),
            pack_cycles: by_precision(&rates[PACK..PACK_KEY]),
            pack_key_cycles: figure(rates[PACK_KEY]),
            far_byte_cycles: figure(rates[FAR_BYTE]),
            farther_byte_cycles: figure(rates[FARTHER_BYTE]),
            crowded_byte_cycles: figure(rates[CROWDED_BYTE]),
            far_word_cycles: figure(rates[FAR_WORD]),
            load_cycles: figure(rates[LOAD]),
        }
    }

    fn cycles(&self, counts: &[f64; RATES], of: std::ops::Range<usize>) -> f64 {
        self.0[of.clone()].iter().zip(&counts[of]).map(|(rate, count)| rate * count).sum()
    }
}

/// The least that each coefficient can be: no product is faster than the peak.
pub(crate) fn floors(machine: &Machine) -> [f64; RATES] {
    let mut floors = [0.0; RATES];
    for (floor, precision) in floors.iter_mut().zip(Precision::ALL) {
        *floor = 2.0 / machine.peak_rate(precision);
    }
    floors
}

/// What each coefficient is multiplied with when every block of a module is computed as its mask says: of heads that a matrix unit
/// multiplies, or of all, and of those that vectors multiply.
pub(crate) fn counts(machine: &Machine, module: &ModuleWork) -> [[f64; RATES]; 2] {
    let mut all = [[0.0; RATES]; 2];
    for head in &module.heads {
        let by_vectors = machine.multiplies_by_vectors(head.block_size, module.shape.head_dim, head.is_single());
        let counts = &mut all[usize::from(by_vectors)];
        for band in &head.bands[0] {
            let row = Row::of(machine, head.block_size, band.queries);
            row.count(row.keys(band), &module.shape, module.softmax, counts);
        }
        count_head(machine, head, head.blocks.map(|blocks| blocks > 0), &module.shape, counts);
    }
    all
}

/// Over every set of precisions that a head may be packed for, and for each row every way to compute its blocks at one of
/// those, the counts that cost least, and in which account: 32 bit alone has one of its own. Nothing where kernels were not timed.
///
/// A set that no row uses but for its 32 bit stays in: without it, a first coarse block could make a head of 32 bit alone cheaper.
fn cheapest<'a>(
    machine: &'a Machine,
    head: &HeadWork,
    shape: &AttentionShape,
    softmax: Softmax,
) -> Option<(&'a Rates, [f64; RATES])> {
    let account = |single| machine.kernels_of(head.block_size, shape.head_dim, single);
    let (several, single) = (account(false)?, account(true)?);
    let several_rows = ways(machine, several, head, shape, softmax);
    let single_rows =
        if std::ptr::eq(several, single) { None } else { Some(ways(machine, single, head, shape, softmax)) };
    let mut best: Option<(f64, &Rates, [f64; RATES])> = None;
    for packed in (1..8_u32).map(|set| [0, 1, 2].map(|at| set >> at & 1 == 1)) {
        let alone = packed == [false, false, true];
        let (rates, rows) = match &single_rows {
            Some(rows) if alone => (single, rows),
            _ => (several, &several_rows),
        };
        let mut counts = [0.0; RATES];
        count_head(machine, head, packed, shape, &mut counts);
        let possible = rows.iter().all(|(row, ways)| {
            let ways = ways.iter().filter(|way| (0..3).all(|at| way.keys[at] == 0 || packed[at]));
            let cheapest = ways.reduce(|a, b| if b.cycles < a.cycles { b } else { a });
            cheapest.inspect(|way| row.count(way.keys, shape, softmax, &mut counts)).is_some()
        });
        let cycles = rates.cycles(&counts, 0..RATES);
        if possible && best.is_none_or(|best| cycles < best.0) {
            best = Some((cycles, rates, counts));
        }
    }
    best.map(|(_, rates, counts)| (rates, counts))
}

/// What each way to compute a row leaves of its keys, and costs: priced once for every set of precisions.
fn ways(
    machine: &Machine,
    rates: &Rates,
    head: &HeadWork,
    shape: &AttentionShape,
    softmax: Softmax,
) -> Vec<(Row, Vec<Way>)> {
    let count = |row: &Row, keys: [u32; 3]| {
        let mut counts = [0.0; RATES];
        row.count(keys, shape, softmax, &mut counts);
        counts
    };
    let of_row = |band: &Band| {
        let row = Row::of(machine, head.block_size, band.queries).without_dips(rates, shape, softmax);
        let keys = row.keys(band);
        let ways = RowPromotion::ways(row.of_vector).iter().filter_map(|way| row.promoted(keys, way));
        (row, ways.map(|keys| Way { keys, cycles: rates.cycles(&count(&row, keys), 0..RATES) }).collect())
    };
    head.bands[0].iter().map(of_row).collect()
}

/// One way to compute a row.
struct Way {
    /// By precision.
    keys: [u32; 3],
    cycles: f64,
}

/// How one core runs one head of one example, where kernels were timed.
pub(crate) fn plan(
    machine: &Machine,
    head: &HeadWork,
    shape: &AttentionShape,
    softmax: Softmax,
    stages: &Stages,
) -> Option<Plan> {
    let (rates, counts) = cheapest(machine, head, shape, softmax)?;
    let cycles = rates.cycles(&counts, 0..RATES);
    let products = rates.cycles(&counts, 0..SOFTMAX);
    let vector = rates.cycles(&counts, SOFTMAX..BLOCK);
    let bytes = traffic::fused(machine, head, shape);
    // What the caches take is part of what was timed, and so is DRAM where there is nothing to fetch from it.
    let in_caches = fits_the_caches(machine, shape);
    let from_dram = bytes.last().map_or(0.0, |bytes| dram_cycles(machine, *bytes));
    let transfers = if in_caches { 0.0 } else { from_dram };
    Some(Plan {
        qk: products / 2.0,
        softmax: vector,
        pv: products / 2.0,
        blocks: rates.cycles(&counts, BLOCK..RATES),
        behind: [(transfers, cycles), (0.0, 0.0), (0.0, 0.0)],
        matrix_busy: products,
        // Energy goes by what softmax asks of the lanes: what was timed may fall where a run is computed more finely.
        vector_busy: stages.softmax,
        levels_in_time: bytes.len() - usize::from(!in_caches),
        bytes,
        ..Plan::default()
    })
}

/// One block row of a head.
#[derive(Clone, Copy)]
struct Row {
    size: BlockSize,
    /// Blocks that share a vector of keys: an odd one leaves half of it empty.
    of_vector: u32,
    /// Lanes of a vector of 16; zero where they are fewer, which no loads are counted for.
    wide: f64,
    /// At each precision, whether loads are counted that products with too few keys wait for.
    waits: [bool; 3],
    tiles: f64,
    /// Those of whole tiles.
    queries: f64,
    /// Bytes that a core's own caches hold.
    near: f64,
}

impl Row {
    fn of(machine: &Machine, size: BlockSize, queries: u32) -> Self {
        let tile = machine.tile_queries.min(size.tokens());
        let tiles = queries.div_ceil(tile);
        Self {
            size,
            of_vector: if size == BlockSize::B8 && machine.lanes > 8.0 { 2 } else { 1 },
            wide: if machine.lanes >= 16.0 { machine.lanes } else { 0.0 },
            waits: [true; 3],
            tiles: f64::from(tiles),
            queries: f64::from(tiles * tile),
            near: near_bytes(machine),
        }
    }

    /// By precision; of blocks that share a vector whole ones, for that is computed whole.
    fn keys(self, band: &Band) -> [u32; 3] {
        let unit = self.unit();
        band.keys_by_precision().map(|keys| keys.next_multiple_of(unit))
    }

    /// What a way to compute so many `keys` leaves of each precision.
    fn promoted(self, keys: [u32; 3], way: &RowPromotion) -> Option<[u32; 3]> {
        let unit = self.unit();
        Some(way.blocks(keys.map(|keys| keys / unit))?.map(|blocks| blocks * unit))
    }

    fn unit(self) -> u32 {
        if self.of_vector > 1 { self.size.tokens() } else { 1 }
    }

    /// The share of a head's words at one precision that come from afar.
    fn far(self, at: usize, shape: &AttentionShape) -> f64 {
        (head_bytes(shape, PER_WORD[at]) / (HEADS_SHARE * self.near) - 1.0).clamp(0.0, 1.0)
    }

    /// Of so many keys or features, those that are missing, as [`KernelTimes::load_cycles`] has it.
    fn missing(self, of: f64) -> f64 {
        let two = 2.0 * self.wide;
        (two - of).max(0.0) + TO_THREE * (two + self.wide - of.max(two)).max(0.0)
    }

    /// With loads that few keys wait for counted only where the price cannot fall for it: a block that is raised adds at least
    /// a key's price less the loads that it saves others, and saves at most a whole key's of its own precision. That is no less
    /// at any precision whose whole keys are cheaper, and where they are dearer, raising all of them costs least. A block that
    /// was left out saves nothing.
    fn without_dips(self, rates: &Rates, shape: &AttentionShape, softmax: Softmax) -> Self {
        let (features, mut waits) = (f64::from(shape.head_dim), self.waits);
        // Where two blocks share a vector, one that begins it adds a whole vector's scores, and saves its loads, for half its keys.
        let keys = if self.of_vector > 1 { 0.5 } else { 1.0 };
        // For each query of the row: products with a key, its softmax and its words from afar.
        let of_key = |at: usize, saves: bool| {
            let softmax = if at == 0 && softmax == Softmax::Integer { INTEGER_SOFTMAX } else { SOFTMAX + at };
            let far = self.tiles / self.queries * features / PER_WORD[at] * self.far(at, shape);
            let loads = (keys * self.missing(features) - if saves { features } else { 0.0 }) / (2.0 * PER_WORD[at]);
            let product = rates.0[at] * features * (1.0 + keys) / 2.0;
            product + rates.0[softmax] + rates.0[FAR_WORD] * far * keys + rates.0[LOAD] * loads
        };
        for (fine, waits) in waits.iter_mut().enumerate() {
            let saved = (0..fine).map(|coarse| of_key(coarse, false)).chain([0.0]);
            *waits &= !saved.into_iter().any(|saved| of_key(fine, true) < saved && saved < of_key(fine, false));
        }
        Self { waits, ..self }
    }

    /// Nothing here is rounded up but to whole vectors: then the price of a row, with every [`RowPromotion`] and
    /// [`without_dips`](Self::without_dips), never falls when a block is raised.
    fn count(self, keys: [u32; 3], shape: &AttentionShape, softmax: Softmax, counts: &mut [f64; RATES]) {
        let Self { size, of_vector, waits, tiles, queries, .. } = self;
        let features = f64::from(shape.head_dim);
        counts[TILE] += tiles;
        if keys[0] > 0 && keys[1] + keys[2] > 0 {
            counts[MIX] += tiles;
        }
        counts[OUTPUT] += tiles * features;
        for (precision, keys) in Precision::ALL.into_iter().zip(keys).filter(|(_, keys)| *keys > 0) {
            let at = precision.index();
            let (keys, blocks) = (f64::from(keys), keys.div_ceil(size.tokens()));
            let missing = blocks.next_multiple_of(of_vector) - blocks;
            let scored = keys + f64::from(missing * size.tokens());
            let integer = precision == Precision::Int8 && softmax == Softmax::Integer;
            // The first product is computed for the padding, too.
            counts[at] += queries * (keys + scored) / 2.0 * features;
            let few = if waits[at] { self.missing(scored) } else { 0.0 };
            counts[LOAD] += queries * (few * features + keys * self.missing(features)) / (2.0 * PER_WORD[at]);
            counts[if integer { INTEGER_SOFTMAX } else { SOFTMAX + at }] += queries * scored;
            counts[BLOCK] += tiles * f64::from(blocks);
            counts[RUN] += tiles;
            counts[FAR_WORD] += tiles * keys * features / PER_WORD[at] * self.far(at, shape);
        }
    }
}

/// What a head that is packed for some precisions costs beside its rows. At each of them the keys are packed that the mask needs
/// at that precision, at a finer one, or at a coarser one for which nothing is packed. Keys that a row needs more finely than its
/// mask says are not counted for that: then a price would depend on other rows' promotions.
fn count_head(
    machine: &Machine,
    head: &HeadWork,
    packed: [bool; 3],
    shape: &AttentionShape,
    counts: &mut [f64; RATES],
) {
    let (queries, keys, features) = (f64::from(shape.queries), f64::from(shape.keys), f64::from(shape.head_dim));
    let of_head = 4.0 * features * 2.0 * (queries + keys);
    let forms = PER_WORD.into_iter().zip(packed).filter(|(_, packed)| *packed);
    let of_forms: f64 =
        forms.map(|(per_word, _)| packed_tokens(per_word, queries, keys) * 4.0 * features / per_word).sum();
    let near = near_bytes(machine);
    let (all, one) = (f64::from(shape.heads) * of_head / machine.cores + of_forms, of_head + of_forms);
    // What is packed, in all its forms in turn, is waited for once more; whatever is packed of it, all of it is asked for.
    let waited_for = if packed[0] || packed[1] { queries + 2.0 * keys } else { keys };
    for (at, held, [from, to]) in [(FAR_BYTE, all, FAR), (FARTHER_BYTE, all, FARTHER), (CROWDED_BYTE, one, CROWDED)] {
        let share = ((held / near - from) / (to - from)).clamp(0.0, 1.0);
        counts[at] += (of_head + 4.0 * features * waited_for) * share;
    }
    // Of all rows, at one precision or a finer one.
    let needed = head.bands.last().and_then(|all| all.first()).map_or([0; 3], |all| all.keys);
    let mut from = 0;
    for (at, per_word) in PER_WORD.into_iter().enumerate().filter(|(at, _)| packed[*at]) {
        let needed = f64::from(needed[from]);
        counts[PACK + at] += packed_tokens(per_word, queries, needed) * features;
        counts[PACK_KEY] += if features / per_word % machine.lanes == 0.0 { 0.0 } else { needed };
        from = at + 1;
    }
    counts[HEAD] += 1.0;
}

/// Tokens that are packed where a word has so many numbers, of all three tensors.
fn packed_tokens(per_word: f64, queries: f64, keys: f64) -> f64 {
    if per_word > 1.0 { queries + 2.0 * keys } else { keys }
}

/// Bytes of a head's inputs and outputs, and of what is packed of it at one precision.
fn head_bytes(shape: &AttentionShape, per_word: f64) -> f64 {
    let (queries, keys) = (f64::from(shape.queries), f64::from(shape.keys));
    let packed = 2.0 * keys + if per_word > 1.0 { queries } else { 0.0 };
    4.0 * f64::from(shape.head_dim) * (2.0 * (queries + keys) + packed / per_word)
}

/// Bytes that the caches of one core alone hold: the last two levels are a cache that cores share, and DRAM.
fn near_bytes(machine: &Machine) -> f64 {
    let own = machine.levels.iter().rev().nth(2).or(machine.levels.first());
    own.map_or(f64::INFINITY, |own| own.core_bytes)
}

/// Whether queries, keys, values and outputs of a module lie in the last cache, as they did when times were taken.
pub(crate) fn fits_the_caches(machine: &Machine, shape: &AttentionShape) -> bool {
    let tokens = 2.0 * (f64::from(shape.queries) + f64::from(shape.keys));
    let bytes = 4.0 * f64::from(shape.heads) * f64::from(shape.head_dim) * tokens;
    machine.levels.iter().rev().nth(1).is_some_and(|cache| bytes <= cache.core_bytes * machine.cores)
}
