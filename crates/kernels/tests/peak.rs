//! No attention is faster than what its core is measured to reach.

use std::{num::NonZeroUsize, time::Instant};

use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, HeadMask, Precision};
use maskwright_kernels::{AttentionPlan, Inputs, Kernel, PlanOptions, peak};

/// Rounds; the best counts on both sides. Each is shorter than the slices of time that a busy system deals in, so some pass
/// undisturbed.
const ROUNDS: usize = 60;

/// A call reaches some four fifths of its peak at most, so there is room for a machine that disturbs the one loop more than the
/// other.
const MOST: f64 = 1.1;

#[test]
#[cfg_attr(debug_assertions, ignore = "a ratio of times that only optimised code has")]
fn no_kernel_exceeds_its_peak() {
    // One dense head whose tensors, 128 KiB each, stay in the caches.
    let shape = AttentionShape {
        kind: AttentionKind::SelfAttention,
        heads: 1,
        queries: 256,
        keys: 256,
        head_dim: 128,
        windows: 1,
    };
    let operations = 4.0 * 256.0 * 256.0 * 128.0; // two products of a multiply and an addition each
    let values: Vec<f32> = (0..256 * 128).map(|at| (at as f32).sin()).collect();
    let mut out = vec![0.0; values.len()];
    for kernel in Kernel::available() {
        for precision in Precision::ALL {
            let mask = HeadMask::dense(&shape, BlockSize::B32, precision);
            let options = PlanOptions::on(kernel).threads(NonZeroUsize::MIN);
            let plan = AttentionPlan::with_options(&[mask], shape, options).unwrap();
            let mut workspace = plan.workspace();
            let (mut reached, mut most) = (0.0_f64, 0.0_f64);
            for _ in 0..ROUNDS {
                most = most.max(peak::operations_per_second(kernel, precision).unwrap());
                let begun = Instant::now();
                plan.run(Inputs::new(&values, &values, &values), &mut out, &mut workspace).unwrap();
                reached = reached.max(operations / begun.elapsed().as_secs_f64());
            }
            let (reached, most) = (reached / 1e9, most / 1e9);
            let found = format!("{kernel}, {precision}: {reached:.1} of {most:.1} billion operations a second");
            assert!(reached <= MOST * most, "{found}");
        }
    }
}
