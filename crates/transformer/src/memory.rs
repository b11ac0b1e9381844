//! Numbers of tensors where they lie.

use burn::backend::flex::FlexTensor;

/// Contiguous, with nothing before or after its numbers, to be written over.
pub(crate) fn owned(x: FlexTensor) -> FlexTensor {
    x.to_contiguous() // which begins a memory of its own where a tensor is part of another one's
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
