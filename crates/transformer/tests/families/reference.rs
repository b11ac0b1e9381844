//! What the library that a checkpoint comes from computed with it.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData, Tolerance};
use maskwright_blueprint::{
    AttentionShape, BlockMask, BlockSize, Blueprint, HeadMask, ModelShape, Precision, Provenance,
};
use maskwright_transformer::{CompiledMasks, Loaded, Loading, Model, TextBatch};
use safetensors::{Dtype, SafeTensors};

/// Outputs are of order 1; sums of f32 in another order differed by less than 5e-6 in all of them.
pub const CLOSE: f32 = 2e-5;

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references").join(name)
}

pub fn load(name: &str, loading: &Loading) -> Loaded {
    Model::load(&folder(name), loading, &Device::flex()).unwrap()
}

/// The tensors of a safetensors file.
pub struct Reference(Vec<u8>);

impl Reference {
    pub fn of(name: &str) -> Self {
        Self::read(&folder(name).join("reference.safetensors"))
    }

    pub fn read(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap())
    }

    pub fn floats<const D: usize>(&self, name: &str) -> Tensor<D> {
        let (bytes, shape) = self.get(name, Dtype::F32);
        let values: Vec<f32> = bytes.map(f32::from_le_bytes).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    pub fn ints<const D: usize>(&self, name: &str) -> Tensor<D, Int> {
        let (bytes, shape) = self.get(name, Dtype::I32);
        let values: Vec<i32> = bytes.map(i32::from_le_bytes).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    /// Token types are all 0 where the reference has none.
    pub fn text(&self) -> TextBatch {
        let tokens = self.ints::<2>("input_ids");
        let has_types = SafeTensors::deserialize(&self.0).unwrap().names().contains(&"token_type_ids");
        let token_types = if has_types { self.ints("token_type_ids") } else { tokens.zeros_like() };
        TextBatch { tokens, token_types, real: self.ints::<2>("attention_mask").float() }
    }

    fn get(&self, name: &str, dtype: Dtype) -> (impl Iterator<Item = [u8; 4]>, Vec<usize>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), dtype);
        (view.data().chunks_exact(4).map(|bytes| bytes.try_into().unwrap()), view.shape().to_vec())
    }
}

pub fn assert_close<const D: usize>(found: Tensor<D>, expected: Tensor<D>) {
    found.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(CLOSE));
}

pub fn assert_equal<const D: usize>(found: Tensor<D>, expected: Tensor<D>) {
    found.into_data().assert_eq(&expected.into_data(), true);
}

/// Every block active in one precision.
pub fn full(shape: ModelShape, precision: Precision) -> CompiledMasks {
    CompiledMasks::new(&Blueprint::dense(shape, BlockSize::B8, precision), &Device::flex())
}

/// Only the blocks on and beside the diagonal.
pub fn band(shape: ModelShape, precision: Precision) -> Blueprint {
    let mask = |of: &AttentionShape| {
        let full = HeadMask::dense(of, BlockSize::B8, precision).blocks;
        let near = |at: usize| (at / full.columns()).abs_diff(at % full.columns()) <= 1;
        let cells = (0..full.cells().len()).map(|at| near(at).then_some(precision)).collect();
        HeadMask { block_size: BlockSize::B8, blocks: BlockMask::new(full.columns(), cells).unwrap() }
    };
    let masks = shape.modules.iter().map(|of| vec![mask(&of.shape); of.shape.heads as usize]).collect();
    Blueprint::new(shape, masks, Provenance::default()).unwrap()
}
