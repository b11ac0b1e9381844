//! What [`Lanes`] promises, for every instruction set that this CPU has.

use half::bf16;

use crate::IntegerSoftmax;

#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512};
use super::{EXP2, EXP2_UNIFIED, Lanes, Portable, UNIFIED_MAX, bf16_bits, transpose_groups};

/// Runs `$check` on every implementation.
macro_rules! on_every_instruction_set {
    ($check:ident) => {
        $check(Portable);
        #[cfg(target_arch = "x86_64")]
        {
            Avx2::detect().map($check);
            Avx512::<false>::detect().map($check);
            Avx512::<true>::detect().map($check);
            Avx512::<true, true>::detect().map($check);
        }
    };
}

/// Applies a vector operation to numbers of any count, a vector at a time.
fn map<L: Lanes>(lanes: L, numbers: &[f32], f: impl Fn(L::Float) -> L::Float) -> Vec<f32> {
    let mut results = Vec::new();
    for numbers in numbers.chunks(L::WIDTH) {
        let mut words = vec![0; L::WIDTH];
        for (word, number) in words.iter_mut().zip(numbers) {
            *word = number.to_bits();
        }
        let result = f(lanes.floats(lanes.load(&words)));
        lanes.store(lanes.bits(result), &mut words);
        results.extend(words.iter().take(numbers.len()).map(|&word| f32::from_bits(word)));
    }
    results
}

fn splat<L: Lanes>(lanes: L, x: f32) -> L::Float {
    lanes.floats(lanes.splat(x.to_bits()))
}

fn words<L: Lanes>(lanes: L, words: L::Word) -> Vec<u32> {
    let mut all = vec![0; L::WIDTH];
    lanes.store(words, &mut all);
    all
}

#[test]
fn exp2_is_within_three_roundings() {
    fn check<L: Lanes>(lanes: L) {
        let x: Vec<f32> = (0..=126_000).map(|at| at as f32 / -1000.0).collect();
        for (x, y) in x.iter().zip(map(lanes, &x, |x| lanes.exp2([x], &EXP2)[0])) {
            let exact = f64::from(*x).exp2();
            // Two roundings in the last steps of the polynomial, one part in six for its fit, and less than half for
            // the steps before: 3 u = 1.8e-7.
            assert!((f64::from(y) / exact - 1.0).abs() < 1.8e-7, "2^{x} is {exact:e}, not {y:e}");
        }
    }
    on_every_instruction_set!(check);
}

#[test]
fn exp2_is_exact_at_zero_and_next_to_nothing_far_below() {
    fn check<L: Lanes>(lanes: L) {
        let far = [0.0, -1.0, -126.0, -151.0, -1e9, f32::MIN, f32::NEG_INFINITY];
        let results = map(lanes, &far, |x| lanes.exp2([x], &EXP2)[0]);
        assert_eq!(results[..3], [1.0, 0.5, 2_f32.powi(-126)]);
        assert!(results[3..].iter().all(|y| (0.0..=2_f32.powi(-126)).contains(y)), "{results:?}");
    }
    on_every_instruction_set!(check);
}

#[test]
fn exp2_below_the_unified_maximum_is_right_on_both_sides_of_zero_and_tells_what_is_beyond() {
    fn check<L: Lanes>(lanes: L) {
        let exp2 = |x: &[f32]| map(lanes, x, |x| lanes.exp2([x], &EXP2_UNIFIED)[0]);
        let x: Vec<f32> = (-78_000..=127_000).map(|at| at as f32 / 1000.0).collect();
        for (x, y) in x.iter().zip(exp2(&x)) {
            let exact = (f64::from(*x) - f64::from(UNIFIED_MAX)).exp2();
            assert!((f64::from(y) / exact - 1.0).abs() < 1.8e-7, "2^{x} is {exact:e}, not {y:e}");
        }
        assert_eq!(exp2(&[0.0, 48.0, -78.0]), [2_f32.powi(-48), 1.0, 2_f32.powi(-126)]);
        let far_above = exp2(&[127.1, 128.0, 191.0, 192.0, 320.0, 1e6, f32::MAX, f32::INFINITY]);
        assert!(far_above.iter().all(|y| y.is_nan() || *y >= 2_f32.powi(79)), "{far_above:?}");
        let far_below = exp2(&[-79.0, -190.0, -191.0, -320.0, -1e6, f32::MIN, f32::NEG_INFINITY]);
        assert!(far_below.iter().all(|y| (0.0..=2_f32.powi(-126)).contains(y)), "{far_below:?}");
        assert!(exp2(&[f32::NAN, -f32::NAN]).iter().all(|y| y.is_nan()));
    }
    on_every_instruction_set!(check);
}

