use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData},
};
use rand::{Rng, SeedableRng, rngs::ChaCha12Rng};
use rand_distr::{Distribution, StandardNormal};

/// Draws every matrix of a module anew from one seeded generator, in the module's own order.
///
/// Matrices become Gaussian with standard deviation `sqrt(2 / (inputs + outputs))` (Glorot & Bengio 2010); vectors
/// (biases, the scales of normalisations) keep their constants. burn draws from one generator for the whole process;
/// this makes a run depend on its own seed alone.
pub fn initialise<M: Module>(module: M, seed: u64) -> M {
    module.map(&mut Glorot { generator: ChaCha12Rng::seed_from_u64(seed) })
}

struct Glorot {
    generator: ChaCha12Rng,
}

impl ModuleMapper for Glorot {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D < 2 {
            return param;
        }
        let draw = |tensor: Tensor<D>| {
            let dims = tensor.dims();
            let deviation = (2.0 / (dims[D - 2] + dims[D - 1]) as f32).sqrt();
            let values = draw_gaussian(&mut self.generator, dims.iter().product(), deviation);
            let drawn = Tensor::from_data(TensorData::new(values, dims), &tensor.device());
            if tensor.is_require_grad() { drawn.require_grad() } else { drawn }
        };
        param.map(draw)
    }
}

fn draw_gaussian(generator: &mut impl Rng, count: usize, deviation: f32) -> Vec<f32> {
    let draw = |_| -> f32 { StandardNormal.sample(generator) };
    (0..count).map(draw).map(|value| deviation * value).collect()
}
