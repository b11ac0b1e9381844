//! Numbers of tensors where they lie.

use std::mem::MaybeUninit;

use burn::{
    backend::flex::FlexTensor,
    tensor::{Device, Tensor, TensorData},
};
use rayon::prelude::*;

/// Contiguous, with nothing before or after its numbers, to be read or written over.
pub(crate) fn owned(x: FlexTensor) -> FlexTensor {
    x.to_contiguous() // which begins a memory of its own where a tensor is part of another one's
}

/// A tensor of numbers, which stay where they are.
pub(crate) fn tensor<const D: usize>(numbers: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(numbers, shape))
}

/// Whether this module's functions are for it.
pub(crate) fn is_flex<const D: usize>(x: &Tensor<D>) -> bool {
    x.device() == Device::flex() // with automatic differentiation or without
}

/// `len` numbers in memory that is not cleared first: `write` writes the chunk that it is given, returns it, and is told how many
/// numbers come before it. By all threads.
pub(crate) fn written(
    len: usize,
    chunk: usize,
    write: impl for<'a> Fn(usize, &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] + Sync,
) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(len);
    let chunks = numbers.spare_capacity_mut()[..len].par_chunks_mut(chunk).enumerate();
    chunks.for_each(|(at, numbers)| {
        let all = (numbers.as_ptr().cast(), numbers.len());
        let written = write(at * chunk, numbers);
        assert!((written.as_ptr(), written.len()) == all, "the chunk itself is returned");
    });
    // SAFETY: each chunk has come back as numbers.
    unsafe { numbers.set_len(len) };
    numbers
}

/// `x` after `change` of each chunk: where it lies, or in new memory if somebody else knows of it. By all threads.
pub(crate) fn changed(x: FlexTensor, chunk: usize, change: impl Fn(&mut [f32]) + Sync + Send) -> FlexTensor {
    let mut x = owned(x);
    if let Some(numbers) = x.try_storage_mut::<f32>() {
        numbers.par_chunks_mut(chunk).for_each(change);
        return x;
    }
    let before: &[f32] = x.storage();
    let numbers = written(before.len(), chunk, |first, numbers| {
        let before = &before[first..][..numbers.len()];
        let numbers = numbers.write_copy_of_slice(before);
        change(numbers);
        numbers
    });
    FlexTensor::from_data(TensorData::new(numbers, x.layout().shape().clone()))
}

/// Numbers of a contiguous tensor.
#[cfg(feature = "libtorch")]
pub(crate) fn numbers(tensor: &tch::Tensor) -> &[f32] {
    match place(tensor) {
        // SAFETY: as many numbers lie there, and burn writes to none that is shared.
        Some((first, len)) => unsafe { std::slice::from_raw_parts(first, len) },
        None => &[],
    }
}

/// Numbers of a contiguous tensor that nobody else knows of.
#[cfg(feature = "libtorch")]
pub(crate) fn numbers_mut(fresh: &mut tch::Tensor) -> &mut [f32] {
    match place(fresh) {
        // SAFETY: as many numbers lie there, and nobody else knows of them.
        Some((first, len)) => unsafe { std::slice::from_raw_parts_mut(first, len) },
        None => &mut [],
    }
}

/// None where there are no numbers.
#[cfg(feature = "libtorch")]
fn place(tensor: &tch::Tensor) -> Option<(*mut f32, usize)> {
    assert!(tensor.is_contiguous() && tensor.kind() == tch::Kind::Float && tensor.device() == tch::Device::Cpu);
    let len = tensor.numel();
    (len > 0).then(|| (tensor.data_ptr().cast(), len))
}
