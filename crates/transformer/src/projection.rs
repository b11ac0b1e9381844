//! Linear layers, on flex as an operation of our own.
//!
//! burn clears a product's memory, moves it to memory that is better aligned, writes the product there and adds the bias in
//! one more pass: a sixth of BERT-mini's forward pass. Here some hundred rows are multiplied at a time, and get their bias, and what
//! a residual connection adds, while they are in a cache (`docs/decisions/514`).

use std::{mem::MaybeUninit, ops::Range};

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
    tensor::Tensor,
};
use gemm::{Parallelism, gemm};
use rayon::prelude::*;

use crate::{
    backend::is_in_memory,
    memory::{is_flex, owned, tensor, written},
    vectorised::vectorised,
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
        let (x, weight) = (Matrix::of(&x), Matrix::of(&weight));
        assert_eq!(bias.len(), weight.columns, "each output has its bias");
        product(x, weight, |_, rows| add_to_rows(rows, bias))
    }

    fn affine_onto(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, onto: FlexTensor) -> FlexTensor {
        let (bias, onto) = (owned(bias), owned(onto));
        let (bias, onto): (&[f32], &[f32]) = (bias.storage(), onto.storage());
        let (x, weight) = (Matrix::of(&x), Matrix::of(&weight));
        assert_eq!(bias.len(), weight.columns, "each output has its bias");
        assert_eq!(onto.len(), x.rows * weight.columns, "what is added to is of the product's size");
        product(x, weight, |first, rows| add_both_to_rows(rows, &onto[first..][..rows.len()], bias))
    }

    fn product(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        product(Matrix::of(&a), Matrix::of(&b), |_, _| {})
    }

    fn sum_of_rows(x: FlexTensor) -> FlexTensor {
        let Matrix { rows, columns, .. } = Matrix::of(&x);
        let x = owned(x);
        let values: &[f32] = x.storage();
        let sum_up = |mut sum: Vec<f32>, row: &[f32]| {
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            sum
        };
        let zeros = || vec![0.0; columns];
        let parts = (0..rows.div_ceil(ROWS)).into_par_iter().map(|part| {
            let values = &values[part * ROWS * columns..rows.min((part + 1) * ROWS) * columns];
            values.chunks_exact(columns.max(1)).fold(zeros(), sum_up)
        });
        let parts: Vec<Vec<f32>> = parts.collect();
        tensor(parts.iter().fold(zeros(), |sum, part| sum_up(sum, part)), [columns])
    }
}

/// Rows that one thread takes at a time, so that what is added to a product finds it in a cache. Sums over rows are added up chunk
/// by chunk, whoever takes which.
const ROWS: usize = 256;

/// The product of two matrices after `finish` of its rows, which is told how many numbers come before them.
fn product(a: Matrix<'_>, b: Matrix<'_>, finish: impl Fn(usize, &mut [f32]) + Sync) -> FlexTensor {
    let (len, columns) = (a.rows * b.columns, b.columns);
    // Too few rows for a chunk to every thread are shared out within the product.
    let (rows, parallelism) = match a.rows < 8 * ROWS {
        true => (a.rows, Parallelism::Rayon(0)),
        false => (ROWS, Parallelism::None),
    };
    let numbers = written(len, (rows * columns).max(1), |first, to| {
        let rows = first / columns..(first + to.len()) / columns;
        let to = multiply(a.part(rows), b, to, parallelism);
        let parts = to.par_chunks_mut(ROWS * columns).enumerate();
        parts.for_each(|(part, rows)| finish(first + part * ROWS * columns, rows));
        to
    });
    tensor(numbers, [a.rows, columns])
}

