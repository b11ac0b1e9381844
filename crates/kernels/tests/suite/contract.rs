//! What a plan promises besides the numbers: refusals, determinism, and padding.

use std::{error::Error, num::NonZeroUsize};

use crate::{
    calls::{SHAPE, options, options_with_and_without_promotion, run},
    random::{Tensors, random_mask},
};
use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, HeadMask, MaskError, Precision};
use maskwright_kernels::{
    AttentionPlan, Inputs, Int8Softmax, Kernel, KernelError, Normalisation, PlanOptions, Promotion, Workspace, oracle,
};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

fn dense(shape: AttentionShape) -> Vec<HeadMask> {
    vec![HeadMask::dense(&shape, BlockSize::B16, Precision::Single); shape.heads as usize]
}

fn refusal(masks: &[HeadMask], shape: AttentionShape) -> KernelError {
    AttentionPlan::new(masks, shape).expect_err("refused")
}

#[test]
fn shapes_that_no_kernel_computes_are_refused() {
    let masks = dense(SHAPE);
    assert_eq!(refusal(&masks[..1], SHAPE), KernelError::Heads { heads: 2, found: 1 });
    assert_eq!(refusal(&[], AttentionShape { heads: 0, ..SHAPE }), KernelError::Heads { heads: 0, found: 0 });
    for head_dim in [0, 12, 520] {
        assert_eq!(refusal(&masks, AttentionShape { head_dim, ..SHAPE }), KernelError::HeadDim { found: head_dim });
    }
    assert_eq!(refusal(&masks, AttentionShape { keys: 0, ..SHAPE }), KernelError::NoTokens { queries: 40, keys: 0 });
    assert_eq!(refusal(&masks, AttentionShape { keys: 41, ..SHAPE }), KernelError::NotSquare { queries: 40, keys: 41 });
}

#[test]
fn a_mask_of_another_shape_is_refused_by_head() {
    let mut masks = dense(SHAPE);
    masks[1] = dense(AttentionShape { queries: 64, keys: 64, ..SHAPE }).remove(0);
    let refused = refusal(&masks, SHAPE);
    assert!(matches!(refused, KernelError::Mask { head: 1, fault: MaskError::Shape { found_rows: 4, rows: 3, .. } }));
    assert_eq!(
        refused.to_string(),
        "the mask of head 1 does not fit: 4 x 4 blocks of 16 tokens do not cover 40 x 40 tokens: that takes 3 x 3"
    );
    assert!(refused.source().is_none(), "what is wrong is told once");
}

#[test]
fn slices_of_other_lengths_are_refused_and_the_output_is_left_alone() {
    let plan = AttentionPlan::new(&dense(SHAPE), SHAPE).unwrap();
    let mut workspace = plan.workspace();
    let full = vec![0.0; 2 * 40 * 32];
    let mut out = vec![7.0; full.len()];
    let refused = plan.run(Inputs::new(&full, &full[1..], &full), &mut out, &mut workspace).unwrap_err();
    assert_eq!(refused.to_string(), "`k` holds 2559 values, this plan needs 2560: 2 heads x 40 tokens x 32");
    let refused = plan.run(Inputs::new(&full, &full, &full), &mut out[1..], &mut workspace).unwrap_err();
    assert!(matches!(refused, KernelError::Length { operand: "out", found: 2559, expected: 2560, .. }));
    let refused = plan.run(Inputs::new(&full, &full, &full).live_keys(41), &mut out, &mut workspace).unwrap_err();
    assert_eq!(refused, KernelError::LiveKeys { found: 41, keys: 40 });
    assert_eq!(out, vec![7.0; full.len()]);
}

