//! Plans with integer softmax compute what the definition of IntAttention says of whole heads.

use crate::random::{Tensors, random_mask, relative_error, tolerance};
use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, HeadMask, Precision};
use maskwright_kernels::{
    AttentionPlan, Inputs, Int8Softmax, IntegerSoftmax, Kernel, MAX_HEAD_DIM, Normalisation, PlanOptions, oracle,
};
use rand::{SeedableRng, rngs::ChaCha8Rng};

const FORMS: [Normalisation; 2] = [Normalisation::Deferred, Normalisation::Paper];

fn run(kernel: Kernel, form: Normalisation, masks: &[HeadMask], shape: AttentionShape, inputs: Inputs<'_>) -> Vec<f32> {
    let options = PlanOptions::new().unwrap().kernel(kernel).int8_softmax(Int8Softmax::Integer(form));
    let plan = AttentionPlan::with_options(masks, shape, options).unwrap();
    let mut out = vec![f32::NAN; (shape.heads * shape.queries * shape.head_dim) as usize];
    plan.run(inputs, &mut out, &mut plan.workspace()).unwrap();
    out
}

/// `x / s` rounded, and `s = max|x| / 127`.
fn quantise(x: &[f32]) -> (Vec<i32>, f64) {
    let max = x.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
    let integers = x.iter().map(|x| (x * (127.0 / max)).round_ties_even() as i32).collect();
    (integers, f64::from(max) / 127.0)
}

/// One head with the given active keys a query, step by step in integers as the paper writes it.
fn defined(form: Normalisation, d: usize, t: &Tensors, active: impl Fn(usize, usize) -> bool) -> Vec<f64> {
    let ((q, s_q), (k, s_k), (v, s_v)) = (quantise(&t.q), quantise(&t.k), quantise(&t.v));
    let softmax = IntegerSoftmax::new(s_q * s_k / (d as f64).sqrt());
    let mut out = Vec::new();
    for (query, q) in q.chunks(d).enumerate() {
        let keys: Vec<usize> = (0..k.len() / d).filter(|&key| active(query, key)).collect();
        let scores: Vec<i32> = keys.iter().map(|key| q.iter().zip(&k[key * d..]).map(|(a, b)| a * b).sum()).collect();
        let mut exponentials = vec![0; keys.len()];
        let sum = softmax.exponentials(&scores, &mut exponentials);
        let unit = match form {
            Normalisation::Deferred => s_v / f64::from(sum),
            Normalisation::Paper => s_v / 255.0,
        };
        for at in 0..d {
            let weight = |at: usize| i64::from(form.weight(exponentials[at], sum));
            let product: i64 = keys.iter().enumerate().map(|(n, key)| weight(n) * i64::from(v[key * d + at])).sum();
            out.push(product as f64 * unit);
        }
    }
    out
}

#[test]
fn eight_bit_heads_are_the_definition_to_the_last_integer() {
    // 600 keys: more than one chunk; the last block is ragged for every block size.
    for (tokens, head_dim) in [(5, 8), (49, 32), (600, 64), (70, 136), (49, 256), (49, 512)] {
        let shape = AttentionShape {
            kind: AttentionKind::SelfAttention,
            heads: 1,
            queries: tokens,
            keys: tokens,
            head_dim,
            windows: 1,
        };
        let tensors = Tensors::gaussian(&shape, 5);
        for block_size in BlockSize::ALL {
            let mut rng = ChaCha8Rng::seed_from_u64(6);
            let mask = random_mask(&shape, block_size, 0.5, &[Precision::Int8], &mut rng);
            for form in FORMS {
                let size = block_size.tokens() as usize;
                let active = |query: usize, key: usize| mask.blocks.get(query / size, key / size).is_some();
                let expected = defined(form, head_dim as usize, &tensors, active);
                for kernel in Kernel::available() {
                    let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v);
                    let found = run(kernel, form, std::slice::from_ref(&mask), shape, inputs);
                    // Integers are exact; what follows is a handful of f32 roundings.
                    let error = relative_error(&found, &expected);
                    assert!(error < 4e-7, "{kernel}, {form:?}, {tokens} tokens, {block_size}: {error:e}");
                }
            }
        }
    }
}

/// Differences of the largest scores, 2 * 512 * 127^2, are still whole numbers in f32. See
/// [`Tensors::extreme`](crate::random::Tensors::extreme).
#[test]
fn the_largest_scores_of_the_widest_head_are_the_definition_too() {
    let shape = AttentionShape {
        kind: AttentionKind::CrossAttention,
        heads: 1,
        queries: 17,
        keys: 300,
        head_dim: MAX_HEAD_DIM,
        windows: 1,
    };
    for (q_sign, k_sign) in [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)] {
        let alike = Tensors::uniform(&shape, 2.0 * q_sign, |_| 2.0 * k_sign, |_| 2.0);
        for tensors in [alike, Tensors::extreme(&shape, q_sign, k_sign)] {
            let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v);
            for form in FORMS {
                let expected = defined(form, MAX_HEAD_DIM as usize, &tensors, |_, _| true);
                for (kernel, block_size) in Kernel::available().flat_map(|of| BlockSize::ALL.map(|size| (of, size))) {
                    let mask = HeadMask::dense(&shape, block_size, Precision::Int8);
                    let error = relative_error(&run(kernel, form, &[mask], shape, inputs), &expected);
                    assert!(error < 4e-7, "{kernel}, {form:?}, {block_size}, {q_sign}, {k_sign}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn mixed_rows_join_the_integer_group_to_the_other_precisions() {
    let kinds = [AttentionKind::SelfAttention, AttentionKind::CausalSelfAttention];
    for (kind, seed) in kinds.into_iter().zip(10..) {
        let shape = AttentionShape { kind, heads: 2, queries: 70, keys: 70, head_dim: 64, windows: 1 };
        let tensors = Tensors::gaussian(&shape, seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let masks = [(); 2].map(|()| random_mask(&shape, BlockSize::B16, 0.7, &Precision::ALL, &mut rng));
        let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v).live_keys(61);
        let expected = oracle::attend(&masks, &shape, inputs).unwrap();
        // A step of the table, 6.6 / 31, and for shares a step of 1/255 of the group: 61 keys / (255 sqrt(12 e)).
        let table = 6.6 / 31.0 / 12_f64.sqrt();
        let shares = 61.0 / (255.0 * (12.0 * std::f64::consts::E).sqrt());
        for (form, own) in [(Normalisation::Deferred, table), (Normalisation::Paper, table.hypot(shares))] {
            let tolerance = tolerance(Precision::Int8, 64, 70).hypot(2.0 * own);
            for kernel in Kernel::available() {
                let error = relative_error(&run(kernel, form, &masks, shape, inputs), &expected);
                assert!(error <= tolerance, "{kernel}, {form:?}, {kind:?}: {error:e}, not {tolerance:e}");
            }
        }
    }
}
