//! FLAT: bands of whole rows, scores on chip while they fit.
//!
//! Which band and which operands stay on chip is decided for the dense shape, once, as FLAT's own search did; a mask then
//! changes the counts but never the mapping, so that a block more never makes a head cheaper.

use maskwright_blueprint::{AttentionShape, BlockSize, Precision};

use crate::{
    FlatStages, HeadWork, Softmax,
    machine::Machine,
    plan::{Plan, Stages, dram_cycles},
    traffic::{key_bytes, query_bytes},
};

/// Times that a spilled score or probability passes DRAM: `Q K^T` writes it; maximum and exponential read it; the
/// exponential writes it; the division reads and writes it; `P V` reads it.
const SPILLED_PASSES: f64 = 7.0;

/// Those of them that the matrix unit waits for: its own.
const SPILLED_PASSES_OF_PRODUCTS: f64 = 2.0;

/// The same when the whole matrix goes through DRAM and softmax keeps one row at a time on chip.
const STREAMED_PASSES: f64 = 4.0;

/// Native tiles of queries in the largest band that is not a whole head.
const LARGEST_BAND: u32 = 4;

/// Operands that stay on chip.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Resident {
    q: bool,
    k: bool,
    v: bool,
}

impl Resident {
    const CHOICES: [Self; 5] = [
        Self { q: false, k: false, v: false },
        Self { q: false, k: false, v: true },
        Self { q: true, k: false, v: false },
        Self { q: false, k: true, v: true },
        Self { q: true, k: true, v: true },
    ];
}

/// How FLAT runs a shape on a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mapping {
    /// Query tokens of a band.
    band: u32,
    resident: Resident,
}

pub(crate) fn plan(
    machine: &Machine,
    mapping: &Mapping,
    head: &HeadWork,
    shape: &AttentionShape,
    stages: &Stages,
) -> Plan {
    let dram = mapping.dram_bytes(machine, head, shape, SPILLED_PASSES).min(streamed(machine, head, shape));
    let mut bytes = crate::traffic::fused(machine, head, shape);
    if let Some(last) = bytes.last_mut() {
        *last = dram;
    }
    match machine.flat_stages {
        FlatStages::Overlapped => {
            let combined = machine.together(stages.matrix(), stages.softmax);
            Plan::overlapped(machine, head, shape, stages, (combined, stages.softmax), bytes)
        }
        FlatStages::Sequential => Plan { memory: dram_cycles(machine, dram), bytes, ..stages.in_sequence() },
    }
}

impl Mapping {
    /// The fewest resident operands with which DRAM keeps pace at every precision, for the largest band that fits; where
    /// none keeps pace, nothing overlaps, or spilled scores make it slower, the band and the operands with the least traffic.
    pub fn choose(machine: &Machine, block_size: BlockSize, shape: &AttentionShape) -> Self {
        let finest = machine.finest();
        let width = f64::from(finest.bytes());
        let at = |precision: &Precision| Pace::of(machine, HeadWork::dense(shape, block_size, *precision), shape);
        let paces: Vec<Pace> =
            Precision::ALL.iter().filter(|precision| machine.supports(**precision)).map(at).collect();
        let slowest = paces.last().expect("a device computes at one precision at least");
        let bands = fitting_bands(machine, shape, width);
        let largest = bands.iter().copied().max().expect("the native tile is one of them");
        let mut choices = Resident::CHOICES.map(|resident| Self { band: largest, resident });
        choices.sort_by(|a, b| a.resident_bytes(shape, width).total_cmp(&b.resident_bytes(shape, width)));
        let traffic = |mapping: &Self| mapping.dram_bytes(machine, &slowest.dense, shape, SPILLED_PASSES);
        let keeps_pace = |mapping: &Self| {
            machine.flat_stages == FlatStages::Overlapped
                && paces.iter().all(|pace| pace.holds(machine, mapping, shape))
        };
        let paced = choices.into_iter().find(keeps_pace).map(|mapping| (traffic(&mapping), mapping));
        if let Some((_, mapping)) = paced.filter(|(bytes, _)| dram_cycles(machine, *bytes) <= slowest.units) {
            return mapping;
        }
        // Spilled scores keep it waiting, if there is one.
        let all = bands.iter().flat_map(|band| Resident::CHOICES.map(|resident| Self { band: *band, resident }));
        let all = paced.into_iter().chain(all.map(|mapping| (traffic(&mapping), mapping)));
        all.reduce(|best, next| if next.0 < best.0 { next } else { best }).expect("the native tile is a band").1
    }

    /// Space that resident operands take: the band's Q and O, or all of K and V, or V with room to be filled again.
    fn resident_bytes(&self, shape: &AttentionShape, width: f64) -> f64 {
        let row = f64::from(shape.head_dim) * width;
        let queries = if self.resident.q { 2.0 * f64::from(self.band.min(shape.queries)) * row } else { 0.0 };
        let keys = if self.resident.k || self.resident.v { 2.0 * f64::from(shape.keys) * row } else { 0.0 };
        queries + keys
    }