#[test]
fn a_workspace_with_too_little_room_is_refused_until_there_is_more() {
    let plan = |shape: AttentionShape, precision| {
        let masks: Vec<HeadMask> =
            (0..shape.heads).map(|_| HeadMask::dense(&shape, BlockSize::B16, precision)).collect();
        AttentionPlan::with_options(&masks, shape, PlanOptions::new().unwrap().promotion(Promotion::Never)).unwrap()
    };
    let small = plan(SHAPE, Precision::Single);
    let wider = plan(AttentionShape { head_dim: 40, ..SHAPE }, Precision::Single);
    let more_keys = plan(AttentionShape { kind: AttentionKind::CrossAttention, keys: 57, ..SHAPE }, Precision::Single);
    let more_heads = plan(AttentionShape { heads: 3, ..SHAPE }, Precision::Single);
    let coarse = plan(SHAPE, Precision::Int8);
    let run = |plan: &AttentionPlan, workspace: &mut Workspace| {
        let Tensors { q, k, v } = Tensors::gaussian(plan.shape(), 7);
        let mut out = vec![f32::NAN; q.len()];
        plan.run(Inputs::new(&q, &k, &v), &mut out, workspace).map(|()| out)
    };
    for larger in [&wider, &more_keys, &more_heads, &coarse] {
        let mut workspace = small.workspace();
        assert_eq!(run(larger, &mut workspace), Err(KernelError::Workspace));
        workspace.reserve(larger);
        let bytes = workspace.bytes();
        // In turn, each as if it had one of its own, and nothing more is taken for it.
        for plan in [larger, &small, larger] {
            workspace.reserve(plan);
            assert_eq!(run(plan, &mut workspace), run(plan, &mut plan.workspace()));
        }
        assert_eq!(workspace.bytes(), bytes);
    }
    // What needs no more than another plan does is no reason to refuse.
    assert_eq!(run(&small, &mut wider.workspace()), run(&small, &mut small.workspace()));
}

