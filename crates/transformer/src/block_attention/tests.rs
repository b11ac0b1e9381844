//! The operation against attention put together from tensor operations.

use burn::tensor::{Device, Distribution, Tensor, TensorData};
use maskwright_blueprint::{BlockSize, Precision};
use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};

use super::*;
use crate::{
    attention::{BiasIs, Context},
    composed_attention::ComposedMask,
};

const HEAD_DIM: u32 = 24;

/// Random blocks of some precisions, with a diagonal.
fn masks(shape: &AttentionShape, precisions: &[Precision], rng: &mut ChaCha12Rng) -> Vec<HeadMask> {
    let sizes = [BlockSize::B8, BlockSize::B16, BlockSize::B32];
    (0..shape.heads as usize)
        .map(|head| {
            let block_size = sizes[head % sizes.len()];
            let (rows, columns) = (block_size.cover(shape.queries) as usize, block_size.cover(shape.keys) as usize);
            let mut cell = |at: usize| {
                let active = at / columns % columns == at % columns || rng.random_bool(0.4);
                active.then(|| precisions[rng.random_range(0..precisions.len())])
            };
            let blocks = BlockMask::new(columns, (0..rows * columns).map(&mut cell).collect()).unwrap();
            HeadMask { block_size, blocks }
        })
        .collect()
}

/// Outputs and gradients by q, k and v, with `g` as the gradient by the outputs.
fn run(inputs: &[Tensor<4>; 3], g: &Tensor<4>, attend: impl FnOnce([Tensor<4>; 3]) -> Tensor<4>) -> [Tensor<4>; 4] {
    let inputs = inputs.clone().map(|x| x.require_grad());
    let out = attend(inputs.clone());
    let gradients = (out.clone() * g.clone()).sum().backward();
    let [q, k, v] = inputs.map(|x| Tensor::from_inner(x.grad(&gradients).unwrap()));
    [out, q, k, v]
}

/// The root mean square of the difference, over that of `b`.
fn relative_error(a: &Tensor<4>, b: &Tensor<4>) -> f32 {
    let difference: f32 = (a.clone() - b.clone()).powi_scalar(2).mean().into_scalar();
    let size: f32 = b.clone().powi_scalar(2).mean().into_scalar();
    (difference / size).sqrt()
}

struct Case {
    kind: AttentionKind,
    /// Queries and keys of the masks.
    tokens: (u32, u32),
    /// Queries and keys of the batch.
    batch: (usize, usize),
    /// Of each example.
    live_keys: Option<[usize; 3]>,
}

const CASES: [Case; 6] = [
    Case { kind: AttentionKind::SelfAttention, tokens: (64, 64), batch: (64, 64), live_keys: None },
    Case { kind: AttentionKind::SelfAttention, tokens: (75, 75), batch: (75, 75), live_keys: Some([75, 40, 1]) },
    Case { kind: AttentionKind::SelfAttention, tokens: (75, 75), batch: (37, 37), live_keys: Some([37, 9, 32]) },
    Case { kind: AttentionKind::CausalSelfAttention, tokens: (75, 75), batch: (75, 75), live_keys: None },
    Case { kind: AttentionKind::CausalSelfAttention, tokens: (75, 75), batch: (21, 21), live_keys: None },
    Case { kind: AttentionKind::CrossAttention, tokens: (41, 70), batch: (33, 51), live_keys: Some([51, 17, 3]) },
];

