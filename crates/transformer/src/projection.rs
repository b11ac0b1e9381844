use burn::{nn::Linear, tensor::Tensor};

use crate::backend::is_in_memory;

/// What `layer` makes of each token, `[batch, tokens, inputs]` to `[batch, tokens, outputs]`; on a CPU as one matrix product.
///
/// By itself burn keeps one product for each example where their tokens are a multiple of 32, or the whole would be further from
/// square, as GPUs like it; on a CPU the weights are then packed anew for each of them (`docs/decisions/507`).
pub(crate) fn project(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    if !is_in_memory(&x.device().inner()) {
        return layer.forward(x);
    }
    let [batch, tokens, inputs] = x.dims();
    let rows = layer.forward(x.reshape([batch * tokens, inputs]));
    let outputs = rows.dims()[1];
    rows.reshape([batch, tokens, outputs])
}

#[cfg(test)]
mod tests {
    use burn::{
        nn::LinearConfig,
        tensor::{Device, Distribution},
    };

    use super::*;

    #[test]
    fn a_batch_of_rows_is_what_each_row_is() {
        let device = Device::flex();
        let layer = LinearConfig::new(24, 40).init(&device);
        for tokens in [1, 32, 65] {
            let x = Tensor::<3>::random([3, tokens, 24], Distribution::Default, &device);
            let furthest = (project(&layer, x.clone()) - layer.forward(x)).abs().max().into_scalar::<f32>();
            assert!(furthest < 24.0 * f32::EPSILON, "{tokens} tokens: {furthest}");
        }
    }
}