/// What is not packed for a plan holds what an earlier one left there, here NaN and the integers that come of it: nothing of it is
/// read.
#[test]
fn nothing_that_an_earlier_plan_left_is_read() {
    let large = AttentionShape {
        kind: AttentionKind::CrossAttention,
        heads: 3,
        queries: 40,
        keys: 120,
        head_dim: 32,
        windows: 1,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for kernel in Kernel::available() {
        let plan = |masks: &[HeadMask], shape, threads, int8_softmax| {
            let options = PlanOptions::on(kernel).threads(NonZeroUsize::new(threads).unwrap());
            AttentionPlan::with_options(masks, shape, options.promotion(Promotion::Never).int8_softmax(int8_softmax))
                .unwrap()
        };
        // Everything in all forms.
        let all: Vec<HeadMask> =
            Precision::ALL.map(|precision| HeadMask::dense(&large, BlockSize::B8, precision)).into();
        let integer = Int8Softmax::Integer(Normalisation::Deferred);
        let first = [1, 3].map(|threads| plan(&all, large, threads, integer));
        for (kind, queries, keys, head_dim) in [
            (AttentionKind::SelfAttention, 61, 61, 16),
            (AttentionKind::CausalSelfAttention, 61, 61, 32),
            (AttentionKind::CrossAttention, 35, 101, 32),
        ] {
            let shape = AttentionShape { kind, heads: 3, queries, keys, head_dim, windows: 1 };
            for (block_size, int8_softmax) in
                [(BlockSize::B8, Int8Softmax::Float), (BlockSize::B16, integer), (BlockSize::B32, Int8Softmax::Float)]
            {
                let masks: Vec<HeadMask> =
                    (0..3).map(|_| random_mask(&shape, block_size, 0.15, &Precision::ALL, &mut rng)).collect();
                let Tensors { q, k, v } = Tensors::gaussian(&shape, u64::from(keys));
                // From an odd place on, values are copied.
                let v = [&[0.0], &v[..]].concat();
                for (first, threads) in first.iter().zip([1, 3]) {
                    let sparse = plan(&masks, shape, threads, int8_softmax);
                    for live in [keys as usize, 33] {
                        let mut workspace = first.workspace();
                        workspace.reserve(&sparse);
                        let dirt = vec![f32::NAN; (3 * large.keys * large.head_dim) as usize];
                        let mut anything = vec![0.0; (3 * large.queries * large.head_dim) as usize];
                        let inputs = Inputs::new(&dirt[..anything.len()], &dirt, &dirt);
                        first.run(inputs, &mut anything, &mut workspace).unwrap();
                        let inputs = Inputs::new(&q, &k, &v[1..]).live_keys(live);
                        let [dirty, clean] = [&mut workspace, &mut sparse.workspace()].map(|workspace| {
                            let mut out = vec![f32::NAN; q.len()];
                            sparse.run(inputs, &mut out, workspace).unwrap();
                            out
                        });
                        assert!(clean.iter().all(|x| x.is_finite()));
                        assert_eq!(dirty, clean, "{kernel} {kind:?} {block_size:?} {threads} threads, {live} keys");
                    }
                }
            }
        }
    }
}

#[test]
fn plans_for_one_thread_and_for_several_share_a_workspace() {
    let plan = |threads| {
        let options = PlanOptions::new().unwrap().threads(NonZeroUsize::new(threads).unwrap());
        AttentionPlan::with_options(&dense(SHAPE), SHAPE, options).unwrap()
    };
    let (alone, together) = (plan(1), plan(3));
    let mut workspace = alone.workspace();
    workspace.reserve(&together);
    for seed in 0..4 {
        let Tensors { q, k, v } = Tensors::gaussian(&SHAPE, seed);
        let [first, second] = [&alone, &together].map(|plan| {
            let mut out = vec![f32::NAN; q.len()];
            plan.run(Inputs::new(&q, &k, &v), &mut out, &mut workspace).unwrap();
            out
        });
        assert_eq!(first, second);
    }
}

#[test]
fn kernels_are_named_and_unknown_names_refused_with_the_known_ones() {
    for kernel in Kernel::available() {
        assert_eq!(kernel.to_string().parse(), Ok(kernel));
    }
    assert_eq!("portable".parse(), Ok(Kernel::Portable));
    let refused = "neon".parse::<Kernel>().unwrap_err().to_string();
    assert!(
        refused.starts_with("`neon` is no kernel of this build: MASKWRIGHT_KERNEL is one of portable"),
        "{refused}"
    );
}

#[test]
fn a_kernel_beyond_the_cpu_is_refused_with_those_that_run() {
    for kernel in [Kernel::Portable, Kernel::Avx2, Kernel::Avx512Vnni, Kernel::Avx512, Kernel::Amx] {
        let parsed = kernel.name().parse::<Kernel>();
        let available = |kernel| Kernel::available().any(|available| available == kernel);
        match kernel {
            kernel if available(kernel) => assert_eq!(parsed, Ok(kernel)),
            Kernel::Avx512 if available(Kernel::Avx512Vnni) => assert_eq!(parsed, Ok(Kernel::Avx512Vnni)),
            _ => assert!(matches!(parsed, Err(KernelError::Unsupported { .. }))),
        }
    }
    let refused = KernelError::Unsupported { kernel: "avx512", available: "portable, avx2".into() };
    assert_eq!(refused.to_string(), "this CPU cannot run kernel `avx512`: it can run portable, avx2");
}

fn mixed(shape: AttentionShape, block_size: BlockSize, seed: u64) -> Vec<HeadMask> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..shape.heads).map(|_| random_mask(&shape, block_size, 0.5, &Precision::ALL, &mut rng)).collect()
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let shape = AttentionShape { heads: 3, queries: 197, keys: 197, head_dim: 64, ..SHAPE };
    let tensors = Tensors::gaussian(&shape, 1);
    let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v);
    for (block_size, options) in BlockSize::ALL
        .into_iter()
        .flat_map(|size| options_with_and_without_promotion().map(move |options| (size, options)))
    {
        let masks = mixed(shape, block_size, 2);
        let one = run(options, &masks, shape, inputs);
        for threads in [2, 3, 64] {
            let many = run(options.threads(NonZeroUsize::new(threads).unwrap()), &masks, shape, inputs);
            assert_eq!(one, many, "{threads} threads, {options:?}");
        }
    }
}