/// Differences between the operation and the composition, `[out, q, k, v]`.
fn errors(case: &Case, precisions: &[Precision], seed: u64, rooms: &Arc<Rooms>) -> [f32; 4] {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let shape = AttentionShape {
        kind: case.kind,
        heads: 3,
        queries: case.tokens.0,
        keys: case.tokens.1,
        head_dim: HEAD_DIM,
        windows: 1,
    };
    let masks = masks(&shape, precisions, &mut rng);
    let device = Device::flex().autodiff();
    device.seed(seed);
    let (queries, keys) = case.batch;
    // As models have them: views with heads after tokens.
    let drawn = |tokens: usize| {
        let drawn = Tensor::<4>::random([3, tokens, 3, HEAD_DIM as usize], Distribution::Normal(0.0, 1.0), &device);
        drawn.swap_dims(1, 2)
    };
    let inputs = [drawn(queries), drawn(keys), drawn(keys)];
    let mut g = drawn(queries);
    let context = match (case.live_keys, case.kind) {
        (None, _) => Context::default(),
        (Some(live), kind) => {
            let real = live.map(|live| (0..keys).map(|key| f32::from(u8::from(key < live))).collect::<Vec<f32>>());
            let real: Tensor<2> = Tensor::from_data(TensorData::new(real.concat(), [3, keys]), &device);
            if kind == AttentionKind::CrossAttention {
                Context::padded_keys(real)
            } else {
                g = g * real.clone().reshape([3, 1, keys, 1]); // what stands for padding is nobody's business
                Context::padded(real)
            }
        }
    };
    let composed = ComposedMask::new(&shape, &masks, &device).first(queries, keys);
    let expected = run(&inputs, &g, |[q, k, v]| composed.attend(q, k, v, &context));
    let attention = Arc::new(BlockAttention::new(&shape, &masks, queries, Arc::clone(rooms)).unwrap());
    let live_keys = match &context.bias_is {
        BiasIs::RightPadding(live) => Some(live.clone()),
        _ => None,
    };
    let found =
        run(&inputs, &g, |[q, k, v]| block_attention(q, k, v, BlockCall { attention, live_keys, live_queries: None }));
    // Padded queries are no result.
    let real = |x: &Tensor<4>| match &context.real_queries {
        Some(real) => x.clone() * real.clone(),
        None => x.clone(),
    };
    let mut errors = [0.0; 4];
    for (at, error) in errors.iter_mut().enumerate() {
        *error = match at {
            0 => relative_error(&real(&found[0]), &real(&expected[0])),
            at => relative_error(&found[at], &expected[at]),
        };
    }
    errors
}

#[test]
fn outputs_and_gradients_are_those_of_the_composed_operations() {
    // Sums of up to 75 terms differ in order by a few of f32's 6e-8. The kernels round numerators of 16 bit (2^-9) and 8 bit
    // (1/510) from 16-bit fixed point, so that one near a boundary falls to the other side. Gradients round as the
    // composition does: only where a sum's last bits put a numerator on the other side do they differ by more.
    let tolerances = [(Precision::Single, 1e-6, 1e-6), (Precision::Half, 3e-3, 1e-4), (Precision::Int8, 6e-3, 1e-4)];
    // Modules of many sizes share them.
    let rooms = Arc::default();
    for (precision, outputs, gradients) in tolerances {
        for (at, case) in CASES.iter().enumerate() {
            let [out, by_inputs @ ..] = errors(case, &[precision], at as u64, &rooms);
            assert!(out < outputs, "{precision} case {at}: outputs are off by {out}");
            assert!(
                by_inputs.iter().all(|error| *error < gradients),
                "{precision} case {at}: gradients, {by_inputs:?}"
            );
        }
    }
}

#[test]
fn rows_that_mix_precisions_share_one_softmax() {
    for (at, case) in CASES.iter().enumerate() {
        let [out, by_inputs @ ..] = errors(case, &Precision::ALL, 100 + at as u64, &Arc::default());
        assert!(out < 6e-3, "case {at}: outputs are off by {out}");
        assert!(by_inputs.iter().all(|error| *error < 1e-4), "case {at}: gradients, {by_inputs:?}");
    }
}

