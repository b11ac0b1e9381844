use burn::tensor::{Tensor, ops::PadMode};

/// Square patches of images `[batch, channels, side, side]`, row by row: `[batch, patches, channels * patch * patch]`.
/// A linear layer over them is a convolution whose stride is its size.
pub(crate) fn cut_patches(images: Tensor<4>, patch: usize) -> Tensor<3> {
    let [batch, channels, side, _] = images.dims();
    let across = side / patch;
    let patches: Tensor<6> =
        images.reshape([batch, channels, across, patch, across, patch]).permute([0, 2, 4, 1, 3, 5]); // [batch, row, column, channel, y, x]
    patches.reshape([batch, across * across, channels * patch * patch])
}

/// The same, but each patch reaches `overlap` pixels beyond its sides, where zeros surround the image: squares of side
/// `patch + 2 overlap`. A linear layer over them is a convolution with padding whose stride is `patch`.
pub(crate) fn cut_overlapping_patches(images: Tensor<4>, patch: usize, overlap: usize) -> Tensor<3> {
    if overlap == 0 {
        return cut_patches(images, patch);
    }
    let [batch, channels, side, _] = images.dims();
    let (across, window) = (side / patch, patch + 2 * overlap);
    let padded = images.pad((overlap, overlap, overlap, overlap), PadMode::Constant(0.0));
    let patches: Tensor<6> = padded.unfold::<5, _>(2, window, patch).unfold(3, window, patch); // [batch, channel, row, column, y, x]
    patches.permute([0, 2, 3, 1, 4, 5]).reshape([batch, across * across, channels * window * window])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int};

    use super::*;

    #[test]
    fn overlapping_patches_are_what_a_convolution_with_padding_sees() {
        let (channels, side) = (2, 6);
        let count = (2 * channels * side * side) as i64;
        let images = Tensor::<1, Int>::arange(1..count + 1, &Device::flex()).float();
        let images: Tensor<4> = images.reshape([2, channels, side, side]);
        for (patch, overlap) in [(2, 1), (2, 2), (3, 1), (3, 0)] {
            let (across, window) = (side / patch, patch + 2 * overlap);
            let patches = cut_overlapping_patches(images.clone(), patch, overlap);
            assert_eq!(patches.dims(), [2, across * across, channels * window * window]);
            let values: Vec<f32> = patches.into_data().try_to_vec().unwrap();
            let mut values = values.into_iter();
            for (image, row, column, channel, y, x) in six([2, across, across, channels, window, window]) {
                let inside =
                    |at: usize, place: usize| (at * patch + place).checked_sub(overlap).filter(|at| *at < side);
                let pixel = inside(row, y).zip(inside(column, x));
                let expected = pixel.map_or(0, |(y, x)| ((image * channels + channel) * side + y) * side + x + 1);
                assert_eq!(values.next(), Some(expected as f32));
            }
        }
    }

    /// Six indices, the last one fastest.
    fn six(counts: [usize; 6]) -> impl Iterator<Item = (usize, usize, usize, usize, usize, usize)> {
        (0..counts.iter().product()).map(move |mut at: usize| {
            let mut index = [0; 6];
            for (n, count) in counts.iter().enumerate().rev() {
                index[n] = at % count;
                at /= count;
            }
            let [a, b, c, d, e, f] = index;
            (a, b, c, d, e, f)
        })
    }
}
