//! Layer normalisation, on flex as an operation of our own.
//!
//! burn differentiates it as ten operations, each of which goes over all numbers and writes as many to fresh memory. Here a row is
//! finished, forward or backward, before the next one is begun (`docs/decisions/514`).

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        flex::FlexTensor,
        tensor::FloatTensor,
    },
    module::{Module, Param},
    tensor::{Device, Tensor, module::layer_norm},
};
use rayon::prelude::*;

use crate::{
    memory::{changed, is_flex, owned, tensor},
    vectorised::{mul_add, vectorised},
};

/// Gives each token a mean of zero and a variance of one, then times `gamma` plus `beta` (Ba, Kiros & Hinton 2016,
/// arXiv 1607.06450).
#[derive(Module, Debug)]
pub(crate) struct LayerNorm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    /// Added to the variance.
    #[module(skip)]
    epsilon: f64,
}

impl LayerNorm {
    pub fn new(gamma: Param<Tensor<1>>, beta: Param<Tensor<1>>, epsilon: f64) -> Self {
        Self { gamma, beta, epsilon }
    }

    /// With a `gamma` of ones and a `beta` of zeros, for tokens of so many numbers.
    pub fn init(width: usize, device: &Device) -> Self {
        let [ones, zeros] = [Tensor::ones([width], device), Tensor::zeros([width], device)];
        Self::new(Param::from_tensor(ones), Param::from_tensor(zeros), 1e-5)
    }

    /// `[.., width]` to the same.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        if !is_flex(&x) {
            return layer_norm(x, gamma, Some(beta), self.epsilon);
        }
        let dims = x.dims();
        let (width, rows) = (dims[D - 1], dims[..D - 1].iter().product());
        assert_eq!(
            ([width], [width]),
            (gamma.dims(), beta.dims()),
            "tokens are as wide as what they are multiplied with"
        );
        let x = x.reshape([rows, width]).into_dispatch();
        let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
        let y = <Dispatch as Normalises>::normalise_rows(x, gamma, beta, self.epsilon as f32);
        Tensor::<2>::from_dispatch(y).reshape(dims)
    }
}

#[backend_extension(Flex, Autodiff)]
trait Normalises: Backend {
    /// `[rows, width]`, `[width]` and `[width]` to `[rows, width]`.
    fn normalise_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// The loss's gradients by `x`, `gamma` and `beta` from the one by the output; the latter two as rows of `[2, width]`.
    fn normalise_rows_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// Rows that one thread takes at a time. Sums over rows are added up chunk by chunk, whoever takes which.
const ROWS: usize = 64;

impl Normalises for Flex {
    fn normalise_rows(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, epsilon: f32) -> FlexTensor {
        let (gamma, beta) = (owned(gamma), owned(beta));
        let (gamma, beta): (&[f32], &[f32]) = (gamma.storage(), beta.storage());
        changed(x, ROWS * gamma.len(), |rows| forward(rows, gamma, beta, epsilon))
    }

    fn normalise_rows_backward(
        x: FlexTensor,
        gamma: FlexTensor,
        gradient: FlexTensor,
        epsilon: f32,
    ) -> (FlexTensor, FlexTensor) {
        let (x, gamma, mut gradient) = (owned(x), owned(gamma), owned(gradient));
        let (x, gamma): (&[f32], &[f32]) = (x.storage(), gamma.storage());
        let width = gamma.len();
        let chunks = gradient.storage_mut().par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width));
        let parts: Vec<Vec<f32>> = chunks
            .map(|(gradient, x)| {
                let mut by_parameters = vec![0.0; 2 * width];
                let (by_gamma, by_beta) = by_parameters.split_at_mut(width);
                backward(gradient, x, gamma, epsilon, by_gamma, by_beta);
                by_parameters
            })
            .collect();
        let mut sum = vec![0.0; 2 * width];
        for part in parts {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        (gradient, tensor(sum, [2, width]))
    }
}

impl<B: Backend + Normalises, C: CheckpointStrategy> Normalises for Autodiff<B, C> {
    fn normalise_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Normalised;

        impl<B: Backend + Normalises> Backward<B, 3> for Normalised {
            type State = ([FloatTensor<B>; 2], f32);

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
                let gradient = grads.consume::<B>(&ops.node);
                let ([x, gamma], epsilon) = ops.state;
                let (by_x, by_parameters) = B::normalise_rows_backward(x, gamma, gradient, epsilon);
                let [of_x, of_gamma, of_beta] = ops.parents;
                if let Some(of_x) = of_x {
                    grads.register::<B>(of_x.id, by_x);
                }
                for (at, parent) in [of_gamma, of_beta].into_iter().enumerate() {
                    if let Some(parent) = parent {
                        let row = B::float_slice(by_parameters.clone(), &[(at..at + 1).into(), (..).into()]);
                        let width = row.shape()[1];
                        grads.register::<B>(parent.id, B::float_reshape(row, [width].into()));
                    }
                }
            }
        }

        let nodes = [x.node(), gamma.node(), beta.node()];
        let [x, gamma, beta] = [x, gamma, beta].map(|x| x.primitive().clone());
        match Normalised.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = ([x.clone(), gamma.clone()], epsilon);
                prep.finish(state, B::normalise_rows(x, gamma, beta, epsilon))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::normalise_rows(x, gamma, beta, epsilon)),
        }
    }

    fn normalise_rows_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("a backward pass is not differentiated again")
    }
}

vectorised! {
    fn forward = forward_of(rows: &mut [f32], gamma: &[f32], beta: &[f32], epsilon: f32)
}