#[test]
fn every_instruction_set_finds_the_same_gradients() {
    let mut rng = ChaCha12Rng::seed_from_u64(3);
    let (tokens, d) = (45, 40); // ragged, and no whole number of registers
    let shape = AttentionShape {
        kind: AttentionKind::CausalSelfAttention,
        heads: 3,
        queries: tokens as u32,
        keys: tokens as u32,
        head_dim: d as u32,
        windows: 1,
    };
    for mask in masks(&shape, &Precision::ALL, &mut rng) {
        let blocks = HeadBlocks::new(&mask, shape.kind);
        let [q, k, v, gradient] =
            [(); 4].map(|()| (0..tokens * d).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>());
        let of = |values| operand::Tokens { values, first: 0, row: d, len: tokens };
        let (q, k, v, gradient) = (of(&q), of(&k), of(&v), of(&gradient));
        let inputs = HeadInputs { blocks: &blocks, causal: true, head_dim: d, q, k, v, gradient };
        let gradients = |add: fn(&HeadInputs<'_>, &mut HeadGradients<'_>, &mut Room)| {
            let [mut q, mut k, mut v] = [(); 3].map(|()| vec![0.0; tokens * d]);
            let mut to = HeadGradients { q: &mut q, k: &mut k, v: &mut v, row: d };
            add(&inputs, &mut to, &mut Room::default());
            [q, k, v].concat()
        };
        let widest = gradients(add_gradients);
        for narrower in [gradients(gradients::add_gradients_of::<4>), gradients(gradients::add_gradients_of::<8>)] {
            let difference = widest.iter().zip(&narrower).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
            let size = widest.iter().map(|x| x * x).sum::<f32>();
            assert!(size > 0.0 && (difference / size).sqrt() < 1e-3, "{difference} of {size}");
        }
    }
}

#[test]
fn the_first_queries_alone_are_what_they_are_among_all() {
    let (tokens, live) = (75, [75, 40, 1]);
    let shape = AttentionShape {
        kind: AttentionKind::SelfAttention,
        heads: 3,
        queries: 80, // more than the batch has
        keys: 80,
        head_dim: HEAD_DIM,
        windows: 1,
    };
    let device = Device::flex().autodiff();
    for (seed, read) in [1, 2, 8, 40, 74].into_iter().enumerate() {
        let mut rng = ChaCha12Rng::seed_from_u64(seed as u64);
        device.seed(seed as u64);
        let masks = masks(&shape, &Precision::ALL, &mut rng);
        let drawn = |tokens: usize| {
            let drawn = Tensor::<4>::random([3, tokens, 3, HEAD_DIM as usize], Distribution::Normal(0.0, 1.0), &device);
            drawn.swap_dims(1, 2)
        };
        let inputs = [drawn(tokens), drawn(tokens), drawn(tokens)];
        let g = drawn(read);
        let attend = |attention: BlockAttention, [q, k, v]: [Tensor<4>; 3]| {
            let call = BlockCall { attention: Arc::new(attention), live_keys: Some(live.into()), live_queries: None };
            block_attention(q, k, v, call)
        };
        let among_all = run(&inputs, &g, |inputs| {
            let attention = BlockAttention::new(&shape, &masks, tokens, Arc::default()).unwrap();
            attend(attention, inputs).slice_dim(2, 0..read)
        });
        let alone = run(&inputs, &g, |inputs| {
            let attention = BlockAttention::first_queries(&shape, &masks, (read, tokens), Arc::default()).unwrap();
            attend(attention, inputs)
        });
        assert_eq!(alone[0].dims(), [3, 3, read, HEAD_DIM as usize]);
        for (at, (alone, among_all)) in alone.into_iter().zip(among_all).enumerate() {
            let same =
                alone.into_data().try_to_vec::<f32>().unwrap() == among_all.into_data().try_to_vec::<f32>().unwrap();
            assert!(same, "{read} read, tensor {at}");
        }
    }
}

#[test]
fn a_query_that_is_no_number_spoils_eight_bits_though_nobody_reads_it() {
    let (tokens, d) = (32, 8);
    let shape =
        AttentionShape { kind: AttentionKind::SelfAttention, heads: 1, queries: 32, keys: 32, head_dim: 8, windows: 1 };
    let device = Device::flex();
    let drawn = || Tensor::<4>::random([1, 1, tokens, d], Distribution::Normal(0.0, 1.0), &device);
    for (precision, spoils) in [(Precision::Int8, true), (Precision::Single, false)] {
        let masks = [HeadMask::dense(&shape, BlockSize::B8, precision)];
        let attention = BlockAttention::first_queries(&shape, &masks, (1, tokens), Arc::default()).unwrap();
        let q = drawn().slice_fill([0..1, 0..1, 20..21, 3..4], f32::NAN);
        let call = BlockCall { attention: Arc::new(attention), live_keys: None, live_queries: None };
        let out = block_attention(q, drawn(), drawn(), call).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(out.iter().all(|x| x.is_nan()), spoils, "{precision}");
        assert_eq!(out.iter().any(|x| x.is_nan()), spoils, "{precision}");
    }
}