#[test]
fn a_lone_coarse_block_joins_the_finer_ones_of_its_row_where_that_is_faster() {
    let shape = AttentionShape { heads: 1, queries: 128, keys: 128, head_dim: 32, ..SHAPE };
    let mask = |text: &str| [HeadMask { block_size: BlockSize::B32, blocks: text.parse().unwrap() }];
    let tensors = Tensors::gaussian(&shape, 1);
    let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v);
    for options in options().filter(|options| options.int8_softmax == Int8Softmax::Float) {
        // An 8-bit block of 32 by 32 scores, among single ones, does not pay for packing its head at 8 bit.
        let promoted = run(options, &mask("4444\n4444\n4414\n4444"), shape, inputs);
        assert_eq!(promoted, run(options, &mask("4444\n4444\n4444\n4444"), shape, inputs), "{options:?}");
        let as_masked = options.promotion(Promotion::Never);
        assert_ne!(promoted, run(as_masked, &mask("4444\n4444\n4414\n4444"), shape, inputs), "{options:?}");
        for (options, blocks) in [(options, 1), (as_masked, 0)] {
            let plan = AttentionPlan::with_options(&mask("4444\n4444\n4414\n4444"), shape, options).unwrap();
            assert_eq!(plan.promoted_blocks(), blocks, "{options:?}");
        }
    }
}

#[test]
fn blocks_that_causality_empties_are_not_promoted() {
    let kind = AttentionKind::CausalSelfAttention;
    let shape = AttentionShape { kind, heads: 1, queries: 32, keys: 32, ..SHAPE };
    // The portable kernel computes every block in single precision: the three on and below the diagonal.
    let options = PlanOptions::on(Kernel::Portable).promotion(Promotion::WhereFaster);
    let mask = HeadMask::dense(&shape, BlockSize::B16, Precision::Int8);
    let plan = AttentionPlan::with_options(&[mask], shape, options).unwrap();
    assert_eq!(plan.promoted_blocks(), 3);
}

#[test]
fn a_plan_forgets_the_call_before() {
    let masks = mixed(SHAPE, BlockSize::B16, 3);
    let (first, second) = (Tensors::gaussian(&SHAPE, 4), Tensors::gaussian(&SHAPE, 5));
    for options in options_with_and_without_promotion() {
        let plan = AttentionPlan::with_options(&masks, SHAPE, options).unwrap();
        let (mut workspace, mut out) = (plan.workspace(), vec![f32::NAN; 2 * 40 * 32]);
        plan.run(Inputs::new(&first.q, &first.k, &first.v), &mut out, &mut workspace).unwrap();
        let inputs = Inputs::new(&second.q, &second.k, &second.v).live_keys(21);
        plan.run(inputs, &mut out, &mut workspace).unwrap();
        assert_eq!(out, run(options, &masks, SHAPE, inputs));
    }
}

