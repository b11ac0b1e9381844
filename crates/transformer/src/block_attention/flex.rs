use burn::{
    backend::{Flex, flex::FlexTensor},
    tensor::{DType, TensorData},
};

use super::{AttendsBlocks, BlockCall, operand::Operand};

impl AttendsBlocks for Flex {
    fn attend_blocks(q: FlexTensor, k: FlexTensor, v: FlexTensor, call: BlockCall) -> FlexTensor {
        let tensors = [q, k, v].map(readable);
        let [q, k, v] = tensors.each_ref().map(operand);
        let dims = call.outputs(q.dims());
        let mut out = zeros(dims);
        call.attend(&mut out, [&q, &k, &v]);
        heads_first(out, dims)
    }

    fn attend_blocks_backward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        gradient: FlexTensor,
        call: BlockCall,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let tensors = [q, k, v, gradient].map(readable);
        let [q, k, v, gradient] = tensors.each_ref().map(operand);
        let dims = [&q, &k, &v].map(Operand::dims);
        let [mut to_q, mut to_k, mut to_v] = dims.map(zeros);
        call.differentiate([&mut to_q, &mut to_k, &mut to_v], [&q, &k, &v, &gradient]);
        (heads_first(to_q, dims[0]), heads_first(to_k, dims[1]), heads_first(to_v, dims[2]))
    }
}

/// Copies where the features of a token are apart.
fn readable(tensor: FlexTensor) -> FlexTensor {
    assert_eq!(tensor.dtype(), DType::F32, "models compute in f32");
    match view(&tensor) {
        Some(_) => tensor,
        None => tensor.to_contiguous(),
    }
}

fn operand(tensor: &FlexTensor) -> Operand<'_> {
    view(tensor).expect("features of a readable tensor stand side by side")
}

fn view(tensor: &FlexTensor) -> Option<Operand<'_>> {
    let layout = tensor.layout();
    let dims = (**layout.shape()).try_into().expect("attention is of four dimensions");
    Operand::new(tensor.storage(), layout.start_offset(), layout.strides(), dims)
}

fn zeros(dims: [usize; 4]) -> Vec<f32> {
    vec![0.0; dims.iter().product()]
}

/// `[batch, tokens, heads, head_dim]` as a view of the dimensions `[batch, heads, tokens, head_dim]`.
fn heads_first(values: Vec<f32>, [batch, heads, tokens, head_dim]: [usize; 4]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, [batch, tokens, heads, head_dim])).transpose(1, 2)
}
