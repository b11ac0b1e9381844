//! Every kernel against the oracle, over one table of cases.

use crate::random::{Tensors, largest_error, random_mask, relative_error, tolerance};
use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, HeadMask, Precision};
use maskwright_kernels::{AttentionPlan, Inputs, Kernel, MAX_HEAD_DIM, PlanOptions, Promotion, oracle};
use proptest::prelude::*;
use rand::{SeedableRng, rngs::ChaCha8Rng};

use AttentionKind::{CausalSelfAttention as Causal, CrossAttention as Cross, SelfAttention as Full};
use Precision::{Half, Int8, Single};

/// Kind, queries, keys, live keys: whole blocks, ragged ends of every size, one token, rectangles, padding within a
/// block and of whole blocks, and more keys than one chunk takes.
const LENGTHS: [(AttentionKind, u32, u32, usize); 11] = [
    (Full, 1, 1, 1),
    (Full, 5, 5, 5),
    (Full, 49, 49, 49),
    (Full, 64, 64, 64),
    (Full, 197, 197, 197),
    (Full, 80, 80, 41),
    (Causal, 77, 77, 77),
    (Causal, 96, 96, 60),
    (Cross, 13, 70, 70),
    (Cross, 70, 13, 13),
    (Cross, 24, 600, 555),
];

const HEAD_DIMS: [u32; 5] = [8, 32, 64, 80, 128];
/// Widths of one whole vector of features, alone or with half of one.
const NARROW_HEAD_DIMS: [u32; 2] = [16, 24];
const LENGTHS_OF_NARROW: [(AttentionKind, u32, u32, usize); 3] =
    [(Full, 49, 49, 49), (Causal, 77, 77, 77), (Cross, 24, 700, 650)];
/// Heads that are wider than models have them, up to the widest one that is computed, and lengths for them: one chunk of
/// keys and more, and a ragged end.
const WIDE_HEAD_DIMS: [u32; 3] = [136, 256, MAX_HEAD_DIM];
const LENGTHS_OF_WIDE: [(AttentionKind, u32, u32, usize); 3] =
    [(Full, 49, 49, 49), (Causal, 77, 77, 77), (Cross, 13, 600, 581)];
/// Rows that take several chunks, of which the first ones have all precisions and the last ones any one alone.
const LONG: [(AttentionKind, u32, u32, usize); 1] = [(Cross, 17, 1500, 1433)];
const MIXTURES_OF_LONG: [&[Precision]; 5] = [
    &[Int8, Half, Single],
    &[Int8, Int8, Int8, Int8, Int8, Int8, Half, Single],
    &[Int8, Half, Half, Half, Half, Half, Half, Single],
    &[Int8, Int8, Int8, Single],
    &[Int8, Half, Half, Half],
];

const DENSITIES: [f64; 3] = [1.0, 0.5, 0.1];
const PRECISIONS: [&[Precision]; 4] = [&[Single], &[Half], &[Int8], &[Int8, Half, Single]];

#[test]
fn every_kernel_agrees_with_the_oracle() {
    check_all(&LENGTHS, &HEAD_DIMS, &PRECISIONS);
    check_all(&LENGTHS_OF_NARROW, &NARROW_HEAD_DIMS, &PRECISIONS);
}

#[test]
fn long_rows_agree_with_the_oracle() {
    check_all(&LONG, &[24, 64], &MIXTURES_OF_LONG);
}

#[test]
fn heads_up_to_the_widest_agree_with_the_oracle() {
    check_all(&LENGTHS_OF_WIDE, &WIDE_HEAD_DIMS, &PRECISIONS);
}

