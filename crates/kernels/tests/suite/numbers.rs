//! What becomes of numbers of any size and kind: NaN, infinity, huge and tiny ones.

use std::slice;

use crate::{
    calls::{SHAPE, options, options_with_and_without_promotion, run},
    random::{Tensors, random_mask},
};
use maskwright_blueprint::{AttentionKind, AttentionShape, BlockMask, BlockSize, HeadMask, Precision};
use maskwright_kernels::{Inputs, Int8Softmax, Normalisation, Promotion, oracle};
use rand::{SeedableRng, rngs::ChaCha8Rng};

/// Two query blocks that look at one key block each.
fn two_islands(precision: Precision) -> [HeadMask; 2] {
    let blocks = BlockMask::new(2, vec![Some(precision), None, None, Some(precision)]).unwrap();
    [(); 2].map(|()| HeadMask { block_size: BlockSize::B16, blocks: blocks.clone() })
}

/// For each head, which of its 32 queries have an output that is not a number.
fn nan_queries(out: &[f32], d: usize) -> Vec<Vec<usize>> {
    let is_nan = |row: &&[f32]| row.iter().any(|x| x.is_nan());
    let of_head = |head: &[f32]| head.chunks(d).enumerate().filter(|(_, row)| is_nan(row)).map(|(at, _)| at).collect();
    out.chunks(32 * d).map(of_head).collect()
}

/// Whether two outputs are the same but for rounding: queries of a tile in which a score is not finite are computed with maxima, those of
/// another one without.
fn same_but_for_rounding(found: &[f32], without: &[f32], precision: Precision) -> bool {
    let rounding = if precision == Precision::Half { 1e-2 } else { 1e-6 };
    found.iter().zip(without).all(|(x, y)| (x - y).abs() <= rounding)
}

/// With features that are no whole vector, and so many that a unit for matrices multiplies them where the CPU has one, by eight words or by four.
fn at_widths(test: impl FnMut(usize)) {
    [8, 32, 64].into_iter().for_each(test);
}

#[test]
fn what_is_not_finite_stays_where_it_is_looked_at() {
    at_widths(|d| {
        let shape = AttentionShape { queries: 32, keys: 32, head_dim: d as u32, ..SHAPE };
        let clean = Tensors::gaussian(&shape, 9);
        // Query, key or value 20 of head 1: the second island of that head.
        let place = (32 + 20) * d + 3;
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
                for (at, (found, without)) in found.chunks(d).zip(without.chunks(d)).enumerate() {
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
                    assert_eq!(nan_queries(&found, d), [vec![], reached], "{case}");
                }
            }
        }
    });
}

#[test]
fn nan_is_found_beside_keys_that_are_not_there() {
    at_widths(|d| {
        // Blocks of 8, one or two a row, and keys from 13 on do not exist: every vector of keys has some that are hidden.
        let glyphs = |glyph: char| "x..\n.x.\nxx.".replace('x', &glyph.to_string());
        for ((precision, glyph), kind) in [(Precision::Half, '2'), (Precision::Single, '4')]
            .into_iter()
            .flat_map(|of| [AttentionKind::SelfAttention, AttentionKind::CausalSelfAttention].map(|kind| (of, kind)))
        {
            let shape = AttentionShape { kind, heads: 1, queries: 24, keys: 24, head_dim: d as u32, windows: 1 };
            let mask = HeadMask { block_size: BlockSize::B8, blocks: glyphs(glyph).parse().unwrap() };
            let clean = Tensors::gaussian(&shape, 12);
            let mut keys = clean.k.clone();
            keys[10 * d + 3] = f32::NAN;
            let first = if kind == AttentionKind::SelfAttention { 8 } else { 10 };
            for options in options().map(|options| options.promotion(Promotion::Never)) {
                let of = |keys| {
                    run(
                        options,
                        std::slice::from_ref(&mask),
                        shape,
                        Inputs::new(&clean.q, keys, &clean.v).live_keys(13),
                    )
                };
                let (found, without) = (of(&keys), of(&clean.k));
                for (query, (found, without)) in found.chunks(d).zip(without.chunks(d)).enumerate() {
                    let case = format!("query {query}, {precision}, {kind:?}, {options:?}");
                    match query < first {
                        true if query < 8 => assert_eq!(found, without, "{case}"),
                        true => assert!(same_but_for_rounding(found, without, precision), "{case}"),
                        false => assert!(found.iter().all(|x| x.is_nan()), "{case}"),
                    }
                }
            }
        }
    });
}

