//! What one core can do at most, measured: products a second with the kernel's own instructions, clock, bandwidth.
//!
//! Attention is held against these figures, so they come from the same core, in the same run. Each call measures anew, for
//! a fraction of a millisecond, so that some calls pass undisturbed also on a busy machine: the best of many is the peak.
//!
//! ```
//! use maskwright_blueprint::Precision;
//! use maskwright_kernels::{Kernel, peak};
//!
//! let kernel = Kernel::from_environment()?;
//! let operations = peak::operations_per_second(kernel, Precision::Single)?;
//! println!("{kernel}: {:.1} GFLOP/s, {:.2} GHz", operations / 1e9, peak::clock_hertz() / 1e9);
//! # Ok::<(), maskwright_kernels::KernelError>(())
//! ```

#![expect(clippy::needless_range_loop, reason = "as in the kernel")]

use std::{hint::black_box, time::Instant};

use maskwright_blueprint::Precision;

use crate::{
    Kernel, KernelError,
    kernel::Instructions,
    lanes::{Lanes, MAX_WIDTH, MatrixScores, OnLanes},
    tile::{Half, Int8, Operand, Single},
    workspace::AlignedWords,
};

/// Operations a second of one core that multiplies and adds in registers alone, at one precision, with the instructions
/// that `kernel` computes with; two for each multiply-accumulate.
///
/// With `Kernel::Avx512` that is the rate of one instruction: a fused multiply-add, `vdpbf16ps` or `vpdpbusd`; with `Kernel::Amx`, at 16 and 8 bit, of a
/// product of the unit for matrices, whose operands come from the innermost cache meanwhile. Where a kernel puts products of a precision together from
/// several instructions, it is the rate of those. Products are the very operations of the kernel, so no attention at that precision is faster.
pub fn operations_per_second(kernel: Kernel, precision: Precision) -> Result<f64, KernelError> {
    let instructions = kernel.instructions()?;
    multiply(instructions, precision, PRODUCT_STEPS / 16);
    let begun = Instant::now();
    let operations = multiply(instructions, precision, PRODUCT_STEPS);
    Ok(operations as f64 / begun.elapsed().as_secs_f64())
}

/// Bytes a second that one core reads of `bytes` bytes, over and over: of a cache that holds them, or of main memory.
/// At least 4 KiB are read.
pub fn read_bytes_per_second(kernel: Kernel, bytes: usize) -> Result<f64, KernelError> {
    let instructions = kernel.instructions()?;
    // Written, not only zeroed: untouched pages may all be one.
    let words = vec![1_u32; bytes.max(LEAST_BYTES) / size_of::<u32>() / READ_WORDS * READ_WORDS];
    let rounds = (READ_BYTES / size_of_val(&words[..])).max(1);
    instructions.run(Read { words: &words, rounds: 1 });
    let begun = Instant::now();
    instructions.run(Read { words: black_box(&words), rounds });
    Ok((size_of_val(&words[..]) * rounds) as f64 / begun.elapsed().as_secs_f64())
}

