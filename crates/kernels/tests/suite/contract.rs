//! What a plan promises besides the numbers: refusals, determinism, padding, and what becomes of NaN.

use std::{error::Error, num::NonZeroUsize, slice};

use crate::random::{Tensors, random_mask};
use maskwright_blueprint::{AttentionKind, AttentionShape, BlockMask, BlockSize, HeadMask, MaskError, Precision};
use maskwright_kernels::{
    AttentionPlan, Inputs, Int8Softmax, Kernel, KernelError, Normalisation, PlanOptions, Promotion, Workspace, oracle,
};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

const SHAPE: AttentionShape =
    AttentionShape { kind: AttentionKind::SelfAttention, heads: 2, queries: 40, keys: 40, head_dim: 16, windows: 1 };

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
    let full = vec![0.0; 2 * 40 * 16];
    let mut out = vec![7.0; full.len()];
    let refused = plan.run(Inputs::new(&full, &full[1..], &full), &mut out, &mut workspace).unwrap_err();
    assert_eq!(refused.to_string(), "`k` holds 1279 values, this plan needs 1280: 2 heads x 40 tokens x 16");
    let refused = plan.run(Inputs::new(&full, &full, &full), &mut out[1..], &mut workspace).unwrap_err();
    assert!(matches!(refused, KernelError::Length { operand: "out", found: 1279, expected: 1280, .. }));
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
    let wider = plan(AttentionShape { head_dim: 32, ..SHAPE }, Precision::Single);
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
        head_dim: 24,
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
        for (kind, queries, keys) in [
            (AttentionKind::SelfAttention, 61, 61),
            (AttentionKind::CausalSelfAttention, 61, 61),
            (AttentionKind::CrossAttention, 35, 101),
        ] {
            let shape = AttentionShape { kind, heads: 3, queries, keys, head_dim: 16, windows: 1 };
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
    for kernel in [Kernel::Portable, Kernel::Avx2, Kernel::Avx512Vnni, Kernel::Avx512] {
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

/// The same with every block computed as its mask says, too: elsewhere than on BF16 no 16-bit block is packed otherwise.
fn options_with_and_without_promotion() -> impl Iterator<Item = PlanOptions> {
    options().flat_map(|options| [Promotion::WhereFaster, Promotion::Never].map(|way| options.promotion(way)))
}

/// Every kernel with every way of 8-bit softmax.
fn options() -> impl Iterator<Item = PlanOptions> {
    let integer = |form| Int8Softmax::Integer(form);
    let ways = [Int8Softmax::Float, integer(Normalisation::Deferred), integer(Normalisation::Paper)];
    let one = PlanOptions::new().unwrap().threads(NonZeroUsize::MIN);
    Kernel::available().flat_map(move |kernel| ways.map(|way| one.kernel(kernel).int8_softmax(way)))
}

fn run(options: PlanOptions, masks: &[HeadMask], shape: AttentionShape, inputs: Inputs<'_>) -> Vec<f32> {
    let plan = AttentionPlan::with_options(masks, shape, options).unwrap();
    let mut out = vec![f32::NAN; (shape.heads * shape.queries * shape.head_dim) as usize];
    plan.run(inputs, &mut out, &mut plan.workspace()).unwrap();
    out
}

fn mixed(shape: AttentionShape, block_size: BlockSize, seed: u64) -> Vec<HeadMask> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..shape.heads).map(|_| random_mask(&shape, block_size, 0.5, &Precision::ALL, &mut rng)).collect()
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let shape = AttentionShape { heads: 3, queries: 197, keys: 197, head_dim: 32, ..SHAPE };
    let tensors = Tensors::gaussian(&shape, 1);
    let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v);
    let masks = mixed(shape, BlockSize::B8, 2);
    for options in options_with_and_without_promotion() {
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
        let (mut workspace, mut out) = (plan.workspace(), vec![f32::NAN; 2 * 40 * 16]);
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
    for head_dim in [24, 40] {
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
        let padding = (head * 40 + 21) * 16..(head + 1) * 40 * 16;
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

/// Two query blocks that look at one key block each.
fn two_islands(precision: Precision) -> [HeadMask; 2] {
    let blocks = BlockMask::new(2, vec![Some(precision), None, None, Some(precision)]).unwrap();
    [(); 2].map(|()| HeadMask { block_size: BlockSize::B16, blocks: blocks.clone() })
}

/// For each head, which of its 32 queries have an output that is not a number.
fn nan_queries(out: &[f32]) -> Vec<Vec<usize>> {
    let is_nan = |row: &&[f32]| row.iter().any(|x| x.is_nan());
    let of_head = |head: &[f32]| head.chunks(8).enumerate().filter(|(_, row)| is_nan(row)).map(|(at, _)| at).collect();
    out.chunks(32 * 8).map(of_head).collect()
}

/// Whether two outputs are the same but for rounding: queries of a tile in which a score is not finite are computed with maxima, those of
/// another one without.
fn same_but_for_rounding(found: &[f32], without: &[f32], precision: Precision) -> bool {
    let rounding = if precision == Precision::Half { 1e-2 } else { 1e-6 };
    found.iter().zip(without).all(|(x, y)| (x - y).abs() <= rounding)
}

#[test]
fn what_is_not_finite_stays_where_it_is_looked_at() {
    let shape = AttentionShape { queries: 32, keys: 32, head_dim: 8, ..SHAPE };
    let clean = Tensors::gaussian(&shape, 9);
    // Query, key or value 20 of head 1: the second island of that head.
    let place = (32 + 20) * 8 + 3;
    for (precision, options) in Precision::ALL.into_iter().flat_map(|p| options().map(move |o| (p, o))) {
        let options = options.promotion(Promotion::Never);
        let masks = two_islands(precision);
        let without = run(options, &masks, shape, Inputs::new(&clean.q, &clean.k, &clean.v));
        for (operand, poison) in ["q", "k", "v"].into_iter().flat_map(|of| [(of, f32::NAN), (of, f32::INFINITY)]) {
            let mut tensors = Tensors { q: clean.q.clone(), k: clean.k.clone(), v: clean.v.clone() };
            match operand {
                "q" => tensors.q[place] = poison,
                "k" => tensors.k[place] = poison,
                _ => tensors.v[place] = poison,
            }
            let found = run(options, &masks, shape, Inputs::new(&tensors.q, &tensors.k, &tensors.v));
            let reached: Vec<usize> = match (precision, operand) {
                (Precision::Int8, _) => (0..32).collect(),
                (_, "q") => vec![20],
                (_, _) => (16..32).collect(),
            };
            let case = format!("{operand} {poison}, {precision}, {options:?}");
            for (at, (found, without)) in found.chunks(8).zip(without.chunks(8)).enumerate() {
                let same = match at {
                    _ if at >= 32 && reached.contains(&(at - 32)) => true,
                    // The other head, and the other island.
                    ..48 => found == without,
                    _ => same_but_for_rounding(found, without, precision),
                };
                assert!(same, "query {at}: {case}");
            }
            // Infinite keys and values of 16 and 32 bit may come out as infinity, or as nothing.
            if poison.is_nan() || operand == "q" || precision == Precision::Int8 {
                assert_eq!(nan_queries(&found), [vec![], reached], "{case}");
            }
        }
    }
}

#[test]
fn nan_is_found_beside_keys_that_are_not_there() {
    // Blocks of 8, one or two a row, and keys from 13 on do not exist: every vector of keys has some that are hidden.
    let glyphs = |glyph: char| "x..\n.x.\nxx.".replace('x', &glyph.to_string());
    for ((precision, glyph), kind) in [(Precision::Half, '2'), (Precision::Single, '4')]
        .into_iter()
        .flat_map(|of| [AttentionKind::SelfAttention, AttentionKind::CausalSelfAttention].map(|kind| (of, kind)))
    {
        let shape = AttentionShape { kind, heads: 1, queries: 24, keys: 24, head_dim: 8, windows: 1 };
        let mask = HeadMask { block_size: BlockSize::B8, blocks: glyphs(glyph).parse().unwrap() };
        let clean = Tensors::gaussian(&shape, 12);
        let mut keys = clean.k.clone();
        keys[10 * 8 + 3] = f32::NAN;
        let first = if kind == AttentionKind::SelfAttention { 8 } else { 10 };
        for options in options().map(|options| options.promotion(Promotion::Never)) {
            let of = |keys| {
                run(options, std::slice::from_ref(&mask), shape, Inputs::new(&clean.q, keys, &clean.v).live_keys(13))
            };
            let (found, without) = (of(&keys), of(&clean.k));
            for (query, (found, without)) in found.chunks(8).zip(without.chunks(8)).enumerate() {
                let case = format!("query {query}, {precision}, {kind:?}, {options:?}");
                match query < first {
                    true if query < 8 => assert_eq!(found, without, "{case}"),
                    true => assert!(same_but_for_rounding(found, without, precision), "{case}"),
                    false => assert!(found.iter().all(|x| x.is_nan()), "{case}"),
                }
            }
        }
    }
}

#[test]
fn nan_is_found_in_keys_beside_whose_vector_others_are_hidden() {
    // Three blocks of 16 a row, of which the last one hides keys, at most; wider vectors have nothing but visible keys before.
    for ((precision, glyph), kind) in [(Precision::Half, '2'), (Precision::Single, '4')]
        .into_iter()
        .flat_map(|of| [AttentionKind::SelfAttention, AttentionKind::CausalSelfAttention].map(|kind| (of, kind)))
    {
        let shape = AttentionShape { kind, heads: 1, queries: 48, keys: 48, head_dim: 8, windows: 1 };
        let blocks = "x..\nxx.\nxxx".replace('x', &glyph.to_string()).parse().unwrap();
        let mask = HeadMask { block_size: BlockSize::B16, blocks };
        let clean = Tensors::gaussian(&shape, 13);
        for poisoned in [3, 20] {
            let mut keys = clean.k.clone();
            keys[poisoned * 8 + 3] = f32::NAN;
            let first = if kind == AttentionKind::SelfAttention { poisoned / 16 * 16 } else { poisoned };
            for options in options().map(|options| options.promotion(Promotion::Never)) {
                let of = |keys| {
                    let inputs = Inputs::new(&clean.q, keys, &clean.v).live_keys(45);
                    run(options, std::slice::from_ref(&mask), shape, inputs)
                };
                let (found, without) = (of(&keys), of(&clean.k));
                for (query, (found, without)) in found.chunks(8).zip(without.chunks(8)).enumerate() {
                    let case = format!("query {query}, key {poisoned}, {precision}, {kind:?}, {options:?}");
                    match query < first {
                        true => assert!(same_but_for_rounding(found, without, precision), "{case}"),
                        false => assert!(found.iter().all(|x| x.is_nan()), "{case}"),
                    }
                }
            }
        }
    }
}

#[test]
fn nan_outlasts_the_chunks_of_keys_that_follow() {
    // A chunk has no more than 512, 512 and 256 keys of the precisions: the first chunks have all of a mixture, later ones what it has most of.
    let shape = AttentionShape {
        kind: AttentionKind::CrossAttention,
        heads: 1,
        queries: 40,
        keys: 1600,
        head_dim: 8,
        windows: 1,
    };
    let clean = Tensors::gaussian(&shape, 13);
    let (rows, columns) = (BlockSize::B16.cover(40) as usize, BlockSize::B16.cover(1600) as usize);
    for glyphs in [[2, 2, 2], [1, 1, 1], [2, 1, 2], [1, 2, 1], [1, 0, 0], [2, 0, 0]] {
        let cells = (0..rows * columns).map(|at| Some(Precision::ALL[glyphs[at % columns % 3]])).collect();
        let mask = HeadMask { block_size: BlockSize::B16, blocks: BlockMask::new(columns, cells).unwrap() };
        for (options, poison) in options().flat_map(|options| [f32::NAN, f32::INFINITY].map(|poison| (options, poison)))
        {
            let options = options.promotion(Promotion::Never);
            for [place, of_key] in [[3, 3], [16 * 8 + 3, 16 * 8 + 3], [39 * 8 + 3, 1590 * 8 + 3]] {
                let mut queries = clean.q.clone();
                queries[place] = poison;
                let found = run(options, std::slice::from_ref(&mask), shape, Inputs::new(&queries, &clean.k, &clean.v));
                let of_query = &found[place / 8 * 8..][..8];
                assert!(of_query.iter().all(|x| x.is_nan()), "{glyphs:?}, {poison} at {place}, {options:?}");
                let mut keys = clean.k.clone();
                keys[of_key] = f32::NAN;
                let found = run(options, std::slice::from_ref(&mask), shape, Inputs::new(&clean.q, &keys, &clean.v));
                assert!(found.iter().all(|x| x.is_nan()), "{glyphs:?}, NaN in key of {of_key}, {options:?}");
            }
        }
    }
}

/// Keys that matter little are computed at 8 bit, beside few that matter much.
#[test]
fn eight_bit_keys_beside_a_far_larger_score_are_not_lost() {
    // One key at 32 bit weighs e^7 times as much as any of the others, and has values of zero, where they have one.
    let shape = AttentionShape {
        kind: AttentionKind::CrossAttention,
        heads: 1,
        queries: 16,
        keys: 600,
        head_dim: 16,
        windows: 1,
    };
    let at_zero = |at: usize, x: f32| if at == 0 { x } else { 0.0 };
    let q: Vec<f32> = (0..16 * 16).map(|at| at_zero(at % 16, 4.0)).collect();
    let k: Vec<f32> = (0..600 * 16).map(|at| at_zero(at, 7.0)).collect();
    let v: Vec<f32> = (0..600 * 16).map(|at| if at < 16 { 0.0 } else { 1.0 }).collect();
    for (size, fine) in
        BlockSize::ALL.into_iter().flat_map(|size| Precision::ALL[1..].iter().map(move |fine| (size, *fine)))
    {
        let (rows, columns) = (size.cover(16) as usize, size.cover(600) as usize);
        let cells =
            (0..rows * columns).map(|at| Some(if at % columns == 0 { fine } else { Precision::Int8 })).collect();
        let mask = [HeadMask { block_size: size, blocks: BlockMask::new(columns, cells).unwrap() }];
        let inputs = Inputs::new(&q, &k, &v);
        let expected = oracle::attend(&mask, &shape, inputs).unwrap();
        let float = options().filter(|options| options.int8_softmax == Int8Softmax::Float);
        for options in float.map(|options| options.promotion(Promotion::Never)) {
            let found = run(options, &mask, shape, inputs);
            for (found, expected) in found.iter().zip(&expected) {
                assert!(
                    (f64::from(*found) / expected - 1.0).abs() < 0.01,
                    "{found}, not {expected}: {size}, {fine}, {options:?}"
                );
            }
        }
    }
}

/// 8-bit scores are 16-bit integers where those reach, which is up to 100 octaves; here the largest ones are beyond, or all of them, or
/// none, on either side of zero, in all chunks, in the first or in the second one.
#[test]
fn eight_bit_scores_may_be_beyond_sixteen_bit_integers() {
    // Every second key is 14 of 127 steps less in its first feature. So scores are 97, 104, 415 and 739 octaves from zero, and differ by .2 to 1.3.
    const FAR: [f32; 4] = [2.906_25, 3.0, 6.0, 8.0];
    let smaller = |at: usize| at / 64 % 2 == 1;
    let shape = |kind, queries, keys| AttentionShape { heads: 1, queries, keys, head_dim: 64, kind, windows: 1 };
    let cases = [
        (shape(AttentionKind::CrossAttention, 21, 40), 0..40),
        (shape(AttentionKind::CausalSelfAttention, 40, 40), 0..40),
        (shape(AttentionKind::CrossAttention, 5, 600), 0..30),
        (shape(AttentionKind::CrossAttention, 5, 600), 570..600),
    ];
    let pairs = cases.iter().flat_map(|case| FAR.map(|key| (case, key)));
    for ((shape, far), key) in pairs {
        let values: Vec<f32> = (0..shape.keys as usize * 64).map(|at| if smaller(at) { -1.0 } else { 1.0 }).collect();
        // What is not far away is one step, and other values tell those keys from others.
        let of_key = |at: usize| match (far.contains(&(at as u32 / 64)), smaller(at) && at.is_multiple_of(64)) {
            (false, _) => key / 127.0,
            (true, false) => key,
            (true, true) => key * 113.0 / 127.0,
        };
        let k: Vec<f32> = (0..values.len()).map(of_key).collect();
        // Queries of both signs and of none, and one of small scores, in the same tiles.
        let of_query = |at: usize| [key, -key, 0.0, key / 127.0][at / 64 % 4];
        let q: Vec<f32> = (0..shape.queries as usize * 64).map(of_query).collect();
        for (size, other) in BlockSize::ALL.into_iter().flat_map(|size| Precision::ALL.map(|other| (size, other))) {
            let (rows, columns) = (size.cover(shape.queries) as usize, size.cover(shape.keys) as usize);
            // Of long rows, those at 8 bit are more than a chunk.
            let int8 = |at: usize| columns > 5 && at % columns > 1 || at.is_multiple_of(columns);
            let cells = (0..rows * columns).map(|at| Some(if int8(at) { Precision::Int8 } else { other }));
            let mask = [HeadMask { block_size: size, blocks: BlockMask::new(columns, cells.collect()).unwrap() }];
            let inputs = Inputs::new(&q, &k, &values);
            let expected = oracle::attend(&mask, shape, inputs).unwrap();
            for options in options().filter(|options| options.int8_softmax == Int8Softmax::Float) {
                let found = run(options.promotion(Promotion::Never), &mask, *shape, inputs);
                let off = found.iter().zip(&expected).map(|(x, y)| (f64::from(*x) - y).abs()).fold(0.0, f64::max);
                assert!(off < 0.01, "off by {off}: {shape:?}, {far:?} of {key}, {size}, {other}, {options:?}");
            }
        }
    }
}

#[test]
fn numbers_of_any_finite_size_end_in_a_result() {
    for (scale, precision) in [0.0, 1e-40, 1e-30, 1e3, 1e4, 1e5, 1e6, 1e8, 1e10, 1e30, f32::MAX]
        .into_iter()
        .flat_map(|s| Precision::ALL.map(|p| (s, p)))
    {
        let masks = vec![HeadMask::dense(&SHAPE, BlockSize::B16, precision); 2];
        let tensors = Tensors::gaussian(&SHAPE, 10);
        let q: Vec<f32> = tensors.q.iter().map(|x| (x * scale).clamp(f32::MIN, f32::MAX)).collect();
        for options in options() {
            let found = run(options, &masks, SHAPE, Inputs::new(&q, &q, &tensors.v));
            // Scores beyond f32 are documented to make NaN; below that, outputs are means of values.
            let largest = tensors.v.iter().fold(0.0, |max: f32, v| max.max(v.abs()));
            let fine = found.iter().all(|x| x.abs() <= 1.01 * largest);
            assert!(fine || scale > 1e18, "{scale:e}, {precision}, {options:?}");
        }
    }
}

#[test]
fn the_largest_of_huge_scores_keeps_its_weight() {
    // Query n looks at itself and at nothing else: its score is the only one above zero, and 1e3 to 1e17 in size. Its own block
    // and the other one of its row have a precision each.
    let shape = AttentionShape { heads: 1, queries: 32, keys: 32, head_dim: 32, ..SHAPE };
    let values: Vec<f32> = (0..32 * 32).map(|at| (at / 32) as f32).collect();
    let pairs = Precision::ALL.into_iter().flat_map(|own| Precision::ALL.map(|other| [own, other]));
    for (scale, [own, other]) in
        [1e2, 1e4, 1e6, 1e9_f32].into_iter().flat_map(|scale| pairs.clone().map(move |pair| (scale, pair)))
    {
        let q: Vec<f32> = (0..32 * 32).map(|at| if at / 32 == at % 32 { scale } else { 0.0 }).collect();
        let cells = vec![Some(own), Some(other), Some(other), Some(own)];
        let mask = HeadMask { block_size: BlockSize::B16, blocks: BlockMask::new(2, cells).unwrap() };
        for options in options() {
            let found = run(options, slice::from_ref(&mask), shape, Inputs::new(&q, &q, &values));
            for (at, x) in found.iter().enumerate() {
                // An integer of the values is off by half of 31 / 127 at most, their bf16 is exact.
                let expected = values[at];
                assert!((x - expected).abs() < 0.13, "{x}, not {expected}: {scale:e}, {own}, {other}, {options:?}");
            }
        }
    }
}

#[test]
fn a_query_all_of_whose_scores_are_minus_infinity_is_nan() {
    let shape = AttentionShape { heads: 1, queries: 8, keys: 8, head_dim: 8, ..SHAPE };
    let (mut q, k) = (vec![1.0; 64], vec![-1.0; 64]);
    q[8] = f32::INFINITY; // of the second query
    for precision in [Precision::Half, Precision::Single] {
        for options in options() {
            let found =
                run(options, &[HeadMask::dense(&shape, BlockSize::B8, precision)], shape, Inputs::new(&q, &k, &k));
            assert!(found[8..16].iter().all(|x| x.is_nan()), "{precision}, {options:?}");
            let others = found.iter().enumerate().filter(|(at, _)| at / 8 != 1);
            assert!(others.into_iter().all(|(_, x)| (x + 1.0).abs() < 1e-6), "{precision}, {options:?}");
        }
    }
}

#[test]
fn later_tokens_do_not_leak_whatever_their_values() {
    // Token 20 of 40 has huge values, and no query before it may tell, whose scores are all zero.
    let shape = AttentionShape { kind: AttentionKind::CausalSelfAttention, heads: 1, queries: 40, keys: 40, ..SHAPE };
    let d = shape.head_dim as usize;
    let (zeros, mut values) = (vec![0.0; 40 * d], vec![1.0; 40 * d]);
    values[20 * d..21 * d].fill(1e36);
    for (precision, size) in
        [Precision::Half, Precision::Single].into_iter().flat_map(|p| BlockSize::ALL.map(move |size| (p, size)))
    {
        for options in options() {
            let mask = [HeadMask::dense(&shape, size, precision)];
            let found = run(options, &mask, shape, Inputs::new(&zeros, &zeros, &values));
            assert!(found[..20 * d].iter().all(|x| (x - 1.0).abs() < 1e-5), "{precision}, {size}, {options:?}");
            assert!(found[20 * d..].iter().all(|x| *x > 1e34), "{precision}, {size}, {options:?}");
        }
    }
}

/// Weights relative to a number far above the scores are small, and so are their products with values.
#[test]
fn small_values_keep_their_digits() {
    for (size, value) in BlockSize::ALL.into_iter().flat_map(|size| [1e-12_f32, 1e-20].map(|value| (size, value))) {
        let shape = AttentionShape { queries: 40, keys: 40, ..SHAPE };
        let tensors = Tensors::gaussian(&shape, 14);
        let values = vec![value; tensors.v.len()];
        for (precision, options) in
            [Precision::Half, Precision::Single].into_iter().flat_map(|p| options().map(move |o| (p, o)))
        {
            let mask = [(); 2].map(|()| HeadMask::dense(&shape, size, precision));
            let found = run(options, &mask, shape, Inputs::new(&tensors.q, &tensors.k, &values));
            assert!(found.iter().all(|x| (x / value - 1.0).abs() < 4e-3), "{value:e}, {precision}, {options:?}");
        }
    }
}

/// Weights relative to one number are far below one, and their products with values of 1e-35 nothing. Relative to a maximum they are not:
/// so these values tell which way a tile went, the fast one where scores are near zero, the other where they are far away.
#[test]
fn tiles_need_a_maximum_only_where_scores_are_far_from_zero() {
    let shape = AttentionShape { heads: 1, queries: 21, keys: 40, kind: AttentionKind::CrossAttention, ..SHAPE };
    let d = shape.head_dim as usize;
    let values = vec![1e-35; 40 * d];
    for (precision, size) in
        [Precision::Half, Precision::Single].into_iter().flat_map(|p| BlockSize::ALL.map(move |size| (p, size)))
    {
        let mask = [HeadMask::dense(&shape, size, precision)];
        for (options, score) in options().flat_map(|options| [-35.0, 0.0, 35.0_f32].map(|score| (options, score))) {
            // All features of a query are the same, and all of a key one.
            let queries = vec![score / (d as f32).sqrt(); 21 * d];
            let found = run(options, &mask, shape, Inputs::new(&queries, &vec![1.0; 40 * d], &values));
            let expected = if score == 0.0 { 0.0 } else { 1e-35 };
            let far = |x: &f32| (x - expected).abs() > 1e-37;
            assert!(!found.iter().any(far), "{score}, {precision}, {size}, {options:?}: {found:?}");
        }
    }
}

#[test]
fn weights_add_up_to_one_also_after_rounding() {
    let shape = AttentionShape { queries: 300, keys: 300, ..SHAPE };
    let tensors = Tensors::gaussian(&shape, 11);
    let ones = vec![1.0; tensors.v.len()];
    let in_the_paper = Int8Softmax::Integer(Normalisation::Paper);
    for options in options_with_and_without_promotion().filter(|options| options.int8_softmax != in_the_paper) {
        for precisions in [&Precision::ALL[..1], &Precision::ALL[1..2], &Precision::ALL[2..], &Precision::ALL] {
            let mut rng = ChaCha8Rng::seed_from_u64(12);
            let masks = [(); 2].map(|()| random_mask(&shape, BlockSize::B16, 0.5, precisions, &mut rng));
            let found = run(options, &masks, shape, Inputs::new(&tensors.q, &tensors.k, &ones));
            // Sums of 300 weights and of 300 products, which differ in rounding alone.
            let furthest = found.iter().fold(0.0, |furthest: f32, x| furthest.max((x - 1.0).abs()));
            assert!(furthest < 300.0 * f32::EPSILON, "{furthest:e} from one: {precisions:?}, {options:?}");
        }
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
