/// The range of scores that softmax tells apart, in natural logarithms: beyond it the table says zero (`c` of
/// IntAttention, arXiv 2511.21513).
const RANGE: f64 = 6.6;

/// Added to an exact fraction in f64 before it is cut off: rounds half up. The fraction of two numbers below 2^31 is a tie
/// or differs from one by at least 2^-32 = 2e-10, while the product that stands for it is off by less than 1e-13.
pub(crate) const TIES_UP: f64 = 0.5 + 1e-11;

/// How exponentials become shares of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Normalisation {
    /// Exponentials enter the product with the values as they are; one division by their sum follows. The same integer
    /// products as in the paper without its collapse: 0.2 to 0.7 % error on rows of 64 to 1024 Gaussian scores where
    /// the values have a mean, 5 to 6 % where they have none (that is the table's step).
    #[default]
    Deferred,
    /// Equation 15 of the paper: shares are rounded to 1/255 before the product, so that a key with less than 1/510 of
    /// its row vanishes. Broad rows collapse: on the same rows, 13 % error at 384 keys and 48 % at 1024.
    Paper,
}

/// Softmax of integer scores without an exponential function, as IntAttention (arXiv 2511.21513) defines it.
///
/// With `D = max(A) - A >= 0` for 32-bit scores `A` in units of `alpha`, and `c_int = round(6.6 / alpha)`: the
/// exponential is `TABLE[round(min(D, c_int) * 31 / c_int)]`, ties up. Tables and scores are integers, so the result is
/// the same on every machine.
///
/// ```
/// # use maskwright_kernels::IntegerSoftmax;
/// let softmax = IntegerSoftmax::new(0.01); // a score of 660 less is nothing
/// let mut exponentials = [0; 4];
/// let sum = softmax.exponentials(&[1000, 1000, 936, 340], &mut exponentials);
/// assert_eq!((exponentials, sum), ([255, 255, 135, 0], 645)); // exp(-0.64) = 0.527, and 135 / 255 = 0.529
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IntegerSoftmax {
    clip: i32,
    steps_per_unit: f64,
}

impl IntegerSoftmax {
    /// `TABLE[i] = round(255 exp(-6.6 i / 31))`, but zero at the end.
    pub const TABLE: [u8; 32] = [
        255, 206, 167, 135, 109, 88, 71, 57, 46, 38, 30, 25, 20, 16, 13, 10, 8, 7, 6, 4, 4, 3, 2, 2, 2, 1, 1, 1, 1, 1,
        0, 0,
    ];

    /// The table with 32 bits an entry.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const WORDS: [u32; 32] = {
        let mut words = [0; 32];
        let mut at = 0;
        while at < 32 {
            words[at] = Self::TABLE[at] as u32;
            at += 1;
        }
        words
    };

    /// For scores in units of `alpha`: of `s_Q s_K / sqrt(head_dim)` for products of quantised queries and keys. The
    /// clipping distance `c_int` is kept from 1 to 2^31 - 1, so every `alpha` has a meaning; NaN counts as 0.
    pub fn new(alpha: f64) -> Self {
        let clip = (RANGE / alpha).round().clamp(1.0, f64::from(i32::MAX));
        let clip = if clip.is_nan() { i32::MAX } else { clip as i32 };
        Self { clip, steps_per_unit: 31.0 / f64::from(clip) }
    }

    /// `c_int`: scores this far below the maximum have exponential zero.
    pub fn clip(&self) -> i32 {
        self.clip
    }

    /// `31 / c_int`.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn steps_per_unit(&self) -> f64 {
        self.steps_per_unit
    }

    /// Of a score `distance >= 0` below its row's maximum.
    #[inline(always)]
    pub(crate) fn exponential(&self, distance: u32) -> u8 {
        let clipped = distance.min(self.clip as u32);
        let index = (f64::from(clipped) * self.steps_per_unit + TIES_UP) as usize;
        Self::TABLE[index & 31]
    }

    /// Writes the exponential of every score of one row, and returns their sum. The sum has 32 bits: 16 would wrap
    /// beyond 257 equal keys. Scores and exponentials are paired up to the shorter of the two.
    pub fn exponentials(&self, scores: &[i32], exponentials: &mut [u8]) -> u32 {
        let max = scores.iter().copied().max().unwrap_or(0);
        let mut sum = 0_u32;
        for (exponential, &score) in exponentials.iter_mut().zip(scores) {
            *exponential = self.exponential(max.abs_diff(score));
            sum = sum.saturating_add(u32::from(*exponential));
        }
        sum
    }
}

impl Normalisation {
    /// The 8-bit factor of a key's values: what enters the integer product for an exponential of a row with this `sum`.
    ///
    /// The product is in units of `1 / sum` when deferred, and of `1 / 255` in the paper's form.
    #[inline(always)]
    pub fn weight(self, exponential: u8, sum: u32) -> u8 {
        match self {
            Self::Deferred => exponential,
            Self::Paper if sum == 0 => 0,
            // round(255 E / sum), ties up; 255 at most, as E <= sum in a row.
            Self::Paper => {
                let (exponential, sum) = (u64::from(exponential), u64::from(sum));
                ((510 * exponential + sum) / (2 * sum)).min(255) as u8
            }
        }
    }
}
