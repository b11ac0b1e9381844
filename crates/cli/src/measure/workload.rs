use maskwright_blueprint::{AttentionKind, AttentionShape, BlockMask, BlockSize, HeadMask};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};

use super::{Floats, MeasureError, Precisions};

/// Attention that is drawn by chance: one mask for each head of one self-attention module.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) shape: AttentionShape,
    pub(crate) masks: Vec<HeadMask>,
}

/// How a head's active blocks are drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) block_size: BlockSize,
    /// Asked for; what comes out is at least one block a row.
    pub(crate) density: f64,
    pub(crate) precisions: Precisions,
}

/// Queries, keys and values, uniform between -1.7 and 1.7: their variance is one.
#[derive(Debug)]
pub(crate) struct Tensors {
    pub(crate) q: Floats,
    pub(crate) k: Floats,
    pub(crate) v: Floats,
}

/// Values of one tensor at most: 1 GiB of f32.
const MOST_VALUES: u64 = 1 << 28;

impl Workload {
    /// Self-attention of `heads` heads, drawn from `seed`.
    ///
    /// Every row of a head has equally many blocks, give or take one, the one on the diagonal among them; precisions are
    /// dealt to them by chance.
    pub(crate) fn draw(
        heads: u32,
        tokens: u32,
        head_dim: u32,
        spread: impl Fn(u32) -> Spread,
        seed: u64,
    ) -> Result<Self, MeasureError> {
        let kind = AttentionKind::SelfAttention;
        let shape = AttentionShape { kind, heads, queries: tokens, keys: tokens, head_dim, windows: 1 };
        check_size(&shape)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let masks = (0..heads).map(|head| mask(tokens, spread(head), &mut rng)).collect();
        Ok(Self { shape, masks })
    }

    /// One module of a blueprint.
    pub(crate) fn of(shape: AttentionShape, masks: Vec<HeadMask>) -> Result<Self, MeasureError> {
        check_size(&shape)?;
        Ok(Self { shape, masks })
    }

    /// Scores that are computed, by precision, in the order of [`maskwright_blueprint::Precision::ALL`].
    pub(crate) fn scores(&self) -> [u64; 3] {
        let mut scores = [0; 3];
        for mask in &self.masks {
            let size = mask.block_size;
            for (row, column, precision) in mask.blocks.active() {
                let (queries, keys) =
                    (size.extent(row as u32, self.shape.queries), size.extent(column as u32, self.shape.keys));
                scores[precision.index()] += u64::from(queries) * u64::from(keys);
            }
        }
        scores
    }

    /// Values of its longest tensor.
    pub(crate) fn values(&self) -> usize {
        self.shape.heads as usize * self.shape.queries.max(self.shape.keys) as usize * self.shape.head_dim as usize
    }

    /// Blocks that are computed, in all heads.
    pub(crate) fn blocks(&self) -> usize {
        self.masks.iter().map(|mask| mask.blocks.active().count()).sum()
    }

    /// Share of all scores that is computed.
    pub(crate) fn density(&self) -> f64 {
        self.scores().iter().sum::<u64>() as f64 / (self.shape.scores() * u64::from(self.shape.heads)) as f64
    }
}

/// Refuses shapes that nobody has the memory for.
fn check_size(shape: &AttentionShape) -> Result<(), MeasureError> {
    let &AttentionShape { heads, queries, keys, head_dim, .. } = shape;
    let tokens = queries.max(keys);
    let values = u64::from(heads).saturating_mul(u64::from(tokens)).saturating_mul(u64::from(head_dim));
    let blocks = u64::from(heads).saturating_mul(u64::from(tokens.div_ceil(8)).saturating_pow(2));
    match values.max(blocks) > MOST_VALUES {
        true => Err(MeasureError::TooLarge { heads, tokens, head_dim, values, limit: MOST_VALUES }),
        false => Ok(()),
    }
}

fn mask(tokens: u32, spread: Spread, rng: &mut ChaCha8Rng) -> HeadMask {
    let columns = spread.block_size.cover(tokens) as usize;
    let total = ((spread.density * (columns * columns) as f64).round() as usize).clamp(columns, columns * columns);
    let mut cells = vec![None; columns * columns];
    let mut precisions: Vec<_> = spread.precisions.of_blocks(total).collect();
    precisions.shuffle(rng);
    // The rows that get one block more than the others are spread over the head.
    for row in 0..columns {
        let count = (row + 1) * total / columns - row * total / columns;
        let mut others: Vec<usize> = (0..columns).filter(|column| *column != row).collect();
        let (chosen, _) = others.partial_shuffle(rng, count - 1);
        for column in chosen.iter().copied().chain([row]) {
            cells[row * columns + column] = precisions.pop();
        }
    }
    let blocks = BlockMask::new(columns, cells).expect("every row has the block on its diagonal");
    HeadMask { block_size: spread.block_size, blocks }
}

impl Tensors {
    /// `values` of each, enough for every workload with no more.
    pub(crate) fn of_values(values: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = || {
            let mut floats = Floats::zeroed(values);
            floats.fill_with(|| rng.random_range(-1.7..1.7));
            floats
        };
        Self { q: draw(), k: draw(), v: draw() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(tokens: u32, density: f64) -> Workload {
        let precisions = "mixed".parse().unwrap();
        Workload::draw(2, tokens, 64, |_| Spread { block_size: BlockSize::B16, density, precisions }, 7).unwrap()
    }

    #[test]
    fn density_is_what_was_asked_for_and_every_row_has_its_diagonal() {
        let half = drawn(512, 0.5);
        assert_eq!((half.density(), half.blocks()), (0.5, 2 * 32 * 16));
        for mask in &half.masks {
            mask.check(&half.shape).unwrap();
            assert!((0..32).all(|row| mask.blocks.get(row, row).is_some()));
            assert!((0..32).all(|row| mask.blocks.row(row).iter().flatten().count() == 16));
        }
        let scores = half.scores();
        let all: u64 = scores.iter().sum();
        assert!((scores[0] as f64 / all as f64 - 0.4).abs() < 0.01, "{scores:?}");
        assert_eq!(drawn(128, 0.01).density(), 1.0 / 8.0); // a block a row at least
    }

    #[test]
    fn the_same_seed_draws_the_same_masks() {
        assert_eq!(drawn(197, 0.3).masks, drawn(197, 0.3).masks);
    }

    #[test]
    fn more_than_a_gibibyte_is_refused() {
        let spread = Spread { block_size: BlockSize::B16, density: 1.0, precisions: "fp32".parse().unwrap() };
        let error = Workload::draw(65_536, 65_536, 64, |_| spread, 0).unwrap_err().to_string();
        assert!(error.contains("more than the 268435456 that are measured"), "{error}");
    }
}
