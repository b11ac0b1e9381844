use maskwright_blueprint::{AttentionShape, BlockSize, HeadId, ModelShape, Precision};
use maskwright_cost_model::CostError;
use maskwright_evaluator::{BlockStatistics, Calibration};

use crate::{Pricing, Space};

/// What calibration and prices say of each block: expected loss when it is skipped or coarsened, price when it is
/// active, and the features by which a policy ranks blocks.
pub struct Guide {
    heads: Vec<HeadGuide>,
}

/// One head.
pub struct HeadGuide {
    pub(crate) id: HeadId,
    pub(crate) shape: AttentionShape,
    /// Share of attention logits in bins of a standard deviation.
    pub(crate) histogram: Vec<f32>,
    /// One for each block size of the space.
    sizes: Vec<SizeGuide>,
}

/// One head at one block size.
pub struct SizeGuide {
    pub(crate) size: BlockSize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Squared influence of skipping each block.
    pub(crate) skip: Vec<f64>,
    /// The same of computing it at each of [`Precision::ALL`].
    pub(crate) rounding: [Vec<f64>; 3],
    /// Cost of an active block at each of [`Precision::ALL`]; infinite where the space lacks it.
    pub(crate) price: [f64; 3],
    /// `[block][feature]`, see [`FEATURES`].
    pub(crate) features: Vec<[f32; FEATURES]>,
    /// Blocks whose logits vary more than most: they keep the next finer precision (HB-BSSA 3.4).
    pub(crate) varied: Vec<bool>,
}

/// Influence, mass, variance (standardised logarithms); distance from the diagonal, first row, first column, bias.
pub(crate) const FEATURES: usize = 7;

impl Guide {
    pub fn new(
        calibration: &Calibration,
        pricing: &Pricing,
        shape: &ModelShape,
        space: &Space,
    ) -> Result<Self, CostError> {
        let head = |(id, of): (HeadId, &AttentionShape)| {
            let statistics = calibration.head(id);
            let size = |size: &BlockSize| SizeGuide::new(statistics.blocks(*size), pricing, of, *size, space);
            Ok(HeadGuide {
                id,
                shape: *of,
                histogram: statistics.histogram.to_vec(),
                sizes: space.block_sizes.iter().map(size).collect::<Result<_, CostError>>()?,
            })
        };
        Ok(Self { heads: shape.heads().map(head).collect::<Result<_, CostError>>()? })
    }

    /// In the order of [`ModelShape::heads`].
    pub(crate) fn heads(&self) -> &[HeadGuide] {
        &self.heads
    }
}

impl HeadGuide {
    /// At each block size of the space.
    pub(crate) fn sizes(&self) -> &[SizeGuide] {
        &self.sizes
    }

    /// At one block size.
    ///
    /// # Panics
    /// When the space lacks it.
    pub(crate) fn at(&self, size: BlockSize) -> &SizeGuide {
        self.sizes.iter().find(|guide| guide.size == size).expect("candidates have block sizes of the space")
    }
}

impl SizeGuide {
    fn new(
        of: &BlockStatistics,
        pricing: &Pricing,
        shape: &AttentionShape,
        size: BlockSize,
        space: &Space,
    ) -> Result<Self, CostError> {
        let mut price = [f64::INFINITY; 3];
        for precision in &space.precisions {
            price[precision.index()] = pricing.block_price(shape, size, *precision)?;
        }
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        let (influence, mass, variance) =
            (standardised(&of.influence), standardised(&of.mass), standardised(&of.variance));
        let (rows, columns) = (of.rows, of.columns);
        let feature = |at: usize| {
            let (row, column) = (at / columns, at % columns);
            let distance = (row as f32 / rows as f32 - column as f32 / columns as f32).abs();
            let flag = |yes: bool| if yes { 1.0 } else { 0.0 };
            [influence[at], mass[at], variance[at], -distance, flag(row == 0), flag(column == 0), 1.0]
        };
        let mean = of.variance.iter().sum::<f32>() / of.variance.len() as f32;
        let spread = (of.variance.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / of.variance.len() as f32).sqrt();
        Ok(Self {
            size,
            rows,
            columns,
            skip: wide(&of.influence),
            rounding: [wide(&of.rounding[0]), wide(&of.rounding[1]), wide(&of.rounding[2])],
            price,
            features: (0..rows * columns).map(feature).collect(),
            varied: of.variance.iter().map(|v| *v > mean + 2.0 * spread).collect(),
        })
    }

    /// Expected loss of a block in a state.
    pub(crate) fn loss(&self, block: usize, cell: Option<Precision>) -> f64 {
        match cell {
            None => self.skip[block],
            Some(precision) => self.rounding[precision.index()][block],
        }
    }
}

/// Logarithms, with mean 0 and deviation 1 over the blocks of a head.
fn standardised(values: &[f32]) -> Vec<f32> {
    let logarithms: Vec<f32> = values.iter().map(|value| value.max(1e-20).ln()).collect();
    let count = logarithms.len() as f32;
    let mean = logarithms.iter().sum::<f32>() / count;
    let deviation = (logarithms.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / count).sqrt().max(1e-6);
    logarithms.iter().map(|x| (x - mean) / deviation).collect()
}
