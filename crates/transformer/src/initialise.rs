use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData},
};
use rand::{Rng, SeedableRng, rngs::ChaCha12Rng};
use rand_distr::{Distribution, StandardNormal};

/// Draws every matrix of a module anew from one seeded generator, in the module's own order.
///
/// Matrices become Gaussian with standard deviation `sqrt(2 / (inputs + outputs))` (Glorot & Bengio 2010), biases zero;
/// scales and shifts of normalisations keep their constants. burn draws from one generator for the whole process; this
/// makes a run depend on its own seed alone.
pub fn initialise<M: Module>(module: M, seed: u64) -> M {
    module.map(&mut Glorot { generator: ChaCha12Rng::seed_from_u64(seed), inside: Vec::new() })
}

struct Glorot {
    generator: ChaCha12Rng,
    /// Names of the modules and fields around the parameter.
    inside: Vec<String>,
}

impl ModuleMapper for Glorot {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.inside.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.inside.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D < 2 {
            let is_bias = self.inside.last().is_some_and(|name| name == "bias");
            let zeros = |tensor: Tensor<D>| {
                let zeros = tensor.zeros_like();
                if tensor.is_require_grad() { zeros.require_grad() } else { zeros }
            };
            return if is_bias { param.map(zeros) } else { param };
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

pub(crate) fn draw_gaussian(generator: &mut impl Rng, count: usize, deviation: f32) -> Vec<f32> {
    let draw = |_| -> f32 { StandardNormal.sample(generator) };
    (0..count).map(draw).map(|value| deviation * value).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use crate::{EncoderConfig, EncoderInput, weights_digest};

    #[test]
    fn weights_depend_on_the_seed_and_on_nothing_else() {
        let input = EncoderInput::Image { side: 8, patch: 4, channels: 1, overlap: 0 };
        let config = EncoderConfig { input, width: 8, layers: 2, heads: 2, mlp: 16, classes: 3 };
        let digest = |seed| weights_digest(&config.init(seed, &Device::flex()));
        assert_eq!(digest(1), digest(1));
        assert_ne!(digest(1), digest(2));
    }
}
