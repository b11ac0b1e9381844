use std::fmt;

use maskwright_blueprint::{Bytes, Joules, Seconds, Watts};
use serde::{Serialize, Serializer};

use crate::{
    head_cost::{Exposed, HeadCost},
    machine::Machine,
};

/// What the cost model predicts for some work on some device. Never a measurement.
///
/// Always true: the terms add up to the seconds; `joules` is at most the device's power limit times the seconds, and so is
/// each end of its band; `utilisation` is at most 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// Always `predicted`.
    pub kind: Kind,
    pub seconds: Seconds,
    pub joules: EnergyBand,
    /// In the phase that draws most.
    pub peak_watts: Watts,
    /// Bytes that leave DRAM or enter it.
    pub dram_bytes: Bytes,
    /// The same for every level of memory, innermost first.
    pub traffic: Vec<Traffic>,
    /// Two for each multiply-accumulate.
    pub operations: f64,
    /// Of DRAM traffic; what a roofline has on its horizontal axis.
    pub operations_per_byte: f64,
    /// Share of the seconds that the MACs would take at the device's peak, in [0, 1].
    pub utilisation: f64,
    pub bound: Bound,
    /// Where the time goes, in order of execution; each is time that the terms before it do not hide.
    pub terms: Vec<Term>,
}

/// How a figure came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Predicted,
}

/// A figure and how far the truth may lie from it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EnergyBand {
    pub value: Joules,
    pub low: Joules,
    pub high: Joules,
}

/// Traffic of one memory level.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Traffic {
    pub level: String,
    pub bytes: Bytes,
}

/// One term of the time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Term {
    pub name: &'static str,
    pub seconds: Seconds,
}

/// What limits the speed; JSON has the sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    MatrixUnit,
    /// By softmax.
    VectorUnit,
    /// The vector unit, by normalisations, activations, sums, convolutions and recurrences.
    Elementwise,
    /// A level of memory by its name.
    Memory(String),
    /// Finding blocks, beginning runs of them, arranging rows.
    Overhead,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MatrixUnit => f.write_str("limited by matrix unit: products"),
            Self::VectorUnit => f.write_str("limited by vector unit: softmax"),
            Self::Elementwise => f.write_str("limited by vector unit: elementwise operations"),
            Self::Memory(level) => write!(f, "limited by {level} bandwidth"),
            Self::Overhead => f.write_str("limited by overhead: blocks and rows"),
        }
    }
}

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Cost {
    pub(crate) fn of(machine: &Machine, sum: &HeadCost) -> Self {
        let seconds = sum.exposed.total();
        let dynamic = sum.mac_joules + sum.lane_joules + sum.memory_joules;
        let limit = machine.limit_watts * seconds;
        let joules = |factor: f64| Joules((dynamic * factor + machine.static_watts * seconds).min(limit));
        let traffic: Vec<Traffic> = machine
            .levels
            .iter()
            .zip(sum.bytes)
            .map(|(level, bytes)| Traffic { level: level.name.clone(), bytes: Bytes(bytes) })
            .collect();
        let dram_bytes = traffic.last().map_or(Bytes::ZERO, |level| level.bytes);
        let operations = 2.0 * sum.macs;
        Self {
            kind: Kind::Predicted,
            seconds: Seconds(seconds),
            joules: EnergyBand {
                value: joules(1.0),
                low: joules(machine.low_factor),
                high: joules(machine.high_factor),
            },
            peak_watts: Watts((sum.watts + machine.static_watts).min(machine.limit_watts)),
            dram_bytes,
            operations,
            operations_per_byte: operations / dram_bytes.0,
            utilisation: (sum.ideal / seconds).min(1.0),
            bound: bound(machine, sum),
            terms: terms(&sum.exposed),
            traffic,
        }
    }
}

fn terms(exposed: &Exposed) -> Vec<Term> {
    [
        ("Q K^T", exposed.qk),
        ("softmax", exposed.softmax),
        ("P V", exposed.pv),
        ("blocks and rows", exposed.blocks),
        ("memory", exposed.memory),
        ("fill and launch", exposed.fill),
        ("linears", exposed.linears),
        ("elementwise", exposed.elementwise),
    ]
    .into_iter()
    .filter(|(_, seconds)| *seconds > 0.0)
    .map(|(name, seconds)| Term { name, seconds: Seconds(seconds) })
    .collect()
}

/// The resource that is busy longest.
fn bound(machine: &Machine, sum: &HeadCost) -> Bound {
    let mut longest = (sum.busy.matrix, Bound::MatrixUnit);
    let mut consider = |seconds: f64, bound: Bound| {
        if seconds > longest.0 {
            longest = (seconds, bound);
        }
    };
    consider(sum.busy.vector, Bound::VectorUnit);
    consider(sum.busy.elementwise, Bound::Elementwise);
    for (level, seconds) in machine.levels.iter().zip(sum.busy.levels) {
        consider(seconds, Bound::Memory(level.name.clone()));
    }
    consider(sum.busy.overhead + sum.exposed.fill, Bound::Overhead);
    longest.1
}