/// Writes the product of two matrices, row by row.
fn multiply<'a>(
    a: Matrix<'_>,
    b: Matrix<'_>,
    to: &'a mut [MaybeUninit<f32>],
    parallelism: Parallelism,
) -> &'a mut [f32] {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert!(k == b.rows && to.len() == m * n, "{m} x {k} by {} x {n} into {}", b.rows, to.len());
    if m == 1 || n == 1 {
        // gemm takes vectors as numbers that are there already.
        to.fill(MaybeUninit::new(0.0));
    }
    let ([a_row, a_column], [b_row, b_column]) = (a.strides, b.strides);
    let (row, column, add) = (n as isize, 1, false);
    // SAFETY: both matrices lie within their numbers, as `Matrix::of` has asserted, and the product is as large as `to`. With alpha at
    // zero gemm 0.19 on CPUs with its usual features writes every number of `to` before it reads any.
    unsafe {
        let (to_first, a, b) = (to.as_mut_ptr().cast::<f32>(), a.first(), b.first());
        gemm(
            m,
            n,
            k,
            to_first,
            column,
            row,
            add,
            a,
            a_column,
            a_row,
            b,
            b_column,
            b_row,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
        to.assume_init_mut()
    }
}

/// A matrix as it lies in a tensor's memory.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    /// All of the memory.
    numbers: &'a [f32],
    /// Which of them is the first.
    start: isize,
    rows: usize,
    columns: usize,
    /// From one row and from one column to the next.
    strides: [isize; 2],
}

impl<'a> Matrix<'a> {
    fn of(tensor: &'a FlexTensor) -> Self {
        let layout = tensor.layout();
        let [rows, columns] = (**layout.shape()).try_into().expect("a matrix has two dimensions");
        let strides: [isize; 2] = layout.strides().try_into().expect("a matrix has two dimensions");
        let (numbers, start) = (tensor.storage(), layout.start_offset() as isize);
        if rows > 0 && columns > 0 {
            let ends = [(rows, strides[0]), (columns, strides[1])].map(|(len, stride)| (len as isize - 1) * stride);
            let first = start + ends.iter().map(|end| (*end).min(0)).sum::<isize>();
            let last = start + ends.iter().map(|end| (*end).max(0)).sum::<isize>();
            assert!(first >= 0 && last < numbers.len() as isize, "a matrix beyond its memory");
        }
        Self { numbers, start, rows, columns, strides }
    }

    fn part(self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        Self { start: self.start + rows.start as isize * self.strides[0], rows: rows.len(), ..self }
    }

    fn first(self) -> *const f32 {
        self.numbers.as_ptr().wrapping_offset(self.start)
    }
}

vectorised! {
    fn add_to_rows = add_to_rows_of(rows: &mut [f32], bias: &[f32])
}

vectorised! {
    fn add_both_to_rows = add_both_to_rows_of(rows: &mut [f32], onto: &[f32], bias: &[f32])
}

#[inline(always)]
fn add_to_rows_of<const FLOATS: usize>(rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
    }
}

