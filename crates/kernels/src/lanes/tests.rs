//! What [`Lanes`] promises, for every instruction set that this CPU has.

use half::bf16;

use crate::IntegerSoftmax;

#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512, EightLanes};
use super::{Lanes, Portable, bf16_bits};

/// Runs `$check` on every implementation.
macro_rules! on_every_instruction_set {
    ($check:ident) => {
        $check(Portable);
        #[cfg(target_arch = "x86_64")]
        {
            Avx2::detect().map(|proof| $check(EightLanes(proof)));
            Avx512::detect().map(|proof| $check(EightLanes(proof)));
            Avx512::detect().map($check);
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
        for (x, y) in x.iter().zip(map(lanes, &x, |x| lanes.exp2(x))) {
            let exact = f64::from(*x).exp2();
            // Two roundings in the last steps of the polynomial, one part in six for its fit, and less than half for
            // the steps before: 3 u = 1.8e-7.
            assert!((f64::from(y) / exact - 1.0).abs() < 1.8e-7, "2^{x} is {exact:e}, not {y:e}");
        }
    }
    on_every_instruction_set!(check);
}

#[test]
fn exp2_is_exact_at_zero_and_far_below_and_keeps_nan() {
    fn check<L: Lanes>(lanes: L) {
        let far = [0.0, -1.0, -126.0, -151.0, -1e9, f32::MIN, f32::NEG_INFINITY, f32::NAN];
        let results = map(lanes, &far, |x| lanes.exp2(x));
        assert_eq!(results[..7], [1.0, 0.5, 2_f32.powi(-126), 0.0, 0.0, 0.0, 0.0]);
        assert!(results[7].is_nan());
    }
    on_every_instruction_set!(check);
}

#[test]
fn a_maximum_passes_over_nan() {
    fn check<L: Lanes>(lanes: L) {
        let running = [1.0, 1.0, 1.0, 1.0];
        let new = [2.0, 0.0, f32::NAN, f32::NEG_INFINITY];
        let of = |new: f32, old: f32| map(lanes, &[new], |new| lanes.max(new, splat(lanes, old)))[0];
        assert_eq!([0, 1, 2, 3].map(|at| of(new[at], running[at])), [2.0, 1.0, 1.0, 1.0]);
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
        let pair = |low, high| lanes.pack_bf16(splat(lanes, low), splat(lanes, high));
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
fn integers_round_ties_to_even_and_pack_in_order() {
    fn check<L: Lanes>(lanes: L) {
        let rounded = [0.0, 0.5, 1.5, 2.5, 254.6, 255.0].map(|x| words(lanes, lanes.round(splat(lanes, x)))[0]);
        assert_eq!(rounded, [0, 0, 2, 2, 255, 255]);
        let packed = lanes.pack_u8([1, 2, 3, 255].map(|byte| lanes.splat(byte)));
        assert_eq!(words(lanes, packed)[L::WIDTH - 1], u32::from_le_bytes([1, 2, 3, 255]));
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
        }
    }
    on_every_instruction_set!(check);
}
