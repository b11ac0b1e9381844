//! FuseMax: online softmax in a waterfall of phases that keeps both units busy.

use maskwright_blueprint::AttentionShape;

use crate::{
    Band, HeadWork, Softmax,
    machine::Machine,
    plan::{Plan, Stages},
    traffic,
};

/// Operations of FuseMax's exponential on the matrix unit: six MACs and an addition, then one for the row's sum. A device
/// whose lanes take longer for a score's softmax takes as long on its processing elements.
const EXPONENTIAL: f64 = 8.0;

/// FuseMax's waterfall: in every phase the larger of matrix and vector unit.
///
/// Per native tile: scores and their maximum while the last tile's output is rescaled; the running maximum; exponentials
/// and sums; `P V` while the output is corrected. Elementwise steps take one cycle of every processing element.
pub(crate) fn plan(
    machine: &Machine,
    head: &HeadWork,
    shape: &AttentionShape,
    stages: &Stages,
    softmax: Softmax,
) -> Plan {
    let (mut combined, mut vector, mut on_matrix) = (stages.blocks, 0.0, 0.0);
    for band in head.bands_of(machine.tile_queries) {
        for phase in phases(machine, *band, shape.head_dim, softmax) {
            combined += machine.together(phase.matrix, phase.vector);
            vector += phase.vector;
        }
        on_matrix += machine.elementwise_on_matrix(*band, [1.0; 3])
            + machine.elementwise_on_matrix(*band, exponential(machine, softmax));
    }
    let bytes = dram_bytes(machine, head, shape);
    let mut plan = Plan::overlapped(machine, head, shape, stages, (combined, vector), bytes);
    plan.matrix_busy += on_matrix;
    plan.elementwise = exponential(machine, softmax);
    plan
}

/// Operations of one score's exponential, by precision.
fn exponential(machine: &Machine, softmax: Softmax) -> [f64; 3] {
    machine.softmax_lane_cycles(softmax).map(|cycles| cycles.max(EXPONENTIAL))
}

/// One core's cycles of both units in one phase.
pub(crate) struct Phase {
    /// For a drawing: what each unit does.
    pub names: [&'static str; 2],
    pub matrix: f64,
    pub vector: f64,
}

/// The phases of one band, in order; the units of a phase run at once.
pub(crate) fn phases(machine: &Machine, band: Band, head_dim: u32, softmax: Softmax) -> [Phase; 4] {
    let dim = f64::from(head_dim);
    let product = machine.product(band, head_dim).cycles;
    let on_matrix = machine.elementwise_on_matrix(band, [1.0; 3]);
    let exponential = exponential(machine, softmax);
    let exponentials = machine.elementwise_on_matrix(band, exponential);
    // One value for each query row and native tile of keys on the lanes, and one for each row of the output.
    let on_vector = f64::from(band.queries) * f64::from(band.keys[0].div_ceil(machine.tile_keys)) / machine.lanes;
    let rows = f64::from(band.queries) / machine.lanes;
    [
        Phase { names: ["C", "sums"], matrix: product + on_matrix, vector: on_vector * (1.0 + dim) + rows * dim },
        Phase { names: ["", "maximum"], matrix: 0.0, vector: on_vector },
        Phase { names: ["exp", "exp"], matrix: exponentials, vector: exponential[2] * on_vector },
        Phase { names: ["O", "scale"], matrix: product, vector: dim * on_vector },
    ]
}

/// Q, the output and each row's maximum, sum and correction stay on chip for a band of queries, in half of the level for
/// double buffering; K and V stream past once a band.
fn dram_bytes(machine: &Machine, head: &HeadWork, shape: &AttentionShape) -> Vec<f64> {
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
