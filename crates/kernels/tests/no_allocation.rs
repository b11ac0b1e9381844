//! `run` allocates nothing: a deployment can call it from where allocation is not allowed.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    num::NonZeroUsize,
};

use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, HeadMask};
use maskwright_kernels::{AttentionPlan, Inputs, Int8Softmax, Kernel, Normalisation, PlanOptions};

/// The system's allocator, and how often this thread has asked it: the test harness has threads of its own.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is the one that is needed.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the one that is needed.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_run_allocates_nothing() {
    let shape = AttentionShape {
        kind: AttentionKind::SelfAttention,
        heads: 1,
        queries: 45,
        keys: 45,
        head_dim: 32,
        windows: 1,
    };
    let mask = HeadMask { block_size: BlockSize::B16, blocks: "421\n142\n214".parse().unwrap() };
    let values: Vec<f32> = (0..45 * 32).map(|at| (at as f32).cos()).collect();
    for kernel in Kernel::available() {
        for softmax in [Int8Softmax::Float, Int8Softmax::Integer(Normalisation::Deferred)] {
            for threads in [1, 2] {
                let threads = NonZeroUsize::new(threads).unwrap();
                let options = PlanOptions::new().unwrap().kernel(kernel).threads(threads).int8_softmax(softmax);
                let plan = AttentionPlan::with_options(std::slice::from_ref(&mask), shape, options).unwrap();
                let (mut workspace, mut out) = (plan.workspace(), vec![0.0; values.len()]);
                let before = ALLOCATIONS.get();
                plan.run(Inputs::new(&values, &values, &values), &mut out, &mut workspace).unwrap();
                let during = ALLOCATIONS.get() - before;
                assert_eq!(during, 0, "{kernel}, {softmax:?}, {threads} threads");
            }
        }
    }
}
