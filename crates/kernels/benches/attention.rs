//! Attention of twelve heads of 64 features, self-attention, blocks of 16, one thread, inputs in the cache where they
//! fit: the time of a whole call from f32 to f32, by kernel, length, precision and density.
//!
//! `cargo bench -p maskwright-kernels -- avx512/512` runs a part. Throughput counts scores that are computed, so that
//! densities compare directly.

use std::num::NonZeroUsize;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use maskwright_blueprint::{AttentionKind, AttentionShape, BlockMask, BlockSize, HeadMask, Precision};
use maskwright_kernels::{AttentionPlan, Inputs, Int8Softmax, Kernel, Normalisation, PlanOptions};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};

const HEADS: u32 = 12;
const HEAD_DIM: u32 = 64;
const BLOCK_SIZE: BlockSize = BlockSize::B16;

fn shape(tokens: u32) -> AttentionShape {
    let kind = AttentionKind::SelfAttention;
    AttentionShape { kind, heads: HEADS, queries: tokens, keys: tokens, head_dim: HEAD_DIM, windows: 1 }
}

/// The diagonal, and every other block with probability `density`.
fn mask(tokens: u32, density: f64, precisions: &[Precision], rng: &mut ChaCha8Rng) -> HeadMask {
    let columns = BLOCK_SIZE.cover(tokens) as usize;
    let cell = |at: usize| {
        let active = at.is_multiple_of(columns + 1) || rng.random_bool(density);
        active.then(|| precisions[rng.random_range(0..precisions.len())])
    };
    let blocks = BlockMask::new(columns, (0..columns * columns).map(cell).collect()).expect("the diagonal is active");
    HeadMask { block_size: BLOCK_SIZE, blocks }
}

fn attention(criterion: &mut Criterion) {
    use Precision::{Half, Int8, Single};
    let mixed = [Int8, Int8, Half, Half, Single];
    let integer = Int8Softmax::Integer(Normalisation::Deferred);
    let forms: [(&str, &[Precision], Int8Softmax); 5] = [
        ("single", &[Single], Int8Softmax::Float),
        ("half", &[Half], Int8Softmax::Float),
        ("int8", &[Int8], Int8Softmax::Float),
        ("int8, integer softmax", &[Int8], integer),
        ("mixed 40/40/20", &mixed, Int8Softmax::Float),
    ];
    for kernel in Kernel::available() {
        for tokens in [128, 512, 2048] {
            let shape = shape(tokens);
            let mut rng = ChaCha8Rng::seed_from_u64(tokens.into());
            let len = (HEADS * tokens * HEAD_DIM) as usize;
            let [q, k, v] = [(); 3].map(|()| StandardNormal.sample_iter(&mut rng).take(len).collect::<Vec<f32>>());
            let mut out = vec![0.0; len];
            let mut group = criterion.benchmark_group(format!("{kernel}/{tokens} tokens"));
            group.sample_size(20);
            for (name, precisions, int8_softmax) in forms {
                for density in [1.0, 0.5, 0.1] {
                    let masks: Vec<_> = (0..HEADS).map(|_| mask(tokens, density, precisions, &mut rng)).collect();
                    let options = PlanOptions::new().expect("MASKWRIGHT_KERNEL names a kernel of this CPU");
                    let options = options.kernel(kernel).threads(NonZeroUsize::MIN).int8_softmax(int8_softmax);
                    let plan = AttentionPlan::with_options(&masks, shape, options).expect("masks fit");
                    let mut workspace = plan.workspace();
                    group.throughput(Throughput::Elements(masks.iter().map(|mask| mask.active_scores(&shape)).sum()));
                    group.bench_function(BenchmarkId::new(name, density), |bencher| {
                        bencher.iter(|| {
                            plan.run(Inputs::new(&q, &k, &v), &mut out, &mut workspace).expect("lengths fit");
                        });
                    });
                }
            }
            group.finish();
        }
    }
}

criterion_group!(benches, attention);
criterion_main!(benches);
