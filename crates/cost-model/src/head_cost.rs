use std::{iter::Sum, ops::Add};

use maskwright_blueprint::{AttentionShape, Bytes, Joules, Seconds};

use crate::{Band, Dataflow, HeadWork, Softmax, device::MOST_LEVELS, flat, machine::Machine, mas, traffic};

/// Predicted cost of one head under its mask, at the model's batch. Costs of heads add up to that of their modules.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct HeadCost {
    /// Where the time goes; every entry is time that nothing before it hides.
    pub(crate) exposed: Exposed,
    /// How long each unit is busy, hidden or not.
    pub(crate) busy: Busy,
    pub(crate) mac_joules: f64,
    pub(crate) lane_joules: f64,
    /// Bytes that leave each memory level.
    pub(crate) bytes: [f64; MOST_LEVELS],
    pub(crate) memory_joules: f64,
    pub(crate) macs: f64,
    /// Seconds of the MACs at the device's peak.
    pub(crate) ideal: f64,
    /// The largest power that one head's work draws, without the static part.
    pub(crate) watts: f64,
}

/// Seconds by term; their sum is the time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Exposed {
    pub qk: f64,
    pub softmax: f64,
    pub pv: f64,
    pub memory: f64,
    pub blocks: f64,
    pub fill: f64,
    pub linears: f64,
    pub elementwise: f64,
}

/// Seconds by unit; they may overlap.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Busy {
    pub matrix: f64,
    pub vector: f64,
    pub overhead: f64,
}

impl Exposed {
    pub fn total(&self) -> f64 {
        self.qk + self.softmax + self.pv + self.memory + self.blocks + self.fill + self.linears + self.elementwise
    }
}

impl HeadCost {
    /// Predicted time.
    pub fn seconds(&self) -> Seconds {
        Seconds(self.exposed.total())
    }

    /// Predicted energy without the device's static power, which is a matter of the time of everything together.
    pub fn dynamic_joules(&self) -> Joules {
        Joules(self.mac_joules + self.lane_joules + self.memory_joules)
    }

    /// Bytes that leave the innermost memory level.
    pub fn on_chip_bytes(&self) -> Bytes {
        Bytes(self.bytes[0])
    }
}

impl Add for HeadCost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let (a, b) = (self, other);
        Self {
            exposed: Exposed {
                qk: a.exposed.qk + b.exposed.qk,
                softmax: a.exposed.softmax + b.exposed.softmax,
                pv: a.exposed.pv + b.exposed.pv,
                memory: a.exposed.memory + b.exposed.memory,
                blocks: a.exposed.blocks + b.exposed.blocks,
                fill: a.exposed.fill + b.exposed.fill,
                linears: a.exposed.linears + b.exposed.linears,
                elementwise: a.exposed.elementwise + b.exposed.elementwise,
            },
            busy: Busy {
                matrix: a.busy.matrix + b.busy.matrix,
                vector: a.busy.vector + b.busy.vector,
                overhead: a.busy.overhead + b.busy.overhead,
            },
            mac_joules: a.mac_joules + b.mac_joules,
            lane_joules: a.lane_joules + b.lane_joules,
            bytes: std::array::from_fn(|level| a.bytes[level] + b.bytes[level]),
            memory_joules: a.memory_joules + b.memory_joules,
            macs: a.macs + b.macs,
            ideal: a.ideal + b.ideal,
            watts: a.watts.max(b.watts),
        }
    }
}

impl Sum for HeadCost {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::default(), Add::add)
    }
}

/// What one head takes before it is put on cores: cycles of one core and bytes of one example.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stages {
    /// Matrix cycles of `Q K^T`; those of `P V` are the same.
    pub product: f64,
    pub softmax: f64,
    pub overhead: f64,
}

impl Stages {
    pub fn of(machine: &Machine, head: &HeadWork, shape: &AttentionShape, softmax: Softmax) -> Self {
        let mut stages = Self::of_bands(machine, head.bands_of(machine.tile_queries), shape, softmax);
        stages.overhead += machine.block_cycles * head.active_blocks() as f64;
        stages
    }

    /// Of some of a head's native bands, without the cost of each block.
    pub fn of_bands(machine: &Machine, bands: &[Band], shape: &AttentionShape, softmax: Softmax) -> Self {
        let mut stages = Self::default();
        for band in bands {
            let product = machine.product(*band, shape.head_dim);
            stages.product += product.cycles;
            stages.overhead += product.run_cycles;
            stages.softmax += machine.softmax_cycles(*band, softmax);
        }
        stages
    }
}

