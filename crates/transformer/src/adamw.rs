//! AdamW as an operation of our own: one pass over a parameter's numbers by all threads, where burn's takes a dozen by one
//! (`docs/decisions/507`).

#![cfg_attr(
    feature = "libtorch",
    allow(deprecated, reason = "burn 0.22 has this backend; docs/backends.md says what it is for")
)]

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension,
        flex::FlexTensor, tensor::FloatTensor,
    },
    grad_clipping::GradientClippingConfig,
    optim::{AdamWConfig, AdamWState, AdaptiveMomentumState, LearningRate, ModuleOptimizer, Optimizer},
    tensor::{DType, Device, Tensor},
};
use rayon::prelude::*;

#[cfg(feature = "libtorch")]
use crate::memory::{numbers, numbers_mut};
use crate::{backend::is_in_memory, memory::owned, vectorised::vectorised};

const BETAS: [f32; 2] = [0.9, 0.999];
const EPSILON: f32 = 1e-5;

/// Numbers that one thread takes at a time.
const CHUNK: usize = 1 << 15;

/// AdamW with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101), betas .9 and .999, epsilon 1e-5. Where `clip` is
/// given, each parameter's gradient is shortened to that Euclidean norm first. `device` is the model's: on flex and libtorch the
/// steps are taken here, on a GPU they are burn's.
///
/// To the bits of burn's `AdamW` on flex, but for the norm of a gradient that is clipped: it is added up in f64.
pub fn adamw(weight_decay: f64, clip: Option<f64>, device: &Device) -> ModuleOptimizer {
    if is_in_memory(&device.clone().inner()) {
        return ModuleOptimizer::from(InMemory { weight_decay: weight_decay as f32, clip });
    }
    let clip = clip.map(|norm| GradientClippingConfig::Norm(norm as f32));
    let config = AdamWConfig::new().with_weight_decay(weight_decay as f32).with_epsilon(EPSILON);
    config.with_beta_1(BETAS[0]).with_beta_2(BETAS[1]).with_grad_clipping(clip).init()
}

/// For tensors that lie in this process's memory.
#[derive(Debug, Clone, Copy)]
struct InMemory {
    weight_decay: f32,
    clip: Option<f64>,
}

impl Optimizer for InMemory {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        learning_rate: LearningRate,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let state = state.map_or_else(
            || AdaptiveMomentumState::new(0, weights.zeros_like(), weights.zeros_like()),
            |state| state.momentum,
        );
        let time = state.time + 1;
        let rates = Rates {
            learning_rate: learning_rate as f32,
            kept: (1.0 - learning_rate * f64::from(self.weight_decay)) as f32,
            corrections: BETAS.map(|beta| 1.0 - beta.powi(time as i32)),
            clip: self.clip,
        };
        let [weights, gradient, first, second] =
            [weights, gradient, state.moment_1, state.moment_2].map(Tensor::into_dispatch);
        let (weights, first, second) = <Dispatch as StepsAdamW>::adamw_step(weights, gradient, first, second, rates);
        let [weights, first, second] = [weights, first, second].map(Tensor::from_dispatch);
        (weights, Some(AdamWState::new(AdaptiveMomentumState::new(time, first, second))))
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        AdamWState::new(state.momentum.to_device(device))
    }
}

/// What one step has in common for every number of a parameter.
#[derive(Debug, Clone, Copy)]
struct Rates {
    learning_rate: f32,
    /// What weight decay leaves of a weight.
    kept: f32,
    /// Moments begin at zero: the share of them that has been seen so far.
    corrections: [f32; 2],
    clip: Option<f64>,
}

/// One parameter's numbers, all of one length.
struct Numbers<'a> {
    weights: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

#[backend_extension(Flex, LibTorch: cfg(feature = "libtorch"), Autodiff)]
trait StepsAdamW: Backend {
    /// Weights and moments after a step.
    fn adamw_step(
        weights: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        rates: Rates,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl StepsAdamW for Flex {
    fn adamw_step(
        weights: FlexTensor,
        gradient: FlexTensor,
        first: FlexTensor,
        second: FlexTensor,
        rates: Rates,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        assert_eq!(weights.dtype(), DType::F32, "models compute in f32");
        let [mut weights, gradient, mut first, mut second] = [weights, gradient, first, second].map(owned);
        rates.step(Numbers {
            weights: weights.storage_mut(),
            gradient: gradient.storage(),
            first: first.storage_mut(),
            second: second.storage_mut(),
        });
        (weights, first, second)
    }
}

#[cfg(feature = "libtorch")]
impl StepsAdamW for burn::backend::LibTorch {
    fn adamw_step(
        weights: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        rates: Rates,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let gradient = gradient.tensor.contiguous();
        // Copies of what is written to: who else knows of these tensors cannot be told.
        let [mut weights, mut first, mut second] = [weights, first, second].map(|of| of.tensor.contiguous().copy());
        rates.step(Numbers {
            weights: numbers_mut(&mut weights),
            gradient: numbers(&gradient),
            first: numbers_mut(&mut first),
            second: numbers_mut(&mut second),
        });
        let [weights, first, second] = [weights, first, second].map(burn::backend::libtorch::TchTensor::new);
        (weights, first, second)
    }
}

impl<B: Backend + StepsAdamW, C: CheckpointStrategy> StepsAdamW for Autodiff<B, C> {
    fn adamw_step(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Rates,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("an optimiser takes its steps outside of automatic differentiation")
    }
}

impl Rates {
    fn step(&self, Numbers { weights, gradient, first, second }: Numbers<'_>) {
        // A norm that is no number makes every weight one, so that the training ends here and not when all are touched.
        let shorten = |most, norm| if norm <= most { 1.0 } else { (most / norm) as f32 };
        let shortened = self.clip.map_or(1.0, |most| shorten(most, norm(gradient)));
        let chunks = weights.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK));
        let chunks = chunks.zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)));
        chunks.for_each(|((weights, gradient), (first, second))| {
            advance(&mut Numbers { weights, gradient, first, second }, *self, shortened);
        });
    }
}

