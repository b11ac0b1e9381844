use std::{iter::Sum, ops::Add};

use maskwright_blueprint::{AttentionShape, BlockSize, Seconds};

use crate::{
    Dataflow, HeadWork, Softmax, Units,
    device::MOST_LEVELS,
    flash, flat, fuse_max, kernel_times, layered,
    machine::Machine,
    mas,
    plan::{Plan, Stages, native_rows},
};

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
    /// With softmax.
    pub vector: f64,
    /// The vector unit with anything else.
    pub elementwise: f64,
    pub overhead: f64,
    /// By level, those that are not part of any other time.
    pub levels: [f64; MOST_LEVELS],
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

    /// The same work several times over; a fraction is an average.
    pub(crate) fn times(&self, times: f64) -> Self {
        let Self { exposed, busy, .. } = *self;
        Self {
            exposed: Exposed {
                qk: exposed.qk * times,
                softmax: exposed.softmax * times,
                pv: exposed.pv * times,
                memory: exposed.memory * times,
                blocks: exposed.blocks * times,
                fill: exposed.fill * times,
                linears: exposed.linears * times,
                elementwise: exposed.elementwise * times,
            },
            busy: Busy {
                matrix: busy.matrix * times,
                vector: busy.vector * times,
                elementwise: busy.elementwise * times,
                overhead: busy.overhead * times,
                levels: busy.levels.map(|seconds| seconds * times),
            },
            mac_joules: self.mac_joules * times,
            lane_joules: self.lane_joules * times,
            bytes: self.bytes.map(|bytes| bytes * times),
            memory_joules: self.memory_joules * times,
            macs: self.macs * times,
            ideal: self.ideal * times,
            watts: self.watts,
        }
    }

    /// Dynamic power while everything runs at once that may: all units where they are separate, else the hungrier one.
    pub(crate) fn phase_watts(&self, machine: &Machine) -> f64 {
        let over = |joules: f64, seconds: f64| if seconds > 0.0 { joules / seconds } else { 0.0 };
        let transfers = self.bytes.iter().zip(&machine.levels).map(|(bytes, level)| bytes / level.bytes_per_s);
        let memory = over(self.memory_joules, transfers.fold(0.0, f64::max));
        let (matrix, vector) =
            (over(self.mac_joules, self.busy.matrix), over(self.lane_joules, self.busy.vector + self.busy.elementwise));
        memory
            + match machine.units {
                Units::Separate => matrix + vector,
                Units::Shared => matrix.max(vector),
            }
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
                elementwise: a.busy.elementwise + b.busy.elementwise,
                overhead: a.busy.overhead + b.busy.overhead,
                levels: std::array::from_fn(|level| a.busy.levels[level] + b.busy.levels[level]),
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

/// A dataflow with what it decides for a shape, block size and softmax, whatever the mask.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mapping {
    /// Nothing to decide.
    Of(Dataflow),
    Flat(flat::Mapping),
    /// Which bands are row tiles.
    Mas(usize),
}

impl Mapping {
    pub fn choose(
        machine: &Machine,
        dataflow: Dataflow,
        block_size: BlockSize,
        shape: &AttentionShape,
        softmax: Softmax,
    ) -> Self {
        match dataflow {
            Dataflow::Flat => Self::Flat(flat::Mapping::choose(machine, block_size, shape)),
            Dataflow::Mas => Self::Mas(mas::row_tile(machine, block_size, shape, softmax)),
            other => Self::Of(other),
        }
    }
}

/// How one core runs one head of one example.
pub(crate) fn plan(
    machine: &Machine,
    mapping: &Mapping,
    head: &HeadWork,
    shape: &AttentionShape,
    softmax: Softmax,
) -> Plan {
    let stages = Stages::of(machine, head, shape, softmax);
    match *mapping {
        Mapping::Of(dataflow) => match dataflow {
            Dataflow::LayerWise => layered::layer_wise(machine, head, shape, &stages),
            Dataflow::SoftPipe => layered::soft_pipe(machine, head, shape, &stages),
            Dataflow::TileFlow => flash::tile_flow(machine, head, shape, &stages),
            Dataflow::FuseMax => fuse_max::plan(machine, head, shape, &stages, softmax),
            _ => kernel_times::plan(machine, head, shape, softmax, &stages)
                .unwrap_or_else(|| flash::flash(machine, head, shape, &stages, softmax)),
        },
        Mapping::Flat(mapping) => flat::plan(machine, &mapping, head, shape, &stages),
        Mapping::Mas(row_tile) => mas::plan(machine, row_tile, head, shape, &stages, softmax),
    }
}

/// Prices one head under a dataflow.
pub(crate) fn price(
    machine: &Machine,
    mapping: &Mapping,
    batch: f64,
    head: &HeadWork,
    shape: &AttentionShape,
    softmax: Softmax,
) -> HeadCost {
    let plan = plan(machine, mapping, head, shape, softmax);
    // Cores take whole native tiles of rows; those of the last round may stand still.
    let rounds = f64::from(shape.heads) * batch * native_rows(machine, head) / machine.cores;
    let idle = rounds.ceil() / rounds;
    let seconds = |cycles: f64| cycles * batch / machine.cores / machine.hertz * idle;
    // Transfers belong to the whole device: idle cores do not slow them down, and leave more time to hide them in.
    let longer: f64 = plan.behind.iter().map(|(transfers, work)| (transfers - work * idle).max(0.0)).sum();
    let waiting = (plan.memory + longer) * batch / machine.cores / machine.hertz;
    let exposed = Exposed {
        qk: seconds(plan.qk),
        softmax: seconds(plan.softmax),
        pv: seconds(plan.pv),
        blocks: seconds(plan.blocks),
        memory: waiting,
        ..Exposed::default()
    };
    let macs = head.scores.map(|scores| 2.0 * scores as f64 * f64::from(shape.head_dim) * batch);
    let (mut bytes, mut levels) = ([0.0; MOST_LEVELS], [0.0; MOST_LEVELS]);
    for (at, (of_plan, level)) in plan.bytes.iter().zip(&machine.levels).enumerate() {
        bytes[at] = of_plan * batch;
        levels[at] = if at < plan.levels_in_time { 0.0 } else { bytes[at] / level.bytes_per_s };
    }
    let mut cost = HeadCost {
        exposed,
        busy: Busy {
            matrix: seconds(plan.matrix_busy),
            vector: seconds(plan.vector_busy),
            elementwise: 0.0,
            overhead: seconds(plan.blocks),
            levels,
        },
        mac_joules: (0..macs.len())
            .map(|at| {
                let operations = macs[at] * (1.0 + plan.elementwise[at] / (2.0 * f64::from(shape.head_dim)));
                operations * machine.joules_per_mac[at]
            })
            .sum(),
        lane_joules: plan.vector_busy * machine.lanes * batch * machine.joules_per_lane_cycle,
        bytes,
        memory_joules: bytes.iter().zip(&machine.levels).map(|(bytes, level)| bytes * level.joules_per_byte).sum(),
        macs: macs.iter().sum(),
        ideal: machine.ideal_seconds(macs),
        watts: 0.0,
    };
    cost.watts = cost.phase_watts(machine);
    cost
}