/// Times by term and traffic of one head, before energies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// Cycles of one core: `Q K^T`, softmax, `P V`, blocks; what is hidden is zero here.
    pub qk: f64,
    pub softmax: f64,
    pub pv: f64,
    pub blocks: f64,
    /// Cycles of one core that wait for memory.
    pub memory: f64,
    /// Cycles of one core in which the units are busy.
    pub matrix_busy: f64,
    pub vector_busy: f64,
    /// Elementwise operations of the matrix unit for each score; each costs the energy of a MAC.
    pub elementwise: f64,
    /// Bytes that leave each level.
    pub bytes: Vec<f64>,
}

impl Plan {
    /// Matrix work, vector work and transfers run at once: what the slower ones do not hide of each other.
    ///
    /// `qk + pv` is the matrix unit's time (with the overheads it waits for), `vector` the other unit's; `combined` is
    /// what both take together, at least each of them.
    pub fn overlapped(machine: &Machine, stages: &Stages, combined: f64, vector_busy: f64, bytes: Vec<f64>) -> Self {
        let matrix = 2.0 * stages.product;
        let transfers = transfer_cycles(machine, &bytes);
        Self {
            qk: stages.product,
            pv: stages.product,
            blocks: stages.overhead,
            softmax: (combined - matrix - stages.overhead).max(0.0),
            memory: (transfers - combined).max(0.0),
            matrix_busy: matrix,
            vector_busy,
            elementwise: 0.0,
            bytes,
        }
    }
}

/// One core's cycles for the slowest level's transfers, if all cores do the same.
pub(crate) fn transfer_cycles(machine: &Machine, bytes: &[f64]) -> f64 {
    let seconds = bytes.iter().zip(&machine.levels).map(|(bytes, level)| bytes / level.bytes_per_s);
    seconds.fold(0.0, f64::max) * machine.hertz * machine.cores
}

/// One core's cycles for bytes from DRAM alone.
pub(crate) fn dram_cycles(machine: &Machine, bytes: f64) -> f64 {
    bytes / machine.dram().bytes_per_s * machine.hertz * machine.cores
}

/// Prices one head under a dataflow.
pub(crate) fn price(
    machine: &Machine,
    dataflow: Dataflow,
    batch: f64,
    head: &HeadWork,
    shape: &AttentionShape,
    softmax: Softmax,
) -> HeadCost {
    let stages = Stages::of(machine, head, shape, softmax);
    let plan = match dataflow {
        Dataflow::LayerWise => layer_wise(machine, head, shape, &stages),
        Dataflow::SoftPipe => soft_pipe(machine, head, shape, &stages),
        Dataflow::Flat => flat::plan(machine, head, shape, &stages),
        Dataflow::TileFlow => tile_flow(machine, head, shape, &stages),
        Dataflow::Flash => flash(machine, head, shape, &stages, softmax),
        Dataflow::FuseMax => fuse_max(machine, head, shape, &stages),
        Dataflow::Mas => mas::plan(machine, head, shape, &stages, softmax),
    };
    // Cores take whole bands; those of the last round may stand still.
    let bands = f64::from(shape.heads) * batch * head.bands_of(machine.tile_queries).len() as f64;
    let idle = (bands / machine.cores).ceil() / (bands / machine.cores);
    let seconds = |cycles: f64| cycles * batch / machine.cores / machine.hertz * idle;
    // Transfers belong to the whole device: idle cores do not slow them down.
    let waiting = |cycles: f64| cycles * batch / machine.cores / machine.hertz;
    let exposed = Exposed {
        qk: seconds(plan.qk),
        softmax: seconds(plan.softmax),
        pv: seconds(plan.pv),
        blocks: seconds(plan.blocks),
        memory: waiting(plan.memory),
        ..Exposed::default()
    };
    let macs = head.scores.map(|scores| 2.0 * scores as f64 * f64::from(shape.head_dim) * batch);
    let mut bytes = [0.0; MOST_LEVELS];
    for (total, bytes) in bytes.iter_mut().zip(&plan.bytes) {
        *total = bytes * batch;
    }
    let mut cost = HeadCost {
        exposed,
        busy: Busy {
            matrix: seconds(plan.matrix_busy),
            vector: seconds(plan.vector_busy),
            overhead: seconds(plan.blocks),
        },
        mac_joules: macs.iter().zip(machine.joules_per_mac).map(|(macs, joules)| macs * joules).sum::<f64>()
            * (1.0 + plan.elementwise / (2.0 * f64::from(shape.head_dim))),
        lane_joules: plan.vector_busy * machine.lanes * batch * machine.joules_per_lane_cycle,
        bytes,
        memory_joules: bytes.iter().zip(&machine.levels).map(|(bytes, level)| bytes * level.joules_per_byte).sum(),
        macs: macs.iter().sum(),
        ideal: machine.ideal_seconds(macs),
        watts: 0.0,
    };
    cost.watts = cost.dynamic_joules().0 / cost.exposed.total();
    cost
}

