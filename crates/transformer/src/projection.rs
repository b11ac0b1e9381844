use burn::{nn::Linear, tensor::Tensor};

/// What `layer` makes of each token, `[batch, tokens, inputs]` to `[batch, tokens, outputs]`, as one matrix product.
///
/// By itself burn keeps one product for each example where their tokens are a multiple of 32, and then reads the weights
/// anew for each of them (`docs/decisions/507`).
pub(crate) fn project(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    let [batch, tokens, inputs] = x.dims();
    let rows = layer.forward(x.reshape([batch * tokens, inputs]));
    let outputs = rows.dims()[1];
    rows.reshape([batch, tokens, outputs])
}