#[inline(always)]
fn add_both_to_rows_of<const FLOATS: usize>(rows: &mut [f32], onto: &[f32], bias: &[f32]) {
    for (row, onto) in rows.chunks_exact_mut(bias.len()).zip(onto.chunks_exact(bias.len())) {
        row.iter_mut().zip(onto).zip(bias).for_each(|((x, onto), bias)| *x += onto + bias);
    }
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
    use burn::{
        module::Module,
        nn::LinearConfig,
        tensor::{Device, Distribution},
    };

    use super::*;

    fn furthest<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
        (a - b).abs().max().into_scalar()
    }

    #[test]
    fn a_batch_of_rows_is_what_each_row_is() {
        let device = Device::flex();
        device.seed(1);
        // One row, some, and more than are multiplied at once, which are no multiple of that.
        for (tokens, outputs) in [(1, 40), (32, 40), (65, 1), (500, 40), (2049, 8)] {
            let layer = LinearConfig::new(24, outputs).init(&device);
            for batch in [1, 3] {
                let draw = |width| Tensor::<3>::random([batch, tokens, width], Distribution::Default, &device);
                let (x, onto) = (draw(24), draw(outputs));
                let expected = layer.forward(x.clone());
                let found = project(&layer, x.clone());
                assert!(furthest(found, expected.clone()) < 24.0 * f32::EPSILON, "{batch} x {tokens} tokens");
                let sum = project_onto(&layer, x, onto.clone());
                assert!(furthest(sum, onto + expected) < 32.0 * f32::EPSILON, "{batch} x {tokens} tokens");
            }
        }
    }

    #[test]
    fn gradients_are_those_of_burns_operations_whichever_are_asked_for() {
        let device = Device::flex().autodiff();
        device.seed(1);
        for (rows, asked) in
            [(3, [true; 4]), (700, [true; 4]), (40, [false, true, true, false]), (40, [true, false, false, true])]
        {
            let layer = LinearConfig::new(24, 40).init(&device);
            let draw = |width| Tensor::<3>::random([2, rows, width], Distribution::Normal(0.0, 1.0), &device);
            let layer = if asked[1] { layer } else { layer.no_grad() };
            let (x, onto) = (draw(24).set_require_grad(asked[0]), draw(40).set_require_grad(asked[3]));
            let g = draw(40);
            let gradients = |y: Tensor<3>| {
                let gradients = (y * g.clone()).sum().backward();
                let bias = layer.bias.as_ref().unwrap().val();
                let of_bias = bias.grad(&gradients).map(|gradient| gradient.unsqueeze::<3>());
                let of_weight = layer.weight.val().grad(&gradients).map(|gradient| gradient.unsqueeze::<3>());
                [x.grad(&gradients), of_weight, of_bias, onto.grad(&gradients)]
            };
            let found = gradients(project_onto(&layer, x.clone(), onto.clone()));
            let expected = gradients(onto.clone() + layer.forward(x.clone()));
            for (at, (found, expected)) in found.into_iter().zip(expected).enumerate() {
                assert_eq!((found.is_some(), expected.is_some()), (asked[at], asked[at]), "{at}");
                let (Some(found), Some(expected)) = (found, expected) else { continue };
                assert_eq!(found.dims(), expected.dims());
                let size: f32 = expected.clone().abs().max().into_scalar();
                assert!(furthest(found, expected) < 1e-5 * size, "{rows} rows, {at}");
            }
        }
    }

    #[test]
    fn matrices_are_read_where_they_lie_and_stay_as_they_were() {
        let device = Device::flex();
        device.seed(1);
        let draw = |dims: [usize; 2]| Tensor::<2>::random(dims, Distribution::Default, &device);
        let (x, weight, onto) = (draw([9, 12]), draw([20, 9]), draw([6, 40]));
        let bias = Tensor::<1>::random([20], Distribution::Default, &device);
        let before = [x.to_data(), weight.to_data(), onto.to_data()];
        // Columns for rows, from a row on, a part of each row; and backwards.
        let transposed = weight.clone().transpose(); // [9, 20]
        for x in [
            x.clone().slice([2..8, 1..10]),
            x.clone().transpose().slice([4..10, 0..9]),
            x.clone().flip([0, 1]).slice([0..6, 0..9]),
        ] {
            let part = onto.clone().slice([0..6, 3..23]);
            let expected = part.clone() + x.clone().matmul(transposed.clone()) + bias.clone().unsqueeze();
            let found = <Dispatch as Projects>::affine_onto(
                x.into_dispatch(),
                transposed.clone().into_dispatch(),
                bias.clone().into_dispatch(),
                part.into_dispatch(),
            );
            assert!(furthest(Tensor::from_dispatch(found), expected) < 1e-5);
        }
        assert_eq!([x.into_data(), weight.into_data(), onto.into_data()], before);
    }

    #[test]
    fn nothing_is_projected_to_nothing() {
        let device = Device::flex().autodiff();
        device.seed(1);
        let layer = LinearConfig::new(4, 6).init(&device);
        let y = project(&layer, Tensor::zeros([0, 5, 4], &device));
        assert_eq!(y.dims(), [0, 5, 6]);
        let gradients = y.sum().backward();
        let of_weight: f32 = layer.weight.val().grad(&gradients).unwrap().abs().max().into_scalar();
        assert_eq!(of_weight, 0.0);
    }
}