/// Heads of every block size and of one precision each, or of all, which take turns in the same memory: each must be as if it were the first
/// one there. The first call leaves NaN wherever the second one has no live key.
#[test]
fn heads_that_take_turns_in_one_room_do_not_see_each_other() {
    use Precision::{Half, Int8, Single};
    for head_dim in [24, 32, 40] {
        let shape = AttentionShape { heads: 8, queries: 45, keys: 45, head_dim, ..SHAPE };
        let mut rng = ChaCha8Rng::seed_from_u64(head_dim.into());
        let all = [Int8, Half, Single];
        let precisions: [&[Precision]; 8] = [&all, &[Int8], &all, &[Half], &[Single], &[Half], &[Int8], &all];
        let masks: Vec<HeadMask> = precisions
            .into_iter()
            .zip(BlockSize::ALL.into_iter().cycle())
            .map(|(precisions, block_size)| random_mask(&shape, block_size, 0.5, precisions, &mut rng))
            .collect();
        let tensors = Tensors::gaussian(&shape, 8);
        let (mut k, mut v) = (tensors.k.clone(), tensors.v.clone());
        for head in 0..8 {
            let later = (head * 45 + 21) * head_dim as usize..(head + 1) * 45 * head_dim as usize;
            k[later.clone()].fill(f32::NAN);
            v[later].fill(f32::NAN);
        }
        for options in options_with_and_without_promotion() {
            let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v);
            let len = 45 * head_dim as usize;
            let alone = |head: usize, live: usize| {
                let [q, k, v] = [&tensors.q, &tensors.k, &tensors.v].map(|all| &all[head * len..(head + 1) * len]);
                let shape = AttentionShape { heads: 1, ..shape };
                run(options, &masks[head..=head], shape, Inputs::new(q, k, v).live_keys(live))
            };
            let expected = [21, 45].map(|live| (0..8).flat_map(|head| alone(head, live)).collect::<Vec<_>>());
            for threads in [1, 2, 3, 64] {
                let options = options.threads(NonZeroUsize::new(threads).unwrap());
                let plan = AttentionPlan::with_options(&masks, shape, options).unwrap();
                let (mut workspace, mut out) = (plan.workspace(), vec![f32::NAN; expected[0].len()]);
                plan.run(Inputs::new(&tensors.q, &k, &v), &mut out, &mut workspace).unwrap();
                for (live, expected) in [21, 45, 21].into_iter().zip([0, 1, 0].map(|at| &expected[at])) {
                    plan.run(inputs.live_keys(live), &mut out, &mut workspace).unwrap();
                    assert_eq!(&out, expected, "{live} live keys, {threads} threads, {options:?}");
                    plan.run_in_phases(Inputs::new(&tensors.q, &k, &v), &mut out, &mut workspace).unwrap();
                }
            }
        }
    }
}

/// The largest numbers of a head, wherever they are, decide its 8-bit scales: it is as if it were alone, although some are looked for while the head before
/// is computed.
#[test]
fn eight_bit_heads_have_the_scales_of_their_own_numbers() {
    const HEADS: usize = 24;
    let shape = AttentionShape { heads: HEADS as u32, queries: 315, keys: 315, head_dim: 24, ..SHAPE };
    let len = 315 * 24;
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    for block_size in BlockSize::ALL.into_iter().cycle().take(6) {
        // So many blocks that a head's loops are longer than the next one's numbers; some heads have all precisions.
        let mut mask = |head: usize| {
            let precisions: &[Precision] = if head % 5 == 3 { &Precision::ALL } else { &[Precision::Int8] };
            random_mask(&shape, block_size, 0.9, precisions, &mut rng)
        };
        let masks: Vec<HeadMask> = (0..HEADS).map(&mut mask).collect();
        let mut tensors = Tensors::gaussian(&shape, rng.random());
        let live = rng.random_range(200..=315);
        for (tensor, tokens) in [(&mut tensors.q, 315), (&mut tensors.k, live), (&mut tensors.v, live)] {
            for of_head in tensor.chunks_exact_mut(len) {
                let largest = match rng.random_range(0..30) {
                    0 => f32::NAN,
                    1 => f32::INFINITY,
                    _ => rng.random_range(5.0..50.0),
                };
                let sign = if rng.random() { 1.0 } else { -1.0 };
                of_head[rng.random_range(0..tokens * 24)] = sign * largest;
            }
        }
        let Tensors { q, k, v } = &tensors;
        let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        for options in options().filter(|options| options.int8_softmax == Int8Softmax::Float) {
            let alone = |head: usize| {
                let [q, k, v] = [q, k, v].map(|all| &all[head * len..(head + 1) * len]);
                let shape = AttentionShape { heads: 1, ..shape };
                bits(run(options, &masks[head..=head], shape, Inputs::new(q, k, v).live_keys(live)))
            };
            let expected: Vec<u32> = (0..HEADS).flat_map(alone).collect();
            for threads in [1, 2, 3] {
                let options = options.threads(NonZeroUsize::new(threads).unwrap());
                let found = bits(run(options, &masks, shape, Inputs::new(q, k, v).live_keys(live)));
                assert!(found == expected, "{threads} threads, {options:?}");
            }
        }
    }
}

