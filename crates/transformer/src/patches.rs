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
    use burn::tensor::{Device, Int, module::conv2d, ops::ConvOptions};

    use super::*;

    /// Whole numbers, whose sums of products are exact.
    fn numbers<const D: usize>(dims: [usize; D], modulus: i64) -> Tensor<D> {
        let count = dims.iter().product::<usize>() as i64;
        Tensor::<1, Int>::arange(0..count, &Device::flex()).remainder_scalar(modulus).float().reshape(dims)
    }

    #[test]
    fn a_linear_layer_over_overlapping_patches_is_a_convolution_with_padding() {
        let images = numbers([2, 2, 6, 6], 31);
        for (patch, overlap) in [(2, 0), (2, 1), (2, 2), (3, 1)] {
            let window = patch + 2 * overlap;
            let weights = numbers([5, 2, window, window], 7);
            let options = ConvOptions::new([patch; 2], [overlap; 2], [1; 2], 1);
            let expected = conv2d(images.clone(), weights.clone(), None, options); // [batch, outputs, rows, columns]
            let patches = cut_overlapping_patches(images.clone(), patch, overlap);
            let linear: Tensor<2> = weights.reshape([5, 2 * window * window]).transpose();
            let found = patches.matmul(linear.unsqueeze()).swap_dims(1, 2).reshape(expected.dims());
            found.into_data().assert_eq(&expected.into_data(), true);
        }
    }
}