vectorised! {
    /// Turns gradients by outputs into those by inputs.
    fn backward = backward_of(
        gradient: &mut [f32], x: &[f32], gamma: &[f32], epsilon: f32, by_gamma: &mut [f32], by_beta: &mut [f32],
    )
}

#[inline(always)]
fn forward_of<const FLOATS: usize>(rows: &mut [f32], gamma: &[f32], beta: &[f32], epsilon: f32) {
    for row in rows.chunks_exact_mut(gamma.len()) {
        let (mean, scale) = mean_and_scale::<FLOATS>(row, epsilon);
        for ((x, gamma), beta) in row.iter_mut().zip(gamma).zip(beta) {
            *x = mul_add::<FLOATS>((*x - mean) * scale, *gamma, *beta);
        }
    }
}

/// For `n = (x - mean) / sqrt(variance + epsilon)` and the gradient `g` by `gamma n + beta`, that by x is
///
/// ```text
/// (gamma g - mean(gamma g) - n mean(gamma g n)) / sqrt(variance + epsilon)
/// ```
#[inline(always)]
fn backward_of<const FLOATS: usize>(
    gradient: &mut [f32],
    x: &[f32],
    gamma: &[f32],
    epsilon: f32,
    by_gamma: &mut [f32],
    by_beta: &mut [f32],
) {
    let width = gamma.len();
    let share = 1.0 / width as f32;
    let (by_gamma, by_beta) = (&mut by_gamma[..width], &mut by_beta[..width]);
    for (g, x) in gradient.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let (mean, scale) = mean_and_scale::<FLOATS>(x, epsilon);
        let slope = share * sum_over::<FLOATS>(width, |at| gamma[at] * g[at]);
        let tilt = share * sum_over::<FLOATS>(width, |at| gamma[at] * g[at] * ((x[at] - mean) * scale));
        for at in 0..width {
            let n = (x[at] - mean) * scale;
            by_gamma[at] = mul_add::<FLOATS>(g[at], n, by_gamma[at]);
            by_beta[at] += g[at];
            g[at] = scale * (gamma[at] * g[at] - slope - n * tilt);
        }
    }
}

/// A row's mean, and one over the square root of its variance plus `epsilon`.
#[inline(always)]
fn mean_and_scale<const FLOATS: usize>(row: &[f32], epsilon: f32) -> (f32, f32) {
    let share = 1.0 / row.len() as f32;
    let mean = share * sum_over::<FLOATS>(row.len(), |at| row[at]);
    let variance = share * sum_over::<FLOATS>(row.len(), |at| (row[at] - mean) * (row[at] - mean));
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// The sum of `term(0..len)`, sixteen sums side by side on every CPU.
#[inline(always)]
fn sum_over<const FLOATS: usize>(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    const SIDE_BY_SIDE: usize = 16;
    let mut sums = [0.0_f32; SIDE_BY_SIDE];
    let whole = len - len % SIDE_BY_SIDE;
    for first in (0..whole).step_by(SIDE_BY_SIDE) {
        for (at, sum) in sums.iter_mut().enumerate() {
            *sum += term(first + at);
        }
    }
    for (at, sum) in (whole..len).zip(&mut sums) {
        *sum += term(at);
    }
    sums.into_iter().sum()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    #[test]
    fn outputs_and_gradients_are_those_of_burns_operations() {
        let device = Device::flex().autodiff();
        device.seed(1);
        for (rows, width) in [(1, 8), (3, 40), (70, 256), (2, 1)] {
            let drawn = |dims: [usize; 3], spread| {
                Tensor::<3>::random(dims, Distribution::Normal(0.5, spread), &device).require_grad()
            };
            let parameter = || {
                Param::from_tensor(Tensor::<1>::random([width], Distribution::Normal(0.5, 1.0), &device).require_grad())
            };
            let layer = LayerNorm::new(parameter(), parameter(), 1e-5);
            let (x, g) = (drawn([2, rows, width], 3.0), drawn([2, rows, width], 1.0).detach());
            let run = |forward: &dyn Fn(Tensor<3>) -> Tensor<3>| {
                let y = forward(x.clone());
                let gradients = (y.clone() * g.clone()).sum().backward();
                let of =
                    |parameter: &Param<Tensor<1>>| parameter.val().grad(&gradients).unwrap().reshape([1, 1, width]);
                [y.inner(), x.grad(&gradients).unwrap(), of(&layer.gamma), of(&layer.beta)]
            };
            let found = run(&|x| layer.forward(x));
            let expected = run(&|x| layer_norm(x, layer.gamma.val(), Some(layer.beta.val()), 1e-5));
            for (at, (found, expected)) in found.into_iter().zip(expected).enumerate() {
                let size: f32 = expected.clone().abs().max().into_scalar();
                let furthest: f32 = (found - expected).abs().max().into_scalar();
                assert!(furthest <= 1e-5 * size + 1e-6, "{rows} x {width}, tensor {at}: {furthest} of {size}");
            }
        }
    }

    #[test]
    fn what_is_normalised_stays_as_it_was() {
        let device = Device::flex();
        device.seed(1);
        let layer = LayerNorm::init(8, &device);
        let x = Tensor::<3>::random([4, 8, 10], Distribution::Default, &device);
        let before = x.to_data();
        let transposed = x.clone().swap_dims(1, 2);
        let views = [transposed.clone().slice_dim(1, 2..5), transposed, x.clone().reshape([4, 10, 8])];
        for view in [views[2].clone().slice_dim(0, 1..3)].into_iter().chain(views) {
            let copy = Tensor::<3>::from_data(view.to_data(), &device);
            assert_eq!(layer.forward(view).into_data(), layer.forward(copy).into_data());
            assert_eq!(x.to_data(), before);
        }
    }
}
