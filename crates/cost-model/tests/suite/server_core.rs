use maskwright_blueprint::{AttentionKind, AttentionShape, BlockMask, BlockSize, HeadMask, Precision};
use maskwright_cost_model::{CostModel, Dataflow, DeviceProfile, Softmax};

use crate::{Misses, number, rows, self_attention};

const TABLE: &str = include_str!("../golden/avx512-prototype.csv");

/// Blocks spread evenly over a mask, at least one a row.
fn spread(tokens: u32, density: f64, precision: Precision) -> HeadMask {
    let side = BlockSize::B16.cover(tokens) as usize;
    let before = |at: usize| (at as f64 * density).floor();
    let cell = |at: usize| (before(at + 1) > before(at)).then_some(precision);
    let blocks = BlockMask::new(side, (0..side * side).map(cell).collect()).unwrap();
    HeadMask { block_size: BlockSize::B16, blocks }
}

/// Its coefficients were fitted to the dense rows at 512 tokens; the sparse rows and the other lengths test them.
#[test]
fn the_prototype_kernels_are_predicted_within_a_fifth_at_every_density() {
    let model = CostModel::new(&DeviceProfile::named("cpu-avx512").unwrap(), Dataflow::Flash, 1).unwrap();
    let mut misses = Misses::default();
    for row in rows(TABLE) {
        let (tokens, density, dense) = (row[0].parse().unwrap(), number(row[1]), number(row[2]) / 1e3);
        let shape = self_attention(12, tokens, 64);
        for (precision, ratio) in [(Precision::Single, row[3]), (Precision::Half, row[4]), (Precision::Int8, row[5])] {
            let mask = spread(tokens, density, precision);
            // A spread mask may leave the diagonal; the price does not depend on where blocks lie.
            let cross = AttentionShape { kind: AttentionKind::CrossAttention, ..shape };
            let head = model.head(&mask, &cross, Softmax::Integer).unwrap();
            let module = model.module(&cross, Softmax::Integer);
            let seconds = model.total([module].into_iter().chain([head; 12])).seconds.0;
            misses.compare(
                &format!("{tokens} tokens, density {density}, {precision}"),
                seconds,
                dense / number(ratio),
                0.2,
            );
        }
    }
    misses.none();
}