/// What is added to all scores of a query changes nothing, but whether its weights need a maximum: they do not where the logarithm of the
/// sum of exponentials is between -27 and 31. Of tiles in which some queries need one, and in which all of them do or none.
#[test]
fn scores_may_be_far_from_zero() {
    // At 8 bit scores of the second kind are 16-bit integers as long as those reach, up to 69.
    const FAR: [([f64; 9], f32); 2] = [
        ([-200.0, -40.0, -29.0, -12.0, 0.0, 24.0, 30.0, 33.0, 200.0], 32.0),
        ([-80.0, -60.0, -29.0, -12.0, 0.0, 24.0, 60.0, 33.0, 80.0], 16.0),
    ];
    let lengths = [(Full, 197, 197, 197), (Causal, 200, 200, 190), (Cross, 128, 600, 555)];
    let mut seed = 0;
    for ((kind, queries, keys, live_keys), precisions) in
        lengths.into_iter().flat_map(|lengths| PRECISIONS.map(|precisions| (lengths, precisions)))
    {
        let shape = AttentionShape { kind, heads: 1, queries, keys, head_dim: 64, windows: 1 };
        let sizes = BlockSize::ALL.into_iter().flat_map(|size| [1, 16].map(|n| (size, n)));
        for ((far, of_keys), (block_size, of_query)) in FAR.iter().flat_map(|far| sizes.clone().map(move |n| (far, n)))
        {
            seed += 1;
            let mut tensors = Tensors::gaussian(&shape, seed);
            // By the last feature: that of all keys is the same, so it does not matter how it is rounded.
            tensors.k.chunks_exact_mut(64).for_each(|key| key[63] = *of_keys);
            for (at, query) in tensors.q.chunks_exact_mut(64).enumerate() {
                query[63] = far[at / of_query % far.len()] as f32 * 8.0 / of_keys;
            }
            let mask = [random_mask(&shape, block_size, 0.5, precisions, &mut ChaCha8Rng::seed_from_u64(seed))];
            let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v).live_keys(live_keys);
            let expected = oracle::attend(&mask, &shape, inputs).unwrap();
            let tolerance = match precisions {
                // A score of 200 is rounded twice.
                [Single] => tolerance(Single, 64, keys) + 200.0 * 2_f64.powi(-23),
                [Half] => tolerance(Half, 64, keys),
                // Steps of 32 / 127 leave little of the other features, but no number where another one belongs.
                _ => 0.3,
            };
            for kernel in Kernel::available() {
                let error = relative_error(&run(kernel, Promotion::Never, &mask, shape, inputs), &expected);
                let case = || format!("{kernel}, {shape:?}, {block_size}, {precisions:?}, each {of_query}");
                assert!(error <= tolerance, "off by {error:e}, more than {tolerance:e}: {}", case());
            }
        }
    }
}

/// Every block size, density and mixture of precisions.
fn check_all(lengths: &[(AttentionKind, u32, u32, usize)], head_dims: &[u32], mixtures: &[&[Precision]]) {
    let mut seed = 0;
    for &(kind, queries, keys, live_keys) in lengths {
        for &head_dim in head_dims {
            let shape = AttentionShape { kind, heads: 2, queries, keys, head_dim, windows: 1 };
            for block_size in BlockSize::ALL {
                for density in DENSITIES {
                    for precisions in mixtures {
                        seed += 1;
                        let mut rng = ChaCha8Rng::seed_from_u64(seed);
                        let masks = [(); 2].map(|()| random_mask(&shape, block_size, density, precisions, &mut rng));
                        check(&masks, shape, live_keys, seed);
                    }
                }
            }
        }
    }
}

/// 512 features of 127 steps: the largest scores of 8-bit blocks, and their largest differences. More than one chunk of
/// keys, with the largest weights and values that there are.
#[test]
fn eight_bit_sums_at_the_extremes_do_not_overflow() {
    let shape = AttentionShape { kind: Cross, heads: 1, queries: 17, keys: 600, head_dim: MAX_HEAD_DIM, windows: 1 };
    for (q_sign, k_sign) in [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)] {
        // All scores and weights are equal, so that the output is any of the equal values.
        // Those of twos are 131 octaves away, beyond what 16-bit integers are taken for, and those of 1.7 are 94.
        let alike = [2.0, -2.0, 1.7]
            .map(|value: f32| Tensors::uniform(&shape, value.abs() * q_sign, |_| value.abs() * k_sign, |_| value));
        // Every number is a whole number of steps, so that only weights are rounded, by half of 1/255. An output is a mean
        // of 2 and -2, which a weight moves by at most 4 times its own share.
        let extreme = Tensors::extreme(&shape, q_sign, k_sign);
        for (tensors, tolerance) in alike.into_iter().map(|alike| (alike, 2e-6)).chain([(extreme, 4.0 * 0.5 / 255.0)]) {
            let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v);
            let dense = |block_size| [HeadMask::dense(&shape, block_size, Int8)];
            let expected = oracle::attend(&dense(BlockSize::B8), &shape, inputs).unwrap();
            for (kernel, size) in Kernel::available().flat_map(|kernel| BlockSize::ALL.map(|size| (kernel, size))) {
                let found = run(kernel, Promotion::Never, &dense(size), shape, inputs);
                let error = largest_error(&found, &expected);
                assert!(error < tolerance, "off by {error:e}: {kernel}, {size}, queries {q_sign}, keys {k_sign}");
            }
        }
    }
}

