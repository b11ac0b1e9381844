//! Linear layers, on flex as an operation of our own.
//!
//! burn clears a product's memory, moves it to memory that is better aligned, writes the product there and adds the bias in
//! one more pass: a sixth of BERT-mini's forward pass. Here the product is added to rows that already hold the bias, and what a
//! residual connection adds to it (`docs/decisions/514`).

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        flex::FlexTensor,
        tensor::FloatTensor,
    },
    nn::Linear,
    tensor::{Device, Tensor},
};
use gemm::{Parallelism, gemm};
use rayon::prelude::*;

use crate::{
    backend::is_in_memory,
    memory::{matrix, owned, written},
};

/// What `layer` makes of each token, `[batch, tokens, inputs]` to `[batch, tokens, outputs]`; on a CPU as one matrix product.
///
/// By itself burn keeps one product for each example where their tokens are a multiple of 32, or the whole would be further from
/// square, as GPUs like it; on a CPU the weights are then packed anew for each of them (`docs/decisions/507`).
pub(crate) fn project(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    project_rows(layer, x, None)
}

/// `onto + project(layer, x)`.
pub(crate) fn project_onto(layer: &Linear, x: Tensor<3>, onto: Tensor<3>) -> Tensor<3> {
    match (&layer.bias, is_flex(&x)) {
        (Some(_), true) => project_rows(layer, x, Some(onto)),
        _ => onto + project(layer, x),
    }
}

fn project_rows(layer: &Linear, x: Tensor<3>, onto: Option<Tensor<3>>) -> Tensor<3> {
    if !is_in_memory(&x.device().inner()) {
        return layer.forward(x);
    }
    let [batch, tokens, inputs] = x.dims();
    let [_, outputs] = layer.weight.dims();
    let x = x.reshape([batch * tokens, inputs]);
    let rows: Tensor<2> = match &layer.bias {
        Some(bias) if is_flex(&x) => {
            let [x, weight] = [x, layer.weight.val()].map(Tensor::into_dispatch);
            let bias = bias.val().into_dispatch();
            Tensor::from_dispatch(match onto.map(|onto| onto.reshape([batch * tokens, outputs])) {
                Some(onto) => <Dispatch as Projects>::affine_onto(x, weight, bias, onto.into_dispatch()),
                None => <Dispatch as Projects>::affine(x, weight, bias),
            })
        }
        _ => layer.forward(x),
    };
    rows.reshape([batch, tokens, outputs])
}

fn is_flex<const D: usize>(x: &Tensor<D>) -> bool {
    x.device().inner() == Device::flex()
}