/// Cycles a second of the core at hand under a light load: a chain of additions and exclusive ors, each of which waits for
/// the one before and takes a cycle on every CPU that this is built for.
pub fn clock_hertz() -> f64 {
    let (odd, mask) = (black_box(0x9e37_79b9_7f4a_7c15_u64), black_box(0x0123_4567_89ab_cdef_u64));
    let mut x = black_box(1_u64);
    let begun = Instant::now();
    for _ in 0..CLOCK_STEPS {
        for _ in 0..8 {
            x = (x ^ mask).wrapping_add(odd);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    black_box(x);
    (CLOCK_STEPS * 8 * 2) as f64 / seconds
}

/// Steps of the product loop, after a sixteenth as many to warm up.
const PRODUCT_STEPS: usize = 1 << 15;

/// Read at least.
const READ_BYTES: usize = 1 << 24;

const LEAST_BYTES: usize = 4096;

/// Words that the reading loop takes a step: eight vectors of the widest kernel.
const READ_WORDS: usize = 128;

const CLOCK_STEPS: usize = 1 << 15;

/// Products of `steps` rounds, and how many operations they are. With 16 registers there are eight sums; on AVX2 only two
/// fixed vectors, because 8-bit ones are kept widened, in two registers each.
fn multiply(instructions: Instructions, precision: Precision, steps: usize) -> usize {
    instructions.run(Multiply { precision, steps })
}

struct Multiply {
    precision: Precision,
    steps: usize,
}

impl OnLanes for Multiply {
    type Output = usize;

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) -> usize {
        match (L::GROUPS, L::SUMS) {
            (1, _) => products::<_, 2, 4>(lanes, self.precision, self.steps),
            (_, ..16) => products::<_, 4, 2>(lanes, self.precision, self.steps),
            _ => products::<_, 4, 4>(lanes, self.precision, self.steps),
        }
    }
}

/// As [`sums`], with the products of `precision`.
#[inline(always)]
fn products<L: Lanes, const A: usize, const B: usize>(lanes: L, precision: Precision, steps: usize) -> usize {
    let per_word = match precision {
        Precision::Int8 if L::MATRICES => return matrix_products::<_, true>(lanes, steps),
        Precision::Half if L::MATRICES => return matrix_products::<_, false>(lanes, steps),
        Precision::Int8 => sums::<L, Int8, A, B>(lanes, steps),
        Precision::Half => sums::<L, Half, A, B>(lanes, steps),
        Precision::Single => sums::<L, Single, A, B>(lanes, steps),
    };
    2 * per_word * L::WIDTH * A * B * steps
}

/// `A * B` independent sums, each of the product of one of `A` vectors that change from step to step, so that nothing can
/// be computed ahead of the loop, with one of `B` that stay in registers. Returns the products of a word.
#[inline(always)]
fn sums<L: Lanes, O: Operand, const A: usize, const B: usize>(lanes: L, steps: usize) -> usize {
    // Small numbers of every precision; sums stay finite, and no product is slower than another.
    let ring: Vec<u32> = (0..RING * A * L::WIDTH).map(|at| 0x3c01_3c01 + (at as u32 % 2)).collect();
    let ring = black_box(&ring[..]);
    let mut fixed = [lanes.splat(0); B];
    for b in 0..B {
        fixed[b] = lanes.splat(black_box(0x3c02_3c02 + b as u32));
    }
    // Indices, not iterators: an adapter that is not inlined leaves no sum in a register.
    let mut sums = [[O::zero(lanes); B]; A];
    for step in 0..steps {
        let vectors = &ring[step % RING * A * L::WIDTH..][..A * L::WIDTH];
        for a in 0..A {
            let vector = lanes.load(&vectors[a * L::WIDTH..]);
            for b in 0..B {
                sums[a][b] = O::add_product(lanes, sums[a][b], vector, fixed[b]);
            }
        }
    }
    let mut total = lanes.floats(lanes.splat(0));
    for a in 0..A {
        for b in 0..B {
            total = lanes.max(O::float(lanes, sums[a][b]), total);
        }
    }
    let mut kept = [0; MAX_WIDTH];
    lanes.store(lanes.bits(total), &mut kept);
    black_box(&kept);
    O::PER_WORD
}

/// About as many products of the unit for matrices, with numbers from the innermost cache: nothing else is as fast. Returns how many operations they are.
#[inline(always)]
fn matrix_products<L: Lanes, const BYTES: bool>(lanes: L, steps: usize) -> usize {
    const WORDS: usize = 256;
    let numbers = AlignedWords::zeroed(WORDS * L::WIDTH);
    let mut sums = AlignedWords::zeroed(2 * L::WIDTH * L::WIDTH);
    let to = sums.as_mut_ptr();
    let operations = 2 * 2 * if BYTES { 4 } else { 2 } * WORDS * L::WIDTH * L::WIDTH;
    let rounds = (steps / 64).max(1);
    lanes.begin_matrices(false);
    for _ in 0..rounds {
        let numbers = black_box(numbers.as_ptr());
        let to = [to, to.wrapping_add(L::WIDTH * L::WIDTH)];
        // SAFETY: the unit is ready; there are words of as many queries, and of a vector of keys, and room for two vectors of scores.
        unsafe {
            lanes.score_matrices::<BYTES, false>(MatrixScores {
                queries: numbers,
                words: WORDS,
                keys: [numbers; 2],
                to,
            });
        }
    }
    lanes.end_matrices();
    black_box(&sums);
    operations * rounds
}

/// Steps after which the product loop's vectors repeat; they lie in the innermost cache.
const RING: usize = 16;

/// Reads every word `rounds` times.
struct Read<'a> {
    words: &'a [u32],
    rounds: usize,
}

impl OnLanes for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        maxima(lanes, self.words, self.rounds);
    }
}

/// Loads all words into eight maxima, which no compiler may leave out or reorder into fewer loads.
#[inline(always)]
fn maxima<L: Lanes>(lanes: L, words: &[u32], rounds: usize) {
    let mut largest = [lanes.floats(lanes.splat(0)); 8];
    for _ in 0..rounds {
        for eight in black_box(words).chunks_exact(8 * L::WIDTH) {
            for (largest, vector) in largest.iter_mut().zip(eight.chunks_exact(L::WIDTH)) {
                *largest = lanes.max(lanes.floats(lanes.load(vector)), *largest);
            }
        }
    }
    let mut all = lanes.floats(lanes.splat(0));
    for largest in &largest {
        all = lanes.max(*largest, all);
    }
    let mut kept = [0; MAX_WIDTH];
    lanes.store(lanes.bits(all), &mut kept);
    black_box(&kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_two_operations_for_each_product_of_each_lane() {
        // One vector of eight lanes times four: 32 lanes of one, two and four products.
        for (precision, operations) in [(Precision::Single, 64), (Precision::Half, 128), (Precision::Int8, 256)] {
            assert_eq!(multiply(Instructions::Portable, precision, 10), 10 * operations);
        }
    }

    #[test]
    fn every_kernel_of_this_machine_has_a_peak() {
        for kernel in Kernel::available() {
            for precision in Precision::ALL {
                assert!(operations_per_second(kernel, precision).unwrap() > 0.0, "{kernel} {precision}");
            }
            assert!(read_bytes_per_second(kernel, 0).unwrap() > 0.0, "{kernel}");
        }
    }

    #[test]
    fn a_clock_ticks_between_a_megahertz_and_ten_gigahertz() {
        let hertz = clock_hertz();
        assert!((1e6..1e10).contains(&hertz), "{hertz} Hz");
    }
}