/// Runs `masks` on every kernel of this CPU.
fn check(masks: &[HeadMask], shape: AttentionShape, live_keys: usize, seed: u64) {
    let tensors = Tensors::gaussian(&shape, seed);
    let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v).live_keys(live_keys);
    let expected = oracle::attend(masks, &shape, inputs).unwrap();
    let used = masks.iter().flat_map(|mask| mask.blocks.active()).map(|(_, _, precision)| precision);
    let coarsest = used.min().expect("masks have active blocks");
    let tolerance = tolerance(coarsest, shape.head_dim, shape.keys);
    let promotions = [Promotion::Never, Promotion::WhereFaster];
    for (kernel, promotion) in Kernel::available().flat_map(|kernel| promotions.map(|way| (kernel, way))) {
        let found = run(kernel, promotion, masks, shape, inputs);
        let case =
            || format!("{kernel}, promotion {promotion:?}, seed {seed}, {shape:?}, {live_keys} live keys, {masks:?}");
        let error = relative_error(&found, &expected);
        assert!(error <= tolerance, "off by {error:e}, more than {tolerance:e}: {}", case());
        // Values have standard deviation one, and so at most has an output: no element is off by eight deviations.
        let error = largest_error(&found, &expected);
        assert!(error <= 8.0 * tolerance, "one is off by {error:e}, more than 8 * {tolerance:e}: {}", case());
    }
}

/// One thread, one call, into an output that holds NaN before.
fn run(
    kernel: Kernel,
    promotion: Promotion,
    masks: &[HeadMask],
    shape: AttentionShape,
    inputs: Inputs<'_>,
) -> Vec<f32> {
    let options = PlanOptions::new().unwrap().kernel(kernel).threads(std::num::NonZeroUsize::MIN).promotion(promotion);
    let plan = AttentionPlan::with_options(masks, shape, options).unwrap();
    let mut out = vec![f32::NAN; (shape.heads * shape.queries * shape.head_dim) as usize];
    plan.run(inputs, &mut out, &mut plan.workspace()).unwrap();
    out
}

fn any_shape() -> impl Strategy<Value = (AttentionShape, usize)> {
    let kind = prop_oneof![Just(Full), Just(Causal), Just(Cross)];
    let eights = 1..=MAX_HEAD_DIM / 8;
    (kind, 1..100_u32, 1..100_u32, eights, 0.0..1.0).prop_map(|(kind, queries, keys, eights, live)| {
        let keys = if kind == Cross { keys } else { queries };
        let shape = AttentionShape { kind, heads: 1, queries, keys, head_dim: 8 * eights, windows: 1 };
        (shape, 1 + (f64::from(keys) * live) as usize)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_mask_of_any_shape_agrees_with_the_oracle(
        (shape, live_keys) in any_shape(),
        block_size in prop::sample::select(&BlockSize::ALL[..]),
        density in 0.0..=1.0,
        precisions in prop::sample::select(&PRECISIONS[..]),
        seed in any::<u64>(),
    ) {
        let mask = random_mask(&shape, block_size, density, precisions, &mut ChaCha8Rng::seed_from_u64(seed));
        check(&[mask], shape, live_keys, seed);
    }

    /// Block size changes nothing when nothing is skipped: all three are plain dense attention.
    #[test]
    fn dense_masks_are_dense_attention(tokens in 1..100_u32, seed in any::<u64>()) {
        let shape = AttentionShape { kind: Full, heads: 1, queries: tokens, keys: tokens, head_dim: 32, windows: 1 };
        let tensors = Tensors::gaussian(&shape, seed);
        let expected = dense_attention(&tensors, 32);
        for (kernel, block_size) in Kernel::available().flat_map(|kernel| BlockSize::ALL.map(|size| (kernel, size))) {
            let mask = HeadMask::dense(&shape, block_size, Single);
            let found = run(kernel, Promotion::Never, &[mask], shape, Inputs::new(&tensors.q, &tensors.k, &tensors.v));
            prop_assert!(relative_error(&found, &expected) <= tolerance(Single, 32, tokens));
        }
    }
}

/// One head without any mask, written apart from the oracle.
fn dense_attention(Tensors { q, k, v }: &Tensors, d: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for q in q.chunks(d) {
        let score = |k: &[f32]| q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let exps: Vec<f64> = k.chunks(d).map(|k| (score(k) / (d as f64).sqrt()).exp()).collect();
        let sum: f64 = exps.iter().sum();
        out.extend((0..d).map(|at| exps.iter().zip(v.chunks(d)).map(|(e, v)| e * f64::from(v[at])).sum::<f64>() / sum));
    }
    out
}