#[test]
fn padded_keys_and_values_are_never_read() {
    let masks = mixed(SHAPE, BlockSize::B16, 6);
    let Tensors { q, k, v } = Tensors::gaussian(&SHAPE, 7);
    let (mut poisoned_k, mut poisoned_v) = (k.clone(), v.clone());
    for head in 0..2 {
        let padding = (head * 40 + 21) * 32..(head + 1) * 40 * 32;
        poisoned_k[padding.clone()].fill(f32::NAN);
        poisoned_v[padding].fill(f32::INFINITY);
    }
    for options in options_with_and_without_promotion() {
        let clean = run(options, &masks, SHAPE, Inputs::new(&q, &k, &v).live_keys(21));
        let poisoned = run(options, &masks, SHAPE, Inputs::new(&q, &poisoned_k, &poisoned_v).live_keys(21));
        assert!(clean.iter().all(|x| x.is_finite()), "{options:?}");
        assert_eq!(clean, poisoned, "{options:?}");
    }
}

#[test]
fn queries_without_a_live_key_get_zeros() {
    // Cross-attention: the first query block looks at keys 0 to 7, the second at 8 to 15, of which none is live.
    let shape = AttentionShape {
        kind: AttentionKind::CrossAttention,
        heads: 1,
        queries: 16,
        keys: 16,
        head_dim: 8,
        windows: 1,
    };
    for glyphs in ["4.\n.4", "2.\n.2", "1.\n.1"] {
        let mask = HeadMask { block_size: BlockSize::B8, blocks: glyphs.parse().unwrap() };
        let tensors = Tensors::gaussian(&shape, 8);
        let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v).live_keys(8);
        for options in options_with_and_without_promotion() {
            let found = run(options, std::slice::from_ref(&mask), shape, inputs);
            assert!(found[..8 * 8].iter().all(|x| *x != 0.0), "{glyphs}, {options:?}");
            assert_eq!(found[8 * 8..], [0.0; 8 * 8], "{glyphs}, {options:?}");
            assert_eq!(run(options, std::slice::from_ref(&mask), shape, inputs.live_keys(0)), vec![0.0; 16 * 8]);
        }
        assert_eq!(oracle::attend(&[mask], &shape, inputs).unwrap()[8 * 8..], [0.0; 8 * 8]);
    }
}

#[test]
fn plans_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<AttentionPlan>();
    shared::<maskwright_kernels::Workspace>();
}

#[test]
fn a_call_in_phases_gives_the_same_and_takes_time_in_each() {
    let shape = AttentionShape { queries: 300, keys: 300, ..SHAPE };
    let tensors = Tensors::gaussian(&shape, 13);
    let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v);
    for options in options() {
        let masks = [(); 2].map(|()| HeadMask::dense(&shape, BlockSize::B16, Precision::Int8));
        let plan = AttentionPlan::with_options(&masks, shape, options).unwrap();
        let mut out = vec![f32::NAN; tensors.q.len()];
        let phases = plan.run_in_phases(inputs, &mut out, &mut plan.workspace()).unwrap();
        assert_eq!(out, run(options, &masks, shape, inputs), "{options:?}");
        for phase in [phases.packing, phases.scores, phases.softmax, phases.values, phases.rows] {
            assert!(phase > std::time::Duration::ZERO, "{phases:?}, {options:?}");
        }
    }
}
