use maskwright_blueprint::{AttentionShape, BlockMask, BlockSize, HeadMask, Precision, Seconds};

use crate::{CostError, CostModel, HeadWork, Softmax, work::check_grid};

impl CostModel {
    /// The largest density at which blocks of one size and precision are predicted to be no slower than `dense`, what the
    /// module takes without a mask: on this device, or measured in another library.
    ///
    /// Blocks are spread evenly, equally many in every row; under causality, the same share of the columns that each row reaches. `None`
    /// when even one block a row is slower.
    ///
    /// ```
    /// # use maskwright_blueprint::*;
    /// # use maskwright_cost_model::*;
    /// let shape = AttentionShape { kind: AttentionKind::SelfAttention, heads: 12, queries: 512, keys: 512, head_dim: 64, windows: 1 };
    /// let model = CostModel::new(&DeviceProfile::named("cpu-avx512")?, Dataflow::Flash, 1)?;
    /// let dense = model.attention(&Work::bare(&shape, BlockSize::B16, Precision::Half)?)?.seconds;
    /// let density = |size| model.break_even_density(&shape, size, Precision::Half, Softmax::Float, dense);
    /// assert_eq!(density(BlockSize::B16)?, Some(1.0));
    /// assert!(density(BlockSize::B8)? < Some(1.0)); // four times as many blocks to find
    /// # Ok::<(), CostError>(())
    /// ```
    pub fn break_even_density(
        &self,
        shape: &AttentionShape,
        block_size: BlockSize,
        precision: Precision,
        softmax: Softmax,
        dense: Seconds,
    ) -> Result<Option<f64>, CostError> {
        check_grid(shape, block_size)?;
        let columns = block_size.cover(shape.keys);
        let seconds = |active: u32| -> Result<Seconds, CostError> {
            let head = HeadWork::of(&spread(shape, block_size, precision, active), shape);
            let head = self.head_work(&head, shape, softmax)?;
            let heads = std::iter::repeat_n(head, shape.heads as usize);
            Ok(self.total(heads.chain([self.module(shape, softmax)])).seconds)
        };
        // Time never falls with the number of blocks, so the last one that is fast enough is found by halving.
        let (mut fast, mut slow) = (0, columns + 1);
        while slow - fast > 1 {
            let middle = fast.midpoint(slow);
            if seconds(middle)?.0 <= dense.0 * (1.0 + ROUNDING) {
                fast = middle;
            } else {
                slow = middle;
            }
        }
        Ok((fast > 0).then(|| f64::from(fast) / f64::from(columns)))
    }
}

/// Of a sum over heads against another order of the same sum.
const ROUNDING: f64 = 1e-9;

/// `active` blocks in every row, evenly apart, each row's one further to the right than those of the row before; of a row that reaches fewer
/// columns the same share of those, one at least.
fn spread(shape: &AttentionShape, block_size: BlockSize, precision: Precision, active: u32) -> HeadMask {
    let (rows, columns) = (u64::from(block_size.cover(shape.queries)), u64::from(block_size.cover(shape.keys)));
    let active = u64::from(active);
    let cell = |row: u64, column: u64| {
        let reached = shape.kind.columns_of(row as usize, columns as usize) as u64;
        let active = (reached * active).div_ceil(columns);
        let at = (column + reached - row % reached) % reached;
        (column < reached && (at + 1) * active / reached > at * active / reached).then_some(precision)
    };
    let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| cell(row, column))).collect();
    let blocks = BlockMask::new(columns as usize, cells).expect("one block a row at least");
    HeadMask { block_size, blocks }
}

#[cfg(test)]
mod tests {
    use maskwright_blueprint::AttentionKind;

    use super::*;

    #[test]
    fn every_causal_row_has_its_share_of_the_columns_that_it_reaches() {
        let kind = AttentionKind::CausalSelfAttention;
        let shape = AttentionShape { kind, heads: 1, queries: 64, keys: 64, head_dim: 8, windows: 1 };
        for active in 1..=8 {
            let mask = spread(&shape, BlockSize::B8, Precision::Int8, active);
            mask.check(&shape).unwrap();
            for row in 0..8 {
                let found = mask.blocks.row(row).iter().flatten().count();
                assert_eq!(found, ((row + 1) * active as usize).div_ceil(8), "{active} of 8, row {row}");
            }
        }
    }
}
