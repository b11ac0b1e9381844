//! Dataflows that keep scores on chip tile by tile: online softmax, and the sequence of stages it replaced.

use maskwright_blueprint::AttentionShape;

use crate::{
    HeadWork, Softmax,
    machine::Machine,
    plan::{Plan, Stages},
    traffic,
};

/// Fused row tiles, stages in sequence, transfers behind them (TileFlow, MICRO'23).
pub(crate) fn tile_flow(machine: &Machine, head: &HeadWork, shape: &AttentionShape, stages: &Stages) -> Plan {
    let compute = stages.matrix() + stages.softmax;
    let bytes = traffic::fused(machine, head, shape);
    Plan::overlapped(machine, head, shape, stages, (compute, stages.softmax), bytes)
}

/// Online softmax over chunks of keys; each band is as slow as its slower unit.
pub(crate) fn flash(
    machine: &Machine,
    head: &HeadWork,
    shape: &AttentionShape,
    stages: &Stages,
    softmax: Softmax,
) -> Plan {
    let (mut combined, mut vector) = (0.0, 0.0);
    for band in head.bands_of(machine.tile_queries) {
        let product = machine.product(*band, shape.head_dim);
        // A new chunk with a larger maximum rescales the output rows, one lane-cycle an element.
        let chunks = f64::from(band.keys[0].div_ceil(FLASH_CHUNK));
        let rescale = (chunks - 1.0) * f64::from(band.queries) * f64::from(shape.head_dim) / machine.lanes;
        let lanes = machine.softmax_cycles(*band, softmax) + rescale;
        vector += lanes;
        combined += machine.together(2.0 * product.cycles, lanes);
    }
    let bytes = traffic::fused(machine, head, shape);
    Plan::overlapped(machine, head, shape, stages, (combined + stages.blocks, vector), bytes)
}

/// Keys over which an online softmax takes one maximum.
const FLASH_CHUNK: u32 = 256;
