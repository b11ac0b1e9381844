//! What the cost model promises, and the published figures it is held against.

mod alternatives;
mod board;
mod calibration;
mod devices;
mod fusemax;
mod mas_attention;
mod properties;
mod server_core;
mod timelines;

use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, Precision};
use maskwright_cost_model::{Cost, CostModel, Dataflow, DeviceProfile, Softmax, Work};

fn self_attention(heads: u32, tokens: u32, head_dim: u32) -> AttentionShape {
    AttentionShape { kind: AttentionKind::SelfAttention, heads, queries: tokens, keys: tokens, head_dim, windows: 1 }
}

/// One dense attention module on a baked-in device.
fn dense(
    device: &str,
    dataflow: Dataflow,
    batch: u32,
    shape: &AttentionShape,
    precision: Precision,
    softmax: Softmax,
) -> Cost {
    let model = CostModel::new(&DeviceProfile::named(device).unwrap(), dataflow, batch).unwrap();
    let work = Work::bare(shape, BlockSize::B16, precision).unwrap().with_softmax(softmax);
    model.attention(&work).unwrap()
}

/// The rows of a golden file, without its header.
fn rows(csv: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    csv.lines().skip(1).map(|line| line.split(',').collect())
}

fn number(cell: &str) -> f64 {
    cell.parse().unwrap()
}

/// Fails with every figure that misses by more than its tolerance, not with the first.
#[derive(Default)]
struct Misses(Vec<String>);

impl Misses {
    fn compare(&mut self, what: &str, predicted: f64, published: f64, tolerance: f64) {
        let off = predicted / published - 1.0;
        if off.abs() > tolerance || off.is_nan() {
            self.0.push(format!(
                "{what}: predicted {predicted:e}, published {published:e}, off by {:+.2} %",
                100.0 * off
            ));
        }
    }

    fn none(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}
