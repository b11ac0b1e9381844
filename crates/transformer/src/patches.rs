use burn::tensor::Tensor;

/// Square patches of images `[batch, channels, side, side]`, row by row: `[batch, patches, channels * patch * patch]`.
/// A linear layer over them is a convolution whose stride is its size.
pub(crate) fn cut_patches(images: Tensor<4>, patch: usize) -> Tensor<3> {
    let [batch, channels, side, _] = images.dims();
    let across = side / patch;
    let patches: Tensor<6> =
        images.reshape([batch, channels, across, patch, across, patch]).permute([0, 2, 4, 1, 3, 5]); // [batch, row, column, channel, y, x]
    patches.reshape([batch, across * across, channels * patch * patch])
}
