//! GELU with the error function, as an operation of our own on flex.
//!
//! burn's takes one value at a time through the C library's error function: a quarter of a training step, where this
//! takes a fortieth (`docs/decisions/502`). Other backends have a quick one of their own.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind, unary},
        },
        backend_extension,
        flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::{DType, Tensor, activation},
};
use rayon::prelude::*;

use crate::{
    memory::{changed, is_flex, owned},
    vectorised::{exp_of_negative, mul_add, vectorised},
};

/// `x Phi(x)` (Hendrycks & Gimpel 2016, arXiv 1606.08415), exact to 4e-7.
pub(crate) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match is_flex(&x) {
        true => Tensor::from_dispatch(<Dispatch as Gelu>::exact_gelu(x.into_dispatch())),
        false => activation::gelu(x),
    }
}

#[backend_extension(Flex, Autodiff)]
trait Gelu: Backend {
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `gradient * d gelu(x) / dx`.
    fn exact_gelu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Gelu for Flex {
    fn exact_gelu(x: FlexTensor) -> FlexTensor {
        assert_eq!(x.dtype(), DType::F32, "models compute in f32");
        changed(x, CHUNK, forward)
    }

    fn exact_gelu_backward(x: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let (x, mut y) = (x.to_contiguous(), owned(gradient));
        let x: &[f32] = x.as_slice().expect("it is contiguous and f32");
        let chunks = x.par_chunks(CHUNK).zip(y.storage_mut().par_chunks_mut(CHUNK));
        chunks.for_each(|(x, gradient)| backward(x, gradient));
        y
    }
}

/// Numbers that one thread takes at a time.
const CHUNK: usize = 1 << 15;

impl<B: Backend + Gelu, C: CheckpointStrategy> Gelu for Autodiff<B, C> {
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct GeluStep;

        impl<B: Backend + Gelu> Backward<B, 1> for GeluStep {
            type State = FloatTensor<B>;

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let x = ops.state;
                unary::<B, _>(ops.parents, ops.node, grads, |gradient| B::exact_gelu_backward(x, gradient));
            }
        }

        match GeluStep.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(x.primitive().clone(), B::exact_gelu(x.into_primitive())),
            OpsKind::UnTracked(prep) => prep.finish(B::exact_gelu(x.into_primitive())),
        }
    }

    fn exact_gelu_backward(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("a backward pass is not differentiated again")
    }
}

vectorised! {
    fn forward = forward_of(values: &mut [f32])
}

vectorised! {
    fn backward = backward_of(x: &[f32], gradient: &mut [f32])
}

#[inline(always)]
fn forward_of<const FLOATS: usize>(values: &mut [f32]) {
    for x in values {
        *x *= distribution::<FLOATS>(*x).0;
    }
}

#[inline(always)]
fn backward_of<const FLOATS: usize>(x: &[f32], gradient: &mut [f32]) {
    const INVERSE_SQRT_2_PI: f32 = 0.398_942_3;
    for (gradient, &x) in gradient.iter_mut().zip(x) {
        let (phi, bell) = distribution::<FLOATS>(x);
        *gradient *= mul_add::<FLOATS>(x * INVERSE_SQRT_2_PI, bell, phi);
    }
}

/// `Phi(x)` of the standard normal distribution, and `exp(-x^2 / 2)`.
///
/// The error function is Abramowitz & Stegun's 7.1.26, off by at most 1.5e-7; no branch, so that compilers make vectors
/// of it.
#[inline(always)]
fn distribution<const FLOATS: usize>(x: f32) -> (f32, f32) {
    let magnitude = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / mul_add::<FLOATS>(0.327_591_1, magnitude, 1.0);
    let polynomial = mul_add::<FLOATS>(1.061_405_4, t, -1.453_152);
    let polynomial = mul_add::<FLOATS>(polynomial, t, 1.421_413_7);
    let polynomial = mul_add::<FLOATS>(polynomial, t, -0.284_496_74);
    let polynomial = mul_add::<FLOATS>(polynomial, t, 0.254_829_6);
    let bell = exp_of_negative::<FLOATS>(-magnitude * magnitude);
    let tail = 0.5 * polynomial * t * bell; // Phi(-|x|)
    (if x > 0.0 { 1.0 - tail } else { tail }, bell)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn gelu_has_its_published_values_and_its_derivative() {
        // x Phi(x) and Phi(x) + x phi(x), from scipy.stats.norm in double precision.
        let cases = [
            (-6.0, -5.919e-9, -3.5469e-8),
            (-2.0, -0.0455003, -0.0852318),
            (-0.5, -0.1542688, 0.1325049),
            (0.0, 0.0, 0.5),
            (1.0, 0.8413447, 1.0833155),
            (3.0, 2.9959503, 1.0119456),
            (40.0, 40.0, 1.0),
            (-40.0, 0.0, 0.0),
        ];
        let device = Device::flex().autodiff();
        let x = Tensor::<1>::from_data(cases.map(|case| case.0 as f32), &device).require_grad();
        let y = gelu(x.clone());
        let gradient = x.grad(&y.clone().sum().backward()).unwrap();
        let (y, gradient): (Vec<f32>, Vec<f32>) =
            (y.into_data().try_to_vec().unwrap(), gradient.into_data().try_to_vec().unwrap());
        for (((x, value, slope), y), gradient) in cases.into_iter().zip(y).zip(gradient) {
            assert!((f64::from(y) - value).abs() < 4e-7, "gelu({x}) is {y}");
            assert!((f64::from(gradient) - slope).abs() < 1e-6, "slope at {x} is {gradient}");
        }
    }

    #[test]
    fn views_and_shared_tensors_stay_as_they_were() {
        let x = Tensor::<2>::from_data([[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::flex());
        let turned = gelu(x.clone().transpose()).transpose();
        let (part, whole) = (gelu(x.clone().slice([1..2, 0..3])), gelu(x.clone()));
        assert_eq!(x.to_data().try_to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(turned.into_data(), whole.to_data());
        assert_eq!(part.into_data(), whole.slice([1..2, 0..3]).into_data());
    }
}