#[test]
fn exp2_of_several_is_that_of_each() {
    fn check<L: Lanes>(lanes: L) {
        let vectors = [-0.1, -3.7, -125.2, f32::NEG_INFINITY].map(|x| splat(lanes, x));
        let together = lanes.exp2(vectors, &EXP2).map(|y| words(lanes, lanes.bits(y)));
        assert_eq!(together, vectors.map(|x| words(lanes, lanes.bits(lanes.exp2([x], &EXP2)[0]))));
    }
    on_every_instruction_set!(check);
}

#[test]
fn exp2_of_nan_is_nan_whatever_its_bits() {
    fn check<L: Lanes>(lanes: L) {
        let nans = [0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0x7fff_ffff, 0xffff_ff81].map(f32::from_bits);
        assert!(map(lanes, &nans, |x| lanes.exp2([x], &EXP2)[0]).iter().all(|y| y.is_nan()));
    }
    on_every_instruction_set!(check);
}

#[test]
fn all_are_within_a_limit_up_to_the_limit_itself_and_nan_is_not() {
    fn check<L: Lanes>(lanes: L) {
        let within = |x: f32, limit: f32| {
            let mut words = vec![1_f32.to_bits(); L::WIDTH];
            words[L::WIDTH - 1] = x.to_bits();
            lanes.all_within(lanes.floats(lanes.load(&words)), limit)
        };
        assert!(within(2.0, 2.0) && within(-2.0, 2.0) && within(f32::NEG_INFINITY, f32::INFINITY));
        assert!(!within(2.1, 2.0) && !within(-2.1, 2.0) && !within(f32::NAN, f32::INFINITY));
    }
    on_every_instruction_set!(check);
}

/// Scores from 0 down to -140 octaves, in units of a quarter, and what `weights` makes of each as a number.
fn weights_of<L: Lanes>(lanes: L, weights: impl Fn(L::Float) -> f64) -> Vec<(f64, f64)> {
    let scores = (0..=140_000).map(|at| f64::from(at) / -1000.0);
    scores.map(|octaves| (octaves, weights(splat(lanes, (4.0 * (octaves + 3.0)) as f32)))).collect()
}

#[test]
fn bf16_weights_are_within_one_and_a_half_roundings() {
    fn check<L: Lanes>(lanes: L) {
        let (scale, max) = (splat(lanes, 0.25), splat(lanes, 3.0));
        let weights = weights_of(lanes, |score| {
            let word = words(lanes, lanes.weights_bf16([score; 2], scale, [max; 2]))[0];
            bf16::from_bits(word as u16).to_f64()
        });
        for (octaves, weight) in weights {
            let (exact, smallest) = (octaves.exp2(), 2_f64.powi(-126));
            // Half a unit in the last of eight places, and half as much for the way there.
            let close = (weight / exact - 1.0).abs() < 0.75 * 2_f64.powi(-7);
            assert!(if exact > smallest { close } else { weight <= 1.01 * smallest }, "2^{octaves} is not {weight:e}");
        }
        let nothing = words(lanes, lanes.weights_bf16([splat(lanes, f32::NEG_INFINITY); 2], scale, [max; 2]))[0];
        assert!(bf16::from_bits(nothing as u16).to_f64() <= 2_f64.powi(-126));
    }
    on_every_instruction_set!(check);
}