/// The same for any number of threads.
fn norm(gradient: &[f32]) -> f64 {
    let squares: Vec<f64> = gradient.par_chunks(CHUNK).map(sum_of_squares).collect();
    squares.into_iter().sum::<f64>().sqrt()
}

vectorised! {
    fn sum_of_squares = sum_of_squares_of(numbers: &[f32]) -> f64
}

vectorised! {
    fn advance = advance_of(numbers: &mut Numbers<'_>, rates: Rates, shortened: f32)
}

#[inline(always)]
fn sum_of_squares_of<const FLOATS: usize>(numbers: &[f32]) -> f64 {
    let (rows, rest) = numbers.as_chunks::<16>();
    let mut sums = [0.0_f64; 16];
    for row in rows {
        for n in 0..16 {
            sums[n] += f64::from(row[n]) * f64::from(row[n]);
        }
    }
    sums.into_iter().chain(rest.iter().map(|x| f64::from(*x) * f64::from(*x))).sum()
}

#[inline(always)]
fn advance_of<const FLOATS: usize>(numbers: &mut Numbers<'_>, rates: Rates, shortened: f32) {
    let Numbers { weights, gradient, first, second } = numbers;
    let Rates { learning_rate, kept, corrections, .. } = rates;
    let numbers = weights.iter_mut().zip(gradient.iter()).zip(first.iter_mut().zip(second.iter_mut()));
    for ((weight, gradient), (first, second)) in numbers {
        let gradient = gradient * shortened;
        *first = *first * BETAS[0] + gradient * (1.0 - BETAS[0]);
        *second = *second * BETAS[1] + gradient * gradient * (1.0 - BETAS[1]);
        let change = (*first / corrections[0]) / ((*second / corrections[1]).sqrt() + EPSILON);
        *weight = *weight * kept - change * learning_rate;
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        module::Param,
        nn::{Linear, LinearConfig},
        optim::GradientsParams,
    };

    use super::*;

    /// Weights after some steps towards ever other gradients, of some size.
    fn weights_after(mut optimiser: ModuleOptimizer, width: usize, size: f64, device: &Device) -> Vec<f32> {
        let values = |rows: usize, seed: f32| {
            let values: Vec<f32> = (0..rows * width).map(|at| (at as f32 * 0.37 + seed).sin()).collect();
            Tensor::<1>::from_data(values.as_slice(), device).reshape([rows, width])
        };
        let mut layer: Linear = LinearConfig::new(300, width).with_bias(false).init(device);
        layer.weight = Param::from_tensor(values(300, 0.0).detach());
        for step in 0..5 {
            let loss = (layer.weight.val() * values(300, 1.0 + step as f32)).sum().mul_scalar(size);
            let gradients = GradientsParams::from_grads(loss.backward(), &layer);
            layer = optimiser.step(1e-3, layer, gradients);
        }
        layer.weight.val().into_data().try_to_vec().unwrap()
    }

    fn of_burn(weight_decay: f32, clip: Option<f32>) -> ModuleOptimizer {
        let clip = clip.map(GradientClippingConfig::Norm);
        AdamWConfig::new().with_weight_decay(weight_decay).with_grad_clipping(clip).init()
    }

    #[test]
    fn a_gradient_that_is_no_number_leaves_no_weight_one() {
        let device = Device::flex().autodiff();
        for size in [f64::NAN, f64::INFINITY] {
            let weights = weights_after(adamw(0.01, Some(1.0), &device), 2, size, &device);
            assert!(weights.iter().all(|weight| weight.is_nan()));
        }
    }

    #[test]
    fn steps_are_those_of_burn_to_the_bit() {
        let device = Device::flex().autodiff();
        // The widest has more numbers than one thread takes.
        for width in [1, 8, 301] {
            for decay in [0.0_f32, 0.05] {
                let ours = weights_after(adamw(decay.into(), None, &device), width, 1.0, &device);
                assert_eq!(
                    ours,
                    weights_after(of_burn(decay, None), width, 1.0, &device),
                    "{width} wide, decay {decay}"
                );
            }
        }
        // Gradients that are shorter than the clip.
        let short = weights_after(adamw(0.01, Some(1.0), &device), 8, 1e-4, &device);
        assert_eq!(short, weights_after(of_burn(0.01, Some(1.0)), 8, 1e-4, &device));
    }

    #[test]
    fn long_gradients_are_shortened_as_burn_shortens_them() {
        let device = Device::flex().autodiff();
        let ours = weights_after(adamw(0.01, Some(1.0), &device), 301, 1e3, &device);
        let burns = weights_after(of_burn(0.01, Some(1.0)), 301, 1e3, &device);
        let furthest = ours.iter().zip(&burns).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Five steps of 1e-3 and sums below one, each off by some roundings of f32.
        assert!(furthest < 5.0 * (1e-3 * 8.0 + 1.0) * f32::EPSILON, "{furthest}");
        assert_ne!(ours, weights_after(adamw(0.01, None, &device), 301, 1e3, &device));
    }
}
