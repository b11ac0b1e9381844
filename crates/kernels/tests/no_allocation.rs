//! `run` allocates nothing: a deployment can call it from where allocation is not allowed.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    num::NonZeroUsize,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, HeadMask};
use maskwright_kernels::{AttentionPlan, Inputs, Int8Softmax, Kernel, Normalisation, PlanOptions, Promotion};

/// The system's allocator, and how often any thread of the process has asked it while it counted.
struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Ordering::Relaxed) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
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

/// Allocations of the whole process during `call`.
fn allocations(call: impl FnOnce()) -> usize {
    ALLOCATIONS.store(0, Ordering::SeqCst);
    COUNTS.store(true, Ordering::SeqCst);
    call();
    COUNTS.store(false, Ordering::SeqCst);
    ALLOCATIONS.load(Ordering::SeqCst)
}

/// Threads of the largest plan: the calling one and its helpers.
const THREADS: usize = 3;

/// Calls that are counted at once, enough for helpers to take part in many.
const CALLS: usize = 100;

/// A thread that begins allocates something, once, and perhaps only now: each helper, and the one that runs the tests. What
/// a call allocates is allocated every time.
const ATTEMPTS: usize = THREADS + 1;

/// One test in this file: what is counted is the whole process.
#[test]
fn a_run_allocates_nothing_on_any_thread() {
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            barrier.wait();
            drop(black_box(vec![1_u8; 100]));
            barrier.wait();
        });
        let elsewhere = allocations(|| {
            barrier.wait();
            barrier.wait();
        });
        assert!(elsewhere > 0, "allocations of other threads are not counted");
    });

    let shape = AttentionShape {
        kind: AttentionKind::SelfAttention,
        heads: 3,
        queries: 45,
        keys: 45,
        head_dim: 32,
        windows: 1,
    };
    let mask = HeadMask { block_size: BlockSize::B16, blocks: "421\n142\n214".parse().unwrap() };
    let masks = [mask.clone(), mask.clone(), mask];
    let values: Vec<f32> = (0..3 * 45 * 32).map(|at| (at as f32).cos()).collect();
    let integer = |form| Int8Softmax::Integer(form);
    let softmaxes = [Int8Softmax::Float, integer(Normalisation::Deferred), integer(Normalisation::Paper)];
    for kernel in Kernel::available() {
        for softmax in softmaxes {
            for threads in 1..=THREADS {
                let options = PlanOptions::on(kernel).promotion(Promotion::Never).int8_softmax(softmax);
                let options = options.threads(NonZeroUsize::new(threads).unwrap());
                let plan = AttentionPlan::with_options(&masks, shape, options).unwrap();
                let fewest = (0..ATTEMPTS).map(|_| {
                    // A workspace that has not been used: the first call allocates nothing, either.
                    let (mut workspace, mut out) = (plan.workspace(), vec![0.0; values.len()]);
                    let mut run = || plan.run(Inputs::new(&values, &values, &values), &mut out, &mut workspace);
                    allocations(|| (0..CALLS).for_each(|_| run().unwrap()))
                });
                assert_eq!(fewest.min(), Some(0), "{kernel}, {softmax:?}, {threads} threads");
            }
        }
    }
}