#[test]
fn bf16_weights_below_the_unified_maximum_are_as_close_and_tell_what_is_beyond() {
    fn check<L: Lanes>(lanes: L) {
        let scale = splat(lanes, 0.25);
        let weight = |octaves: f64| {
            let score = splat(lanes, (4.0 * octaves) as f32);
            bf16::from_bits(words(lanes, lanes.unified_weights_bf16([score; 2], scale))[0] as u16).to_f64()
        };
        for octaves in (-77_900..=48_000).map(|at| f64::from(at) / 1000.0) {
            let exact = (octaves - f64::from(UNIFIED_MAX)).exp2();
            let weight = weight(octaves);
            assert!((weight / exact - 1.0).abs() < 0.75 * 2_f64.powi(-7), "2^{octaves} is {exact:e}, not {weight:e}");
        }
        for octaves in [49.1, 100.0, 191.0, 192.0, 1e3, 1e6, 1e30, f64::INFINITY, f64::NAN] {
            let weight = weight(octaves);
            assert!(weight.is_nan() || weight >= 1.9, "2^{octaves} is not {weight:e}");
        }
        let nothing = 2_f64.powi(-126);
        assert!([-79.0, -90.0, -200.0, -1e3, -1e6].into_iter().all(|octaves| weight(octaves) <= nothing));
        for octaves in [-1e7, -1e30, f64::NEG_INFINITY] {
            let weight = weight(octaves);
            assert!(weight <= nothing || weight >= 1.9, "2^{octaves} is not {weight:e}");
        }
    }
    on_every_instruction_set!(check);
}

#[test]
fn byte_weights_are_the_nearest_or_beside_it() {
    fn check<L: Lanes>(lanes: L) {
        let (scale, max) = (splat(lanes, 0.25), splat(lanes, 3.0));
        let weights =
            weights_of(lanes, |score| f64::from(words(lanes, lanes.weights_u8([score; 4], scale, [max; 4]))[0] & 0xff));
        for (octaves, weight) in weights {
            let exact = 255.0 * octaves.exp2();
            // Half a unit, and 0.3 % for the polynomial.
            assert!((weight - exact).abs() < 0.52 + 0.003 * exact, "255 * 2^{octaves} is {exact}, not {weight}");
        }
        let nothing = splat(lanes, f32::NEG_INFINITY);
        assert_eq!(words(lanes, lanes.weights_u8([nothing; 4], scale, [max; 4])), vec![0; L::WIDTH]);
    }
    on_every_instruction_set!(check);
}

#[test]
fn byte_weights_of_distances_are_as_close_as_a_64th_of_an_octave() {
    fn check<L: Lanes>(lanes: L) {
        let last = f32::from_bits(2_f32.powi(-6).to_bits() - 1);
        for unit in [2_f32.powi(-8), 0.006_3, 2_f32.powi(-7), 0.015_6, last] {
            let weight = |distance: i32| {
                let distances = lanes.splat(distance as u32 * 0x1_0001);
                let weights = words(lanes, lanes.weights_u8_of_distances([distances; 2], unit));
                assert!(weights.iter().all(|&word| word == weights[0] && word == (word & 0xff) * 0x0101_0101));
                f64::from(weights[0] & 0xff)
            };
            for distance in 0..=i32::from(i16::MAX) {
                let (exact, found) = (255.0 * (-f64::from(distance) * f64::from(unit)).exp2(), weight(distance));
                // Half a unit, and half a 64th of an octave: .54 %.
                assert!((found - exact).abs() < 0.52 + 0.006 * exact, "{distance} of {unit} is {exact}, not {found}");
            }
            assert_eq!([weight(0), weight(i32::from(i16::MAX))], [255.0, 0.0]);
        }
        // Of four queries and all keys, distances in eighths of an octave.
        let distances = [0, 20, 1, 39].map(|first| counting(lanes, first));
        let unit = 2_f32.powi(-7);
        let eighths = distances.map(|distance| words(lanes, distance).iter().map(|x| 16 * x).collect::<Vec<_>>());
        let [a, b, c, d] = eighths.each_ref().map(|words| lanes.load(words));
        let found = lanes.weights_u8_of_distances([lanes.pack_i16(a, b), lanes.pack_i16(c, d)], unit);
        let weight = |word: &u32| (255.0 * (-(*word as f32) * unit).exp2()).round() as u32;
        let expected = eighths.map(|words| lanes.load(&words.iter().map(weight).collect::<Vec<_>>()));
        assert_eq!(words(lanes, found), words(lanes, lanes.pack_u8(expected)));
    }
    on_every_instruction_set!(check);
}