/// Bytes of the score matrix as it leaves for DRAM; 8-bit products leave at 16 bit.
fn score_bytes(head: &HeadWork) -> f64 {
    weighted(head, [2.0, 2.0, 4.0])
}

/// Bytes of the probabilities.
fn probability_bytes(head: &HeadWork) -> f64 {
    weighted(head, [1.0, 2.0, 4.0])
}

fn weighted(head: &HeadWork, bytes: [f64; 3]) -> f64 {
    head.scores.iter().zip(bytes).map(|(scores, bytes)| *scores as f64 * bytes).sum()
}

/// `max(memory, compute)` of `Q K^T`, softmax and `P V`, one after the other; every operand passes DRAM once a stage.
fn layer_wise(machine: &Machine, head: &HeadWork, shape: &AttentionShape, stages: &Stages) -> Plan {
    let queries = traffic::query_bytes(head, shape.head_dim);
    let keys = traffic::key_bytes(head.whole(), shape.head_dim);
    let (scores, probabilities) = (score_bytes(head), probability_bytes(head));
    let dram = [queries + keys + scores, scores + probabilities, probabilities + keys + queries];
    let compute = [stages.product, stages.softmax, stages.product];
    let memory = dram.iter().zip(compute).map(|(bytes, cycles)| (dram_cycles(machine, *bytes) - cycles).max(0.0)).sum();
    Plan {
        qk: stages.product,
        softmax: stages.softmax,
        pv: stages.product,
        blocks: stages.overhead,
        memory,
        matrix_busy: 2.0 * stages.product,
        vector_busy: stages.softmax,
        elementwise: 0.0,
        bytes: through_dram(machine, head, shape, dram.iter().sum()),
    }
}

/// As layer-wise, but softmax takes each row from `Q K^T` while it is on chip.
fn soft_pipe(machine: &Machine, head: &HeadWork, shape: &AttentionShape, stages: &Stages) -> Plan {
    let queries = traffic::query_bytes(head, shape.head_dim);
    let keys = traffic::key_bytes(head.whole(), shape.head_dim);
    let probabilities = probability_bytes(head);
    let dram = [queries + keys + probabilities, probabilities + keys + queries];
    let first = machine.together(stages.product, stages.softmax);
    let compute = [first, stages.product];
    let memory = dram.iter().zip(compute).map(|(bytes, cycles)| (dram_cycles(machine, *bytes) - cycles).max(0.0)).sum();
    Plan {
        qk: stages.product,
        softmax: first - stages.product,
        pv: stages.product,
        blocks: stages.overhead,
        memory,
        matrix_busy: 2.0 * stages.product,
        vector_busy: stages.softmax,
        elementwise: 0.0,
        bytes: through_dram(machine, head, shape, dram.iter().sum()),
    }
}

/// Fused row tiles, stages in sequence, transfers behind them (TileFlow, MICRO'23).
fn tile_flow(machine: &Machine, head: &HeadWork, shape: &AttentionShape, stages: &Stages) -> Plan {
    let compute = 2.0 * stages.product + stages.softmax + stages.overhead;
    Plan::overlapped(machine, stages, compute, stages.softmax, traffic::fused(machine, head, shape))
}