#[backend_extension(Flex, Autodiff)]
trait Projects: Backend {
    /// `x w + b`: `[rows, inputs]`, `[inputs, outputs]` and `[outputs]` to `[rows, outputs]`.
    fn affine(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `y + x w + b`.
    fn affine_onto(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        onto: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// `a b`: `[m, k]` and `[k, n]` to `[m, n]`.
    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `[rows, columns]` to the sum of the rows, `[columns]`.
    fn sum_of_rows(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Projects for Flex {
    fn affine(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let bias = owned(bias);
        let bias: &[f32] = bias.storage();
        let rows = x.layout().shape()[0];
        let mut sums = written(rows * bias.len(), ROWS * bias.len(), |_, sums| {
            for row in sums.chunks_exact_mut(bias.len()) {
                row.write_copy_of_slice(bias);
            }
        });
        add_product(&x, &weight, &mut sums);
        matrix(sums, rows)
    }

    fn affine_onto(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, onto: FlexTensor) -> FlexTensor {
        let (bias, onto) = (owned(bias), owned(onto));
        let (bias, onto): (&[f32], &[f32]) = (bias.storage(), onto.storage());
        let rows = x.layout().shape()[0];
        assert_eq!(onto.len(), rows * bias.len(), "what is added to is of the product's size");
        let mut sums = written(onto.len(), ROWS * bias.len(), |first, sums| {
            let rows = sums.chunks_exact_mut(bias.len()).zip(onto[first..].chunks_exact(bias.len()));
            for (row, onto) in rows {
                for ((sum, onto), bias) in row.iter_mut().zip(onto).zip(bias) {
                    sum.write(onto + bias);
                }
            }
        });
        add_product(&x, &weight, &mut sums);
        matrix(sums, rows)
    }

    fn product(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        let (m, n) = (a.layout().shape()[0], b.layout().shape()[1]);
        let mut product = Vec::with_capacity(m * n);
        multiply(&a, &b, product.as_mut_ptr(), false);
        // SAFETY: each of them was written.
        unsafe { product.set_len(m * n) };
        matrix(product, m)
    }

    fn sum_of_rows(x: FlexTensor) -> FlexTensor {
        let columns = x.layout().shape()[1];
        let x = owned(x);
        let values: &[f32] = x.storage();
        let sum_up = |mut sum: Vec<f32>, row: &[f32]| {
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            sum
        };
        let parts = values.par_chunks(ROWS * columns);
        let parts: Vec<Vec<f32>> =
            parts.map(|rows| rows.chunks_exact(columns).fold(vec![0.0; columns], sum_up)).collect();
        let sum = parts.iter().fold(vec![0.0; columns], |sum, part| sum_up(sum, part));
        FlexTensor::from_data(burn::tensor::TensorData::new(sum, [columns]))
    }
}

/// Rows that one thread takes at a time. Sums over rows are added up chunk by chunk, whoever takes which.
const ROWS: usize = 64;

/// Adds the product of two matrices to `sums`.
fn add_product(a: &FlexTensor, b: &FlexTensor, sums: &mut [f32]) {
    assert_eq!(sums.len(), a.layout().shape()[0] * b.layout().shape()[1]);
    multiply(a, b, sums.as_mut_ptr(), true);
}

/// Writes the product of two matrices, or adds it to what is there. `to` has room for it, row by row.
fn multiply(a: &FlexTensor, b: &FlexTensor, to: *mut f32, add: bool) {
    let ([m, k], [of_b, n]) = (sides(a), sides(b));
    assert!(k == of_b && k > 0, "rows of {k} numbers by columns of {of_b}");
    let ((a, [a_row, a_column]), (b, [b_row, b_column])) = (numbers(a), numbers(b));
    // SAFETY: burn's layouts say where the numbers of a tensor lie in its memory, and there is room for `m * n` at `to`, which are
    // read only where they are added to.
    unsafe {
        let to_column = 1;
        gemm(
            m,
            n,
            k,
            to,
            to_column,
            n as isize,
            add,
            a,
            a_column,
            a_row,
            b,
            b_column,
            b_row,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}

fn sides(of: &FlexTensor) -> [usize; 2] {
    (**of.layout().shape()).try_into().expect("a matrix has two dimensions")
}

/// Where a matrix begins, and how far apart its rows and its columns are.
fn numbers(of: &FlexTensor) -> (*const f32, [isize; 2]) {
    let strides = of.layout().strides().try_into().expect("a matrix has two dimensions");
    (of.storage::<f32>()[of.layout().start_offset()..].as_ptr(), strides)
}

impl<B: Backend + Projects, C: CheckpointStrategy> Projects for Autodiff<B, C> {
    fn affine(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|x| x.primitive().clone());
        match Affine.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish([x.clone(), weight.clone()], B::affine(x, weight, bias)),
            OpsKind::UnTracked(prep) => prep.finish(B::affine(x, weight, bias)),
        }
    }

    fn affine_onto(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        onto: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node(), onto.node()];
        let [x, weight, bias, onto] = [x, weight, bias, onto].map(|x| x.primitive().clone());
        match Affine.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish([x.clone(), weight.clone()], B::affine_onto(x, weight, bias, onto)),
            OpsKind::UnTracked(prep) => prep.finish(B::affine_onto(x, weight, bias, onto)),
        }
    }

    fn product(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("a backward pass is not differentiated again")
    }

    fn sum_of_rows(_: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("a backward pass is not differentiated again")
    }
}

/// `x`, the weights, the bias, and what the product was added to, if there is a fourth.
#[derive(Debug)]
struct Affine;

impl<B: Backend + Projects, const N: usize> Backward<B, N> for Affine {
    /// `x` and the weights.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let [x, weight] = ops.state;
        let turned = |x| B::float_swap_dims(x, 0, 1);
        let mut parents = ops.parents.into_iter();
        let mut parent = || parents.next().flatten();
        if let Some(of_x) = parent() {
            grads.register::<B>(of_x.id, B::product(gradient.clone(), turned(weight)));
        }
        if let Some(of_weight) = parent() {
            grads.register::<B>(of_weight.id, B::product(turned(x), gradient.clone()));
        }
        if let Some(of_bias) = parent() {
            grads.register::<B>(of_bias.id, B::sum_of_rows(gradient.clone()));
        }
        if let Some(onto) = parent() {
            grads.register::<B>(onto.id, gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::{nn::LinearConfig, tensor::Distribution};

    use super::*;

    fn furthest<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
        (a - b).abs().max().into_scalar()
    }

    #[test]
    fn a_batch_of_rows_is_what_each_row_is() {
        let device = Device::flex();
        let layer = LinearConfig::new(24, 40).init(&device);
        for tokens in [1, 32, 65] {
            let draw = |width| Tensor::<3>::random([3, tokens, width], Distribution::Default, &device);
            let (x, onto) = (draw(24), draw(40));
            let expected = layer.forward(x.clone());
            assert!(furthest(project(&layer, x.clone()), expected.clone()) < 24.0 * f32::EPSILON, "{tokens} tokens");
            let sum = project_onto(&layer, x, onto.clone());
            assert!(furthest(sum, onto + expected) < 32.0 * f32::EPSILON, "{tokens} tokens");
        }
    }

    #[test]
    fn gradients_are_those_of_burns_operations() {
        let device = Device::flex().autodiff();
        for (rows, with_bias) in [(3, true), (700, true), (40, false)] {
            let layer = LinearConfig::new(24, 40).with_bias(with_bias).init(&device);
            let draw = |width| Tensor::<3>::random([2, rows, width], Distribution::Normal(0.0, 1.0), &device);
            let (x, onto, g) = (draw(24).require_grad(), draw(40).require_grad(), draw(40));
            let gradients = |y: Tensor<3>| {
                let gradients = (y * g.clone()).sum().backward();
                let of_bias = layer.bias.as_ref().map(|bias| bias.val().grad(&gradients).unwrap().unsqueeze::<3>());
                let of_weight = layer.weight.val().grad(&gradients).unwrap().unsqueeze::<3>();
                [Some(x.grad(&gradients).unwrap()), Some(of_weight), of_bias, onto.grad(&gradients)]
            };
            let found = gradients(project_onto(&layer, x.clone(), onto.clone()));
            let expected = gradients(onto.clone() + layer.forward(x.clone()));
            for (at, (found, expected)) in found.into_iter().zip(expected).enumerate() {
                assert_eq!(found.is_some(), expected.is_some());
                let (Some(found), Some(expected)) = (found, expected) else { continue };
                let size: f32 = expected.clone().abs().max().into_scalar();
                assert!(furthest(found, expected) < 1e-5 * size, "{rows} rows, {at}");
            }
        }
    }

    #[test]
    fn views_stay_as_they_were() {
        let device = Device::flex();
        let layer = LinearConfig::new(8, 16).init(&device);
        let all = Tensor::<3>::random([4, 8, 10], Distribution::Default, &device);
        let view = all.clone().swap_dims(1, 2).slice_dim(1, 2..5); // [4, 3, 8]
        let copy = Tensor::<3>::from_data(view.to_data(), &device);
        assert_eq!(project(&layer, view).into_data(), project(&layer, copy).into_data());
        let onto = Tensor::<3>::random([4, 16, 3], Distribution::Default, &device).swap_dims(1, 2);
        let x = all.slice_dim(2, 0..8).slice_dim(1, 0..3);
        let expected = onto.clone() + layer.forward(x.clone());
        assert!(furthest(project_onto(&layer, x, onto), expected) < 1e-5);
    }
}