#[test]
fn pairs_of_sixteen_bit_integers_saturate_and_compare_by_halves() {
    fn check<L: Lanes>(lanes: L) {
        let word = |low: i16, high: i16| u32::from(low as u16) | u32::from(high as u16) << 16;
        let splat = |low, high| lanes.splat(word(low, high));
        let first = |words_of: L::Word| words(lanes, words_of)[0];
        let (a, b) = (splat(-5, 30_000), splat(7, -30_000));
        assert_eq!(first(lanes.max_i16(a, b)), word(7, 30_000));
        assert_eq!(first(lanes.min_i16(a, b)), word(-5, -30_000));
        assert_eq!(first(lanes.sub_i16(a, b)), word(-12, i16::MAX));
        assert_eq!(first(lanes.sub_i16(b, a)), word(12, i16::MIN));
        let shifted = |x: i32, bits| first(lanes.shift_right(lanes.splat(x as u32), lanes.splat(bits))) as i32;
        assert_eq!([shifted(-1, 3), shifted(1 << 20, 20), shifted(-9, 1), shifted(i32::MIN, 31)], [-1, 1, -5, -1]);

        // In the last group: the four of the first, then the four of the second.
        let (last, counted) = (4 * (L::GROUPS - 1), counting(lanes, 0));
        let n = last as i16;
        let packed = lanes.pack_i16(counted, lanes.splat(-70_000_i32 as u32));
        let least = word(i16::MIN, i16::MIN);
        assert_eq!(words(lanes, packed)[last..], [word(n, n + 1), word(n + 2, n + 3), least, least]);
        let [same, saturated] = lanes.unpack_i16(packed).map(|unpacked| words(lanes, unpacked));
        assert_eq!(same, words(lanes, counted));
        assert_eq!(saturated, vec![i32::from(i16::MIN) as u32; L::WIDTH]);
        assert_eq!(first(lanes.pack_i16(lanes.splat(70_000), counted)), word(i16::MAX, i16::MAX));
    }
    on_every_instruction_set!(check);
}

