//! Numbers of tensors where they lie.

use burn::backend::flex::FlexTensor;

/// Contiguous, with nothing before or after its numbers, to be written over.
pub(crate) fn owned(x: FlexTensor) -> FlexTensor {
    let x = x.to_contiguous();
    let whole = x.layout().start_offset() == 0 && x.storage::<f32>().len() == x.layout().num_elements();
    if whole { x } else { FlexTensor::from_data(x.into_data()) }
}

/// Numbers of a contiguous tensor that nobody else knows of.
#[cfg(feature = "libtorch")]
pub(crate) fn numbers(fresh: &mut tch::Tensor) -> &mut [f32] {
    assert!(fresh.is_contiguous() && fresh.kind() == tch::Kind::Float && fresh.device() == tch::Device::Cpu);
    let len = fresh.numel();
    // SAFETY: as many numbers lie there, and nobody else knows of them.
    unsafe { std::slice::from_raw_parts_mut(fresh.data_ptr().cast::<f32>(), len) }
}
