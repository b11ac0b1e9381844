use burn::tensor::{DType, Tensor};
use maskwright_blueprint::Precision;

/// Rounds `x` [batch, heads, tokens, head_dim] to what a kernel of this precision would read, and keeps it in f32.
///
/// - `Int8`: symmetric, zero point 0, one dynamic scale `max|x| / 127` for each example and head.
/// - `Half`: bf16.
/// - `Single`: `x` itself.
///
/// The gradient passes straight through (Bengio et al. 2013, arXiv 1308.3432).
pub fn fake_quantise(x: Tensor<4>, precision: Precision) -> Tensor<4> {
    match precision {
        Precision::Int8 => {
            let largest = x.clone().detach().abs().max_dim(3).max_dim(2); // [batch, heads, 1, 1]
            let scale = largest.div_scalar(127.0).clamp_min(f32::MIN_POSITIVE);
            straight_through(x, |x| (x / scale.clone()).round() * scale)
        }
        Precision::Half => straight_through(x, to_bf16),
        Precision::Single => x,
    }
}

/// Rounds softmax numerators `exp(score - row maximum)`, which lie in [0, 1], to the precision of the product with V:
/// 8 bit is unsigned with scale 1 / 255 (IntAttention's table, deferred normalisation).
pub(crate) fn fake_quantise_numerators(e: Tensor<4>, precision: Precision) -> Tensor<4> {
    match precision {
        Precision::Int8 => straight_through(e, |e| e.mul_scalar(255.0).round().div_scalar(255.0)),
        Precision::Half => straight_through(e, to_bf16),
        Precision::Single => e,
    }
}

fn to_bf16(x: Tensor<4>) -> Tensor<4> {
    x.cast(DType::BF16).cast(DType::F32)
}

/// The value of `round(x)` with the gradient of `x`.
fn straight_through(x: Tensor<4>, round: impl FnOnce(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
    if x.device().is_autodiff() {
        let rounded = round(x.clone().detach());
        x.clone() + (rounded - x.detach())
    } else {
        round(x)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn one_row(values: [f32; 4]) -> Tensor<4> {
        Tensor::<1>::from_data(values, &Device::flex()).reshape([1, 1, 1, 4])
    }

    #[test]
    fn int8_keeps_the_largest_value_and_rounds_the_rest_to_127ths_of_it() {
        let rounded = fake_quantise(one_row([127.0, 1.4, -2.6, 0.0]), Precision::Int8);
        assert_eq!(rounded.into_data().try_to_vec::<f32>().unwrap(), [127.0, 1.0, -3.0, 0.0]);
    }

    #[test]
    fn bf16_keeps_eight_bits_of_significand() {
        let rounded = fake_quantise(one_row([1.0, 1.001, 257.0, -0.3]), Precision::Half);
        let values = rounded.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(values[..3], [1.0, 1.0, 256.0]);
        assert!((values[3] + 0.3).abs() <= 0.3 / 256.0);
    }

    #[test]
    fn all_zeros_stay_zeros() {
        let rounded = fake_quantise(one_row([0.0; 4]), Precision::Int8);
        assert_eq!(rounded.into_data().try_to_vec::<f32>().unwrap(), [0.0; 4]);
    }

    #[test]
    fn the_gradient_passes_straight_through() {
        let device = Device::flex().autodiff();
        let x = Tensor::<1>::from_data([3.0, 1.4, -2.6, 0.2], &device).reshape([1, 1, 1, 4]).require_grad();
        let grads = fake_quantise(x.clone(), Precision::Int8).sum().backward();
        assert_eq!(x.grad(&grads).unwrap().into_data().try_to_vec::<f32>().unwrap(), [1.0; 4]);
    }
}