#[test]
fn a_maximum_and_a_minimum_pass_over_nan() {
    fn check<L: Lanes>(lanes: L) {
        let running = [1.0, 1.0, 1.0, 1.0];
        let new = [2.0, 0.0, f32::NAN, f32::NEG_INFINITY];
        let of = |new: f32, old: f32| map(lanes, &[new], |new| lanes.max(new, splat(lanes, old)))[0];
        assert_eq!([0, 1, 2, 3].map(|at| of(new[at], running[at])), [2.0, 1.0, 1.0, 1.0]);
        let of = |new: f32, limit: f32| map(lanes, &[new], |new| lanes.min(new, splat(lanes, limit)))[0];
        assert_eq!(new.map(|new| of(new, f32::INFINITY)), [2.0, 0.0, f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!(new.map(|new| of(new, f32::NEG_INFINITY)), [f32::NEG_INFINITY; 4]);
    }
    on_every_instruction_set!(check);
}

#[test]
fn the_larger_of_bits_forgets_signs_and_keeps_what_is_not_finite() {
    fn check<L: Lanes>(lanes: L) {
        let largest = |numbers: [f32; 3]| {
            let add = |max, x: f32| lanes.larger_bits(max, lanes.splat(x.to_bits()));
            words(lanes, numbers.into_iter().fold(lanes.splat(0), add))[L::WIDTH - 1]
        };
        assert_eq!(largest([1.0, -3.5, 2.0]), 3.5_f32.to_bits());
        assert_eq!(largest([-0.0, 0.0, -0.0]), 0);
        assert_eq!(largest([f32::NEG_INFINITY, f32::MAX, 0.0]), f32::INFINITY.to_bits());
        let nan = f32::from_bits(0xffc0_0001);
        assert_eq!(largest([nan, f32::INFINITY, 1.0]), 0x7fc0_0001);
    }
    on_every_instruction_set!(check);
}

#[test]
fn bf16_rounds_as_the_half_crate_does() {
    let ends = [f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MIN_POSITIVE];
    // Every upper half, with lower halves that are below, on and above the tie.
    let all =
        (0..=u16::MAX).flat_map(|high| [0x7fff, 0x8000, 0x8001].map(|low| f32::from_bits(u32::from(high) << 16 | low)));
    for x in ends.into_iter().chain(all).filter(|x| !x.is_nan()) {
        assert_eq!(bf16_bits(x), u32::from(bf16::from_f32(x).to_bits()), "{x:e}");
    }
    assert!(bf16::from_bits(bf16_bits(f32::NAN) as u16).is_nan());
}

#[test]
fn bf16_pairs_are_packed_low_first_and_multiplied_pairwise() {
    fn check<L: Lanes>(lanes: L) {
        let pair = |low, high| lanes.zip_bf16(splat(lanes, low), splat(lanes, high));
        let one_and_half = bf16::from_f32(1.5).to_bits();
        let minus_two = bf16::from_f32(-2.0).to_bits();
        assert_eq!(words(lanes, pair(1.5, -2.0))[0], u32::from(one_and_half) | u32::from(minus_two) << 16);
        // 10 + 1.5 * 4 - 2 * 0.25
        let dot = lanes.dot_bf16(splat(lanes, 10.0), pair(1.5, -2.0), pair(4.0, 0.25));
        assert_eq!(map(lanes, &[0.0], |_| dot), [15.5]);
        let nan = lanes.dot_bf16(splat(lanes, 0.0), pair(f32::NAN, 1.0), pair(1.0, 1.0));
        assert!(map(lanes, &[0.0], |_| nan)[0].is_nan());
    }
    on_every_instruction_set!(check);
}

/// A vector whose word `n` is `n + first`.
fn counting<L: Lanes>(lanes: L, first: u32) -> L::Word {
    lanes.load(&(first..).take(L::WIDTH).collect::<Vec<_>>())
}

#[test]
fn groups_are_moved_as_wholes_and_words_within_them() {
    fn check<L: Lanes>(lanes: L) {
        let numbers: Vec<u32> = (0..100).collect();
        let counted = lanes.load(&numbers);
        let in_turn = |some: u32| -> Vec<u32> {
            let first = (0..4).step_by(some as usize).flat_map(|n| (0..L::GROUPS as u32).map(move |x| 4 * x + n));
            first.flat_map(|first| first..first + some).collect()
        };
        assert_eq!(words(lanes, lanes.first_words_first(counted)), in_turn(1));
        assert_eq!(words(lanes, lanes.first_pairs_first(counted)), in_turn(2));
        let halves = words(lanes, lanes.load_halves(&numbers[5..], &numbers[50..]));
        let expected = |first: u32| first..first + L::WIDTH as u32 / 2;
        assert_eq!(halves, expected(5).chain(expected(50)).collect::<Vec<_>>());
        let groups = words(lanes, lanes.load_groups([5, 50, 13, 80].map(|first| &numbers[first..first + 4])));
        let of_four = [5, 50, 13, 80].into_iter().take(L::GROUPS).flat_map(|first: u32| first..first + 4);
        assert_eq!(groups, of_four.collect::<Vec<_>>());
        let half = words(lanes, lanes.load_half(&numbers[5..]));
        assert!(half.iter().copied().eq(expected(5).chain(vec![0; L::WIDTH / 2])));
        let mut stored = vec![7; L::WIDTH];
        lanes.store_half(counted, &mut stored);
        assert!(stored[L::WIDTH / 2..].iter().all(|&word| word == 7) && stored[1] == 1);

        let last = 4 * (L::GROUPS - 1);
        let rows = [0, 100, 200, 300].map(|first| counting(lanes, first));
        let columns = transpose_groups(lanes, rows).map(|column| words(lanes, column)[last..][..4].to_vec());
        let last = last as u32;
        assert_eq!(columns[2], [0, 100, 200, 300].map(|first| first + last + 2));
        // The last group of the first vector comes first in the last one, that of the second vector second.
        let turned = words(lanes, lanes.turn_groups(rows)[L::GROUPS - 1]);
        let expected = (0..L::GROUPS as u32).flat_map(|vector| (0..4).map(move |n| 100 * vector + last + n));
        assert_eq!(turned, expected.collect::<Vec<_>>());
    }
    on_every_instruction_set!(check);
}

#[test]
fn packing_puts_the_groups_of_each_part_side_by_side() {
    fn check<L: Lanes>(lanes: L) {
        // Word n of the last group, after packing, is that group of part n.
        let parts = [0, 50, 100, 150].map(|first| counting(lanes, first));
        let last = 4 * (L::GROUPS - 1);
        let bytes = |first: u32| u32::from_le_bytes([0, 1, 2, 3].map(|n| (first + last as u32 + n) as u8));
        assert_eq!(words(lanes, lanes.pack_u8(parts))[last..], [bytes(0), bytes(50), bytes(100), bytes(150)]);
        let negative = lanes.splat(-3_i32 as u32);
        let signed = lanes.pack_i8([parts[0], negative, parts[1], negative]);
        assert_eq!(words(lanes, signed)[last..], [bytes(0), 0xfdfd_fdfd, bytes(50), 0xfdfd_fdfd]);
        let transposed = words(lanes, lanes.transpose_bytes(lanes.pack_u8(parts)));
        assert_eq!(transposed[last + 1], u32::from_le_bytes([1, 51, 101, 151].map(|n| n + last as u8)));
        // bf16: two words of the first, then two of the second.
        let [first, second] = [1.0, 2.0].map(|x| splat(lanes, x));
        let one = u32::from(bf16::from_f32(1.0).to_bits()) * 0x1_0001;
        let two = u32::from(bf16::from_f32(2.0).to_bits()) * 0x1_0001;
        assert_eq!(words(lanes, lanes.pack_bf16(first, second)), [one, one, two, two].repeat(L::GROUPS));
    }
    on_every_instruction_set!(check);
}

#[test]
fn byte_products_reach_their_extremes_without_saturation() {
    fn check<L: Lanes>(lanes: L) {
        let dot = |sum: i32, a: [u8; 4], b: [i8; 4]| {
            let (a, b) = (u32::from_le_bytes(a), u32::from_le_bytes(b.map(|b| b as u8)));
            words(lanes, lanes.dot_u8_i8(lanes.splat(sum as u32), lanes.splat(a), lanes.splat(b)))[0] as i32
        };
        assert_eq!(dot(7, [1, 2, 3, 4], [10, -20, 30, -40]), 7 + 10 - 40 + 90 - 160);
        assert_eq!(dot(0, [255; 4], [127; 4]), 4 * 255 * 127);
        assert_eq!(dot(-1, [255; 4], [-128; 4]), -1 - 4 * 255 * 128);
    }
    on_every_instruction_set!(check);
}

#[test]
fn integers_round_ties_to_even() {
    fn check<L: Lanes>(lanes: L) {
        let rounded =
            [0.0, 0.5, 1.5, -2.5, -126.6, 255.0].map(|x| words(lanes, lanes.round(splat(lanes, x)))[0] as i32);
        assert_eq!(rounded, [0, 0, 2, -2, -127, 255]);
        assert_eq!(map(lanes, &[0.0], |_| lanes.convert(lanes.splat(-70_000_i32 as u32))), [-70_000.0]);
    }
    on_every_instruction_set!(check);
}

#[test]
fn integer_exponentials_are_those_of_one_score_at_a_time() {
    fn check<L: Lanes>(lanes: L) {
        for clip in [1, 7, 62, 52_800, 16_000_000, i32::MAX] {
            let softmax = IntegerSoftmax::new(6.6 / f64::from(clip));
            // Around every tie, at the clipping distance, and far beyond.
            let ties = (0..31).map(|i| (2 * i + 1) * i64::from(clip) / 62).flat_map(|tie| [tie, tie + 1]);
            for distance in ties.chain([0, clip.into(), 16_777_215]).filter(|&distance| distance < 1 << 24) {
                let found = words(lanes, lanes.integer_exponentials(splat(lanes, distance as f32), &softmax))[0];
                assert_eq!(found, u32::from(softmax.exponential(distance as u32)), "{distance} of {clip}");
            }
            let beyond = lanes.integer_exponentials(splat(lanes, f32::INFINITY), &softmax);
            assert_eq!(words(lanes, beyond), vec![0; L::WIDTH], "of {clip}");
            // What stands for a query that is not there may be any number.
            for nothing in [-1.0, -1e30, f32::MIN, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
                let found = words(lanes, lanes.integer_exponentials(splat(lanes, nothing), &softmax));
                assert!(
                    found.iter().all(|word| IntegerSoftmax::WORDS.contains(word)),
                    "{nothing} of {clip}: {found:?}"
                );
            }
        }
    }
    on_every_instruction_set!(check);
}

/// Products of a unit for matrices, each number of which is what a loop over numbers gives.
#[cfg(target_arch = "x86_64")]
mod matrices {
    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

    use super::*;
    use crate::lanes::{MatrixScores, MatrixSums};

    type Amx = Avx512<true, true>;

    /// Small whole numbers, so that every sum is exact: bytes, those of weights unsigned, or bf16.
    fn numbers(word: u32, bytes: bool, unsigned: bool) -> Vec<f32> {
        match bytes {
            true if unsigned => word.to_le_bytes().map(f32::from).into(),
            true => word.to_le_bytes().map(|byte| f32::from(byte as i8)).into(),
            false => [word << 16, word & 0xffff_0000].map(f32::from_bits).into(),
        }
    }

    fn draw(rng: &mut ChaCha8Rng, count: usize, bytes: bool) -> Vec<u32> {
        let mut half = || u32::from(bf16::from_f32(rng.random_range(-9_i8..10).into()).to_bits());
        let halves: Vec<u32> = (0..count).map(|_| half() | half() << 16).collect();
        if bytes { (0..count).map(|_| rng.random()).collect() } else { halves }
    }

    fn product(a: u32, b: u32, bytes: bool, unsigned: bool) -> f32 {
        numbers(a, bytes, unsigned).iter().zip(numbers(b, bytes, false)).map(|(a, b)| a * b).sum()
    }

    fn float(bits: u32, bytes: bool) -> f32 {
        if bytes { (bits as i32) as f32 } else { f32::from_bits(bits) }
    }

    #[test]
    fn scores_are_products_of_all_words() {
        let Some(lanes) = Amx::detect() else { return };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        lanes.begin_matrices(false);
        for (words, bytes) in [8, 16, 24, 32, 40, 64, 72].into_iter().flat_map(|words| [(words, true), (words, false)])
        {
            let queries = draw(&mut rng, 16 * words, bytes);
            let keys = [(); 2].map(|()| draw(&mut rng, 16 * words, bytes));
            for one in [false, true] {
                let mut to = [[7_u32; 256]; 2];
                let scores = MatrixScores {
                    queries: queries.as_ptr(),
                    words,
                    keys: [keys[0].as_ptr(), keys[1].as_ptr()],
                    to: to.each_mut().map(|to| to.as_mut_ptr()),
                };
                // SAFETY: the unit is ready, and there are 16 queries and two vectors of keys.
                unsafe {
                    match (bytes, one) {
                        (true, true) => lanes.score_matrices::<true, true>(scores),
                        (true, false) => lanes.score_matrices::<true, false>(scores),
                        (false, true) => lanes.score_matrices::<false, true>(scores),
                        (false, false) => lanes.score_matrices::<false, false>(scores),
                    }
                }
                for (vector, at) in (0..2).flat_map(|vector| (0..256).map(move |at| (vector, at))) {
                    if one && vector == 1 {
                        assert_eq!(to[1][at], 7, "the second vector is left alone");
                        continue;
                    }
                    let of_word = |word| {
                        product(queries[at / 16 * words + word], keys[vector][word * 16 + at % 16], bytes, false)
                    };
                    let expected: f32 = (0..words).map(of_word).sum();
                    assert_eq!(float(to[vector][at], bytes), expected, "{words} words, bytes: {bytes}, {vector} {at}");
                }
            }
        }
        lanes.end_matrices();
    }

    #[test]
    fn sums_are_those_of_all_vectors_of_keys() {
        let Some(lanes) = Amx::detect() else { return };
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        const D: usize = 64;
        for (bytes, four, adds) in
            [(true, true, false), (true, false, false), (false, false, false), (false, false, true), (true, true, true)]
        {
            lanes.begin_matrices(four);
            let (of_query, of_vector) = (if four { 4 } else { 8 }, if bytes { 4 } else { 8 });
            // Three vectors of keys, in any order, the last one begun only.
            let rows: Vec<u32> = [2, 0, 5]
                .iter()
                .flat_map(|first| (0..of_vector).map(move |n| (of_vector * first + n) * D as u32))
                .collect();
            let rows = &rows[..rows.len() - 1];
            let values = draw(&mut rng, 8 * 8 * D, bytes);
            let mut weights = draw(&mut rng, 3 * 272, bytes);
            if bytes && !four {
                // What belongs to no key weighs nothing.
                weights.chunks_exact_mut(8).for_each(|of_query| of_query[4..].fill(0));
            }
            let before = if bytes { 5 } else { 5_f32.to_bits() };
            let mut to = vec![before; 16 * D];
            for at in [0, 32] {
                let sums = MatrixSums {
                    weights: weights.as_ptr(),
                    of_query,
                    of_vector: 272,
                    rows,
                    values: values[at..].as_ptr(),
                    head_dim: D,
                    to: to[at..].as_mut_ptr(),
                    adds,
                };
                // SAFETY: the unit is ready, and there are as many weights and values, and sums of 16 queries.
                unsafe { if bytes { lanes.sum_matrices::<true>(sums) } else { lanes.sum_matrices::<false>(sums) } }
            }
            for (query, feature) in (0..16).flat_map(|query| (0..D).map(move |feature| (query, feature))) {
                let mut expected = if adds { 5.0 } else { 0.0 };
                for (vector, first) in [2, 0, 5].into_iter().enumerate() {
                    for n in 0..of_vector as usize {
                        let value = values[(of_vector as usize * first + n) * D + feature];
                        expected += product(weights[vector * 272 + query * of_query + n], value, bytes, true);
                    }
                }
                assert_eq!(float(to[query * D + feature], bytes), expected, "{bytes} {four} {adds} {query} {feature}");
            }
            lanes.end_matrices();
        }
    }

    #[test]
    fn weights_of_four_queries_lie_apart() {
        let Some(lanes) = Amx::detect() else { return };
        let words: Vec<u32> = (0..16).collect();
        let mut found = [0; 32];
        let [first, second] = lanes.first_words_apart(lanes.load(&words));
        lanes.store(first, &mut found);
        lanes.store(second, &mut found[16..]);
        let expected = (0..4).flat_map(|query| (0..8).map(move |n| if n < 4 { 4 * n + query } else { 0 }));
        assert_eq!(found.to_vec(), expected.collect::<Vec<_>>());
    }
}