#[test]
fn nan_is_found_in_keys_beside_whose_vector_others_are_hidden() {
    at_widths(|d| {
        // Three blocks of 16 a row, of which the last one hides keys, at most; wider vectors have nothing but visible keys before.
        for ((precision, glyph), kind) in [(Precision::Half, '2'), (Precision::Single, '4')]
            .into_iter()
            .flat_map(|of| [AttentionKind::SelfAttention, AttentionKind::CausalSelfAttention].map(|kind| (of, kind)))
        {
            let shape = AttentionShape { kind, heads: 1, queries: 48, keys: 48, head_dim: d as u32, windows: 1 };
            let blocks = "x..\nxx.\nxxx".replace('x', &glyph.to_string()).parse().unwrap();
            let mask = HeadMask { block_size: BlockSize::B16, blocks };
            let clean = Tensors::gaussian(&shape, 13);
            for poisoned in [3, 20] {
                let mut keys = clean.k.clone();
                keys[poisoned * d + 3] = f32::NAN;
                let first = if kind == AttentionKind::SelfAttention { poisoned / 16 * 16 } else { poisoned };
                for options in options().map(|options| options.promotion(Promotion::Never)) {
                    let of = |keys| {
                        let inputs = Inputs::new(&clean.q, keys, &clean.v).live_keys(45);
                        run(options, std::slice::from_ref(&mask), shape, inputs)
                    };
                    let (found, without) = (of(&keys), of(&clean.k));
                    for (query, (found, without)) in found.chunks(d).zip(without.chunks(d)).enumerate() {
                        let case = format!("query {query}, key {poisoned}, {precision}, {kind:?}, {options:?}");
                        match query < first {
                            true => assert!(same_but_for_rounding(found, without, precision), "{case}"),
                            false => assert!(found.iter().all(|x| x.is_nan()), "{case}"),
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn nan_outlasts_the_chunks_of_keys_that_follow() {
    at_widths(|d| {
        // A chunk has no more than 512, 512 and 256 keys of the precisions: the first chunks have all of a mixture, later ones what it has most of.
        let shape = AttentionShape {
            kind: AttentionKind::CrossAttention,
            heads: 1,
            queries: 40,
            keys: 1600,
            head_dim: d as u32,
            windows: 1,
        };
        let clean = Tensors::gaussian(&shape, 13);
        let (rows, columns) = (BlockSize::B16.cover(40) as usize, BlockSize::B16.cover(1600) as usize);
        for glyphs in [[2, 2, 2], [1, 1, 1], [2, 1, 2], [1, 2, 1], [1, 0, 0], [2, 0, 0]] {
            let cells = (0..rows * columns).map(|at| Some(Precision::ALL[glyphs[at % columns % 3]])).collect();
            let mask = HeadMask { block_size: BlockSize::B16, blocks: BlockMask::new(columns, cells).unwrap() };
            for (options, poison) in
                options().flat_map(|options| [f32::NAN, f32::INFINITY].map(|poison| (options, poison)))
            {
                let options = options.promotion(Promotion::Never);
                for [place, of_key] in [[3, 3], [16 * d + 3, 16 * d + 3], [39 * d + 3, 1590 * d + 3]] {
                    let mut queries = clean.q.clone();
                    queries[place] = poison;
                    let found =
                        run(options, std::slice::from_ref(&mask), shape, Inputs::new(&queries, &clean.k, &clean.v));
                    let of_query = &found[place / d * d..][..d];
                    assert!(of_query.iter().all(|x| x.is_nan()), "{glyphs:?}, {poison} at {place}, {options:?}");
                    let mut keys = clean.k.clone();
                    keys[of_key] = f32::NAN;
                    let found =
                        run(options, std::slice::from_ref(&mask), shape, Inputs::new(&clean.q, &keys, &clean.v));
                    assert!(found.iter().all(|x| x.is_nan()), "{glyphs:?}, NaN in key of {of_key}, {options:?}");
                }
            }
        }
    });
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
