//! Dataflows that send scores or probabilities through DRAM.

use maskwright_blueprint::AttentionShape;

use crate::{
    HeadWork,
    machine::Machine,
    plan::{Plan, Stages, dram_cycles},
    traffic,
};

/// `max(memory, compute)` of `Q K^T`, softmax and `P V`, one after the other; every operand passes DRAM once a stage.
pub(crate) fn layer_wise(machine: &Machine, head: &HeadWork, shape: &AttentionShape, stages: &Stages) -> Plan {
    let dram = layer_wise_bytes(head, shape);
    let compute = [stages.product, stages.softmax, stages.product];
    Plan {
        behind: std::array::from_fn(|stage| (dram_cycles(machine, dram[stage]), compute[stage])),
        bytes: through_dram(machine, head, shape, dram.iter().sum()),
        ..stages.in_sequence()
    }
}

/// As layer-wise, but softmax takes each row from `Q K^T` while it is on chip.
pub(crate) fn soft_pipe(machine: &Machine, head: &HeadWork, shape: &AttentionShape, stages: &Stages) -> Plan {
    let dram = soft_pipe_bytes(head, shape);
    let first = machine.together(stages.product, stages.softmax);
    Plan {
        softmax: first - stages.product,
        behind: [(dram_cycles(machine, dram[0]), first), (dram_cycles(machine, dram[1]), stages.product), (0.0, 0.0)],
        bytes: through_dram(machine, head, shape, dram.iter().sum()),
        ..stages.in_sequence()
    }
}

/// DRAM traffic of `Q K^T`, softmax and `P V`.
pub(crate) fn layer_wise_bytes(head: &HeadWork, shape: &AttentionShape) -> [f64; 3] {
    let operands = traffic::query_bytes(head, shape.head_dim) + traffic::key_bytes(head.whole(), shape.head_dim);
    let (scores, probabilities) = (score_bytes(head), probability_bytes(head));
    [operands + scores, scores + probabilities, probabilities + operands]
}

/// DRAM traffic of `Q K^T` with softmax, and of `P V`.
pub(crate) fn soft_pipe_bytes(head: &HeadWork, shape: &AttentionShape) -> [f64; 2] {
    let [_, _, output] = layer_wise_bytes(head, shape);
    [output, output]
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