    /// Share of the band's working set that the chip has no room for.
    fn spilled(&self, machine: &Machine, head: &HeadWork, shape: &AttentionShape) -> f64 {
        let whole = head.whole();
        let width = f64::from(whole.finest().bytes());
        let (queries, keys) = (f64::from(machine.tile_queries), f64::from(machine.tile_keys));
        let scores = f64::from(self.band.min(shape.queries)) * score_row_bytes(whole.keys);
        let in_work = queries * keys * width + 2.0 * (queries + keys) * f64::from(shape.head_dim) * width;
        let needed = scores + in_work + self.resident_bytes(shape, width);
        (1.0 - on_chip(machine) / needed).max(0.0)
    }

    fn dram_bytes(&self, machine: &Machine, head: &HeadWork, shape: &AttentionShape, passes: f64) -> f64 {
        let spilled = self.spilled(machine, head, shape);
        let native = head.bands_of(machine.tile_queries);
        let once = query_bytes(head, shape.head_dim);
        let q_streamed: f64 = native
            .iter()
            .map(|band| {
                let tiles = f64::from(band.keys[0].div_ceil(machine.tile_keys));
                tiles * f64::from(band.queries * band.finest().bytes()) * f64::from(shape.head_dim)
            })
            .sum();
        let k_once = key_bytes(head.whole(), shape.head_dim);
        let k_streamed: f64 = native.iter().map(|band| key_bytes(*band, shape.head_dim)).sum();
        let moved = |resident: bool, once: f64, streamed: f64| {
            if resident { once + spilled * (streamed - once) } else { streamed }
        };
        let Resident { q, k, v } = self.resident;
        let operands = moved(q, once, q_streamed) + moved(k, k_once, k_streamed) + moved(v, k_once, k_streamed);
        operands + once + passes * spilled * score_bytes(head)
    }
}

/// How fast DRAM has to be for a dense head at one precision.
struct Pace {
    dense: HeadWork,
    /// Cycles of an output-stationary matrix unit, or of the units as they are where those are fewer.
    cycles: f64,
    /// Cycles of the units as they are.
    units: f64,
}

impl Pace {
    fn of(machine: &Machine, dense: HeadWork, shape: &AttentionShape) -> Self {
        let bands = dense.bands_of(machine.tile_queries).iter();
        let product: f64 = bands.clone().map(|of| machine.product(*of, shape.head_dim).cycles).sum();
        let softmax: f64 = bands.map(|band| machine.softmax_cycles(*band, Softmax::Float)).sum();
        // P V fills as many columns of the array as a head is wide, and takes as long as if it filled all.
        let stretch = f64::from(shape.head_dim.next_multiple_of(machine.tile_keys)) / f64::from(shape.head_dim);
        let units = machine.together(2.0 * product, softmax);
        Self { cycles: (product * (1.0 + stretch)).min(units), units, dense }
    }

    fn holds(&self, machine: &Machine, mapping: &Mapping, shape: &AttentionShape) -> bool {
        let bytes = mapping.dram_bytes(machine, &self.dense, shape, SPILLED_PASSES_OF_PRODUCTS);
        dram_cycles(machine, bytes) <= self.cycles
    }
}

/// Query tokens of the bands whose scores fit: the native tile, which is worked on whether it fits or not, up to
/// [`LARGEST_BAND`] of them, or the whole head.
fn fitting_bands(machine: &Machine, shape: &AttentionShape, width: f64) -> Vec<u32> {
    let native = machine.tile_queries;
    let fits = |band: &u32| f64::from(*band) * f64::from(shape.keys) * width <= on_chip(machine);
    let larger = (1..=LARGEST_BAND.ilog2()).map(|power| native << power);
    std::iter::once(native).chain(larger.chain([shape.queries]).filter(fits)).collect()
}

/// Everything through DRAM: the scores four times, K and V once for each of the largest bands, Q and O once.
fn streamed(machine: &Machine, head: &HeadWork, shape: &AttentionShape) -> f64 {
    let bands = head.bands_of(LARGEST_BAND * machine.tile_queries);
    let keys: f64 = bands.iter().map(|band| 2.0 * key_bytes(*band, shape.head_dim)).sum();
    2.0 * query_bytes(head, shape.head_dim) + keys + STREAMED_PASSES * score_bytes(head)
}

fn score_row_bytes(keys: [u32; 3]) -> f64 {
    let [any, half, single] = keys.map(f64::from);
    any + half + 2.0 * single
}

fn score_bytes(head: &HeadWork) -> f64 {
    head.scores
        .iter()
        .zip(Precision::ALL)
        .map(|(scores, precision)| *scores as f64 * f64::from(precision.bytes()))
        .sum()
}

/// What one core has of the level just inside DRAM.
fn on_chip(machine: &Machine) -> f64 {
    machine.levels[machine.levels.len() - 2].core_bytes
}
