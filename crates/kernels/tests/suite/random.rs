//! Random inputs and masks, and how far from the oracle a result may be.

use maskwright_blueprint::{AttentionShape, BlockMask, BlockSize, HeadMask, Precision};
use rand::{Rng, RngExt, SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};

/// Queries, keys and values of a module.
pub struct Tensors {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

impl Tensors {
    /// Independent standard normal numbers: scores then have standard deviation one.
    pub fn gaussian(shape: &AttentionShape, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut tensor = |tokens: u32| {
            let len = (shape.heads * tokens * shape.head_dim) as usize;
            StandardNormal.sample_iter(&mut rng).take(len).collect::<Vec<f32>>()
        };
        Self { q: tensor(shape.queries), k: tensor(shape.keys), v: tensor(shape.keys) }
    }
}

impl Tensors {
    /// Every number of a token the same: `q` in each query, `k(key)` and `v(key)` in each key and value.
    pub fn uniform(shape: &AttentionShape, q: f32, k: impl Fn(usize) -> f32, v: impl Fn(usize) -> f32) -> Self {
        let tensor = |tokens: u32, number: &dyn Fn(usize) -> f32| {
            let of_head = (0..tokens as usize).flat_map(|token| vec![number(token); shape.head_dim as usize]);
            of_head.collect::<Vec<f32>>().repeat(shape.heads as usize)
        };
        Self { q: tensor(shape.queries, &|_| q), k: tensor(shape.keys, &k), v: tensor(shape.keys, &v) }
    }

    /// Numbers for which 8-bit products are as large as they can be: everything is 127 steps, but for a third of the keys
    /// with 126 and a third of the other sign. Softmax tells the first two thirds apart and forgets the last, or keeps the
    /// last alone where `q_sign` and `k_sign` differ. Values are 127 steps, too, and positive for the first third.
    pub fn extreme(shape: &AttentionShape, q_sign: f32, k_sign: f32) -> Self {
        let steps = |key: usize| [127.0, 126.0, -127.0][key % 3];
        Self::uniform(
            shape,
            q_sign * 2.0,
            |key| k_sign * 2.0 * steps(key) / 127.0,
            |key| if steps(key) == 127.0 { 2.0 } else { -2.0 },
        )
    }
}

/// Each block active with probability `density`, at one of `precisions`; the first column always is, so that every row
/// keeps a block in the past.
pub fn random_mask(
    shape: &AttentionShape,
    block_size: BlockSize,
    density: f64,
    precisions: &[Precision],
    rng: &mut impl Rng,
) -> HeadMask {
    let (rows, columns) = (block_size.cover(shape.queries) as usize, block_size.cover(shape.keys) as usize);
    let mut cell = |at: usize| {
        let precision = precisions[rng.random_range(0..precisions.len())];
        (rng.random_bool(density) || at.is_multiple_of(columns)).then_some(precision)
    };
    let blocks = BlockMask::new(columns, (0..rows * columns).map(&mut cell).collect()).expect("column 0 is active");
    HeadMask { block_size, blocks }
}

/// The relative root mean square error that rounding explains, for standard normal inputs with `head_dim` features and
/// rows of `keys` keys, doubled because small heads and outputs are small samples.
pub fn tolerance(coarsest: Precision, head_dim: u32, keys: u32) -> f64 {
    let (d, n) = (f64::from(head_dim), f64::from(keys));
    // f32, unit roundoff u: the rounding of a sum of m terms that grows like sqrt(m) adds u sqrt(m / 6) of its result
    // (the sum of u^2/3 * t/m over t <= m), products and additions twice that much where they are not fused; scores
    // have head_dim terms, outputs `keys`. Ten more roundings: scaling, exponential, correction, division.
    let u = 2_f64.powi(-24);
    let single = u * (2.0 * (d + n) / 6.0 + 10.0).sqrt();
    // bf16 keeps 8 bits: a number in [1, 2) is off by 2^-7 / sqrt(12), relative to it 0.74 of that in the mean square.
    // A score of two rounded factors is off by sqrt(2) of that times its size, one; a weight and a value by one each.
    let half = 2_f64.powi(-7) / 12_f64.sqrt() * 0.74 * (2.0_f64 + 1.0 + 1.0).sqrt();
    // 8 bit: queries, keys and values are off by a step / sqrt(12), a step being their maximum / 127. The maximum of m
    // normal numbers is at most sqrt(2 ln m). Weights are off by 1 / 255 / sqrt(12) where the largest is one; their
    // root mean square is then exp(1 - maximum of the scores).
    let largest = |m: f64| (2.0 * m.max(8.0).ln()).sqrt();
    let step = largest(d * n) / 127.0 / 12_f64.sqrt();
    let weight = (largest(n) - 1.0).exp() / 255.0 / 12_f64.sqrt();
    let int8 = (3.0 * step * step + weight * weight).sqrt();
    2.0 * match coarsest {
        Precision::Single => single,
        Precision::Half => half,
        Precision::Int8 => int8,
    }
}

/// `|found - expected| / |expected|` over all elements; NaN if any is NaN.
pub fn relative_error(found: &[f32], expected: &[f64]) -> f64 {
    let square: f64 = found.iter().zip(expected).map(|(&found, expected)| (f64::from(found) - expected).powi(2)).sum();
    let size: f64 = expected.iter().map(|x| x * x).sum();
    (square / size).sqrt()
}

/// The largest `|found - expected|` of one element; NaN counts as infinite.
pub fn largest_error(found: &[f32], expected: &[f64]) -> f64 {
    let errors = found.iter().zip(expected).map(|(&found, expected)| (f64::from(found) - expected).abs());
    errors.fold(0.0, |largest, error| if error.is_nan() { f64::INFINITY } else { largest.max(error) })
}
