use std::slice;

use burn::backend::{LibTorch, libtorch::TchTensor};
use tch::{Device, Kind, Tensor};

use super::{AttendsBlocks, BlockCall, operand::Operand};
use crate::memory::numbers_mut;

impl AttendsBlocks for LibTorch {
    fn attend_blocks(q: TchTensor, k: TchTensor, v: TchTensor, call: BlockCall) -> TchTensor {
        let tensors = [q, k, v].map(readable);
        let [q, k, v] = tensors.each_ref().map(operand);
        let mut out = zeros(call.outputs(q.dims()));
        call.attend(numbers_mut(&mut out), [&q, &k, &v]);
        heads_first(out)
    }

    fn attend_blocks_backward(
        q: TchTensor,
        k: TchTensor,
        v: TchTensor,
        gradient: TchTensor,
        call: BlockCall,
    ) -> (TchTensor, TchTensor, TchTensor) {
        let tensors = [q, k, v, gradient].map(readable);
        let [q, k, v, gradient] = tensors.each_ref().map(operand);
        let [mut to_q, mut to_k, mut to_v] = [&q, &k, &v].map(|like| zeros(like.dims()));
        call.differentiate([&mut to_q, &mut to_k, &mut to_v].map(numbers_mut), [&q, &k, &v, &gradient]);
        (heads_first(to_q), heads_first(to_k), heads_first(to_v))
    }
}

/// Copies where the features of a token are apart. The tensor that burn's was made of: nothing writes to it meanwhile.
fn readable(tensor: TchTensor) -> TchTensor {
    assert_eq!((tensor.tensor.kind(), tensor.tensor.device()), (Kind::Float, Device::Cpu), "models compute in f32");
    match view(&tensor) {
        Some(_) => tensor,
        None => TchTensor::new(tensor.tensor.contiguous()),
    }
}

fn operand(tensor: &TchTensor) -> Operand<'_> {
    view(tensor).expect("features of a readable tensor stand side by side")
}

fn view(tensor: &TchTensor) -> Option<Operand<'_>> {
    let strides = tensor.tensor.stride();
    let dims = tensor.tensor.size();
    let dims: [usize; 4] = [0, 1, 2, 3].map(|at| dims[at] as usize);
    let last = dims.iter().zip(&strides).map(|(dim, stride)| dim.saturating_sub(1) * *stride as usize).sum::<usize>();
    if dims.contains(&0) {
        return Operand::new(&[], 0, &strides, dims);
    }
    // SAFETY: a strided f32 tensor in memory has its first element at `data_ptr`, its last one `last` further on, and all
    // between them belong to its storage. `tensor` keeps the storage alive, and burn writes to none that is shared.
    let values = unsafe { slice::from_raw_parts(tensor.tensor.data_ptr().cast::<f32>(), last + 1) };
    Operand::new(values, 0, &strides, dims)
}

/// `[batch, tokens, heads, head_dim]` for `[batch, heads, tokens, head_dim]`.
fn zeros(dims: [usize; 4]) -> Tensor {
    let [batch, heads, tokens, head_dim] = dims.map(|dim| dim as i64);
    Tensor::zeros([batch, tokens, heads, head_dim], (Kind::Float, Device::Cpu))
}

/// `[batch, tokens, heads, head_dim]` as a view `[batch, heads, tokens, head_dim]`.
fn heads_first(values: Tensor) -> TchTensor {
    TchTensor::new(values.transpose(1, 2))
}