/// Online softmax over chunks of keys; each band is as slow as its slower unit.
fn flash(machine: &Machine, head: &HeadWork, shape: &AttentionShape, stages: &Stages, softmax: Softmax) -> Plan {
    let (mut combined, mut vector) = (0.0, 0.0);
    for band in head.bands_of(machine.tile_queries) {
        let product = machine.product(*band, shape.head_dim);
        // A new chunk with a larger maximum rescales the output rows, one lane-cycle an element.
        let chunks = f64::from(band.keys[0].div_ceil(FLASH_CHUNK));
        let rescale = (chunks - 1.0) * f64::from(band.queries) * f64::from(shape.head_dim) / machine.lanes;
        let lanes = machine.softmax_cycles(*band, softmax) + rescale;
        vector += lanes;
        combined += machine.together(2.0 * product.cycles + product.run_cycles, lanes);
    }
    let blocks = machine.block_cycles * head.active_blocks() as f64;
    Plan::overlapped(machine, stages, combined + blocks, vector, traffic::fused(machine, head, shape))
}

/// Keys over which an online softmax takes one maximum.
const FLASH_CHUNK: u32 = 256;

/// Operations of FuseMax's exponential on the matrix unit: six MACs and an addition, then one for the row's sum.
const FUSE_MAX_EXP: f64 = 8.0;

/// FuseMax's waterfall: in every phase the larger of matrix and vector unit.
///
/// Per native tile: scores and their maximum while the last tile's output is rescaled; the running maximum; exponentials
/// and sums; `P V` while the output is corrected. Elementwise steps take one cycle of every processing element.
fn fuse_max(machine: &Machine, head: &HeadWork, shape: &AttentionShape, stages: &Stages) -> Plan {
    let dim = f64::from(shape.head_dim);
    let on_matrix = stages.product / dim;
    // One value for each query row and native tile of keys on the lanes.
    let (mut on_vector, mut rows) = (0.0, 0.0);
    for band in head.bands_of(machine.tile_queries) {
        on_vector += f64::from(band.queries * band.keys[0].div_ceil(machine.tile_keys)) / machine.lanes;
        rows += f64::from(band.queries) / machine.lanes;
    }
    let scores = machine.together(stages.product + on_matrix, on_vector * (1.0 + dim) + rows * dim);
    let exponentials = machine.together(FUSE_MAX_EXP * on_matrix, FUSE_MAX_EXP * on_vector);
    let outputs = machine.together(stages.product, dim * on_vector);
    let combined = scores + on_vector + exponentials + outputs + stages.overhead;
    let vector = on_vector * (2.0 + 2.0 * dim + FUSE_MAX_EXP) + rows * dim;
    let mut plan = Plan::overlapped(machine, stages, combined, vector, fuse_max_traffic(machine, head, shape));
    plan.matrix_busy += (1.0 + FUSE_MAX_EXP) * on_matrix;
    plan.elementwise = FUSE_MAX_EXP;
    plan
}

/// Q, the output and each row's maximum, sum and correction stay on chip for a band of queries, in half of the level for
/// double buffering; K and V stream past once a band.
fn fuse_max_traffic(machine: &Machine, head: &HeadWork, shape: &AttentionShape) -> Vec<f64> {
    let width = f64::from(head.whole().finest().bytes());
    let dim = f64::from(shape.head_dim);
    let operands =
        |bands: &[Band]| bands.iter().map(|band| 2.0 * traffic::key_bytes(*band, shape.head_dim)).sum::<f64>();
    let mut bytes = traffic::fused(machine, head, shape);
    for (level, inside) in machine.levels[..machine.levels.len() - 1].iter().enumerate() {
        let keys = 4.0 * f64::from(machine.tile_keys) * dim * width;
        let fits = |bands: &&Vec<Band>| {
            (2.0 * dim + 2.0) * width * f64::from(bands[0].queries) <= inside.core_bytes / 2.0 - keys
        };
        let native = head.bands_of(machine.tile_queries);
        let bands = head.bands.iter().rev().find(fits).map_or(native, Vec::as_slice);
        let bands = if bands.len() < native.len() { bands } else { native };
        bytes[level + 1] = 2.0 * traffic::query_bytes(head, shape.head_dim) + operands(bands);
    }
    bytes
}

/// Traffic of dataflows that send scores through DRAM: every level passes on what DRAM gives, the innermost the operands.
fn through_dram(machine: &Machine, head: &HeadWork, shape: &AttentionShape, dram: f64) -> Vec<f64> {
    let mut bytes = traffic::fused(machine, head, shape);
    for bytes in bytes.iter_mut() {
        *bytes = bytes.max(dram);
    }
    if let Some(last) = bytes.last_mut() {
        *last = dram;
    }
    bytes
}
