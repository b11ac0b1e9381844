use std::ops::ControlFlow;

use burn::{
    grad_clipping::GradientClippingConfig,
    module::Module,
    nn::loss::CrossEntropyLossConfig,
    optim::{AdamWConfig, GradientsParams, MultiGradientsParams},
    tensor::{
        Device, Tensor,
        activation::{log_softmax, softmax},
    },
};
use maskwright_blueprint::Blueprint;
use maskwright_transformer::{Attention, CompiledMasks, Model};
use rand::{SeedableRng, rngs::ChaCha12Rng, seq::SliceRandom};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Examples;

/// Each batch is cut into this many parts that are computed side by side. Not the number of cores: the same weights
/// come out on every machine with the same arithmetic.
const SHARDS: usize = 2;

/// How a model is trained: AdamW, linear warm-up, then a cosine to zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Passes over the training examples.
    pub epochs: u32,
    pub batch: u32,
    /// Highest learning rate, reached after the warm-up.
    pub learning_rate: f64,
    /// Share of the steps in which the learning rate rises, in [0, 1].
    pub warmup: f64,
    pub weight_decay: f64,
    /// Share of each label that is spread over all classes, in [0, 1).
    pub label_smoothing: f32,
    /// Share of the loss that follows the dense model's class probabilities instead of the labels, in [0, 1]; only
    /// where there is a dense model to follow.
    pub distillation: f64,
}

impl Recipe {
    /// Why no training can follow this recipe, if so.
    pub fn check(&self) -> Result<(), String> {
        let share = |name: &str, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(format!("{name} is a share in [0, 1], not {value}")),
        };
        if self.epochs > 10_000 || self.batch == 0 || self.batch > 65_536 {
            return Err("epochs is at most 10000, batch is 1 to 65536".into());
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 10.0 && (0.0..=10.0).contains(&self.weight_decay)) {
            return Err("learning_rate lies in (0, 10], weight_decay in [0, 10]".into());
        }
        share("warmup", self.warmup)?;
        share("distillation", self.distillation)?;
        share("label_smoothing", f64::from(self.label_smoothing))
    }

    /// Steps over `examples` examples.
    pub fn steps(&self, examples: usize) -> u64 {
        u64::from(self.epochs) * examples.div_ceil(self.batch as usize) as u64
    }

    /// Learning rate of step `step` of `steps`.
    fn learning_rate_at(&self, step: u64, steps: u64) -> f64 {
        let warmup = (self.warmup * steps as f64).max(1.0);
        let step = step as f64;
        let rise = ((step + 1.0) / warmup).min(1.0);
        let fall = ((step - warmup) / (steps as f64 - warmup).max(1.0)).clamp(0.0, 1.0);
        self.learning_rate * rise * 0.5 * (1.0 + (std::f64::consts::PI * fall).cos())
    }
}

/// After a training step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingProgress {
    pub step: u64,
    pub steps: u64,
    /// Of this step's batch.
    pub loss: f64,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    #[error("the loss is {loss} at step {step} of {steps}: lower `learning_rate`, or check the data")]
    NotFinite { loss: f64, step: u64, steps: u64 },
    #[error("interrupted at step {step} of {steps}")]
    Interrupted { step: u64, steps: u64 },
}

/// Trains a model, dense or under a blueprint's masks, optionally towards `teacher`'s class scores (one row for each
/// example). Same model, examples, recipe and seed: same weights.
pub fn train(
    model: Model,
    examples: &Examples,
    recipe: &Recipe,
    masks: Option<&Blueprint>,
    teacher: Option<&Tensor<2>>,
    seed: u64,
    watch: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
) -> Result<Model, TrainingError> {
    let device = Device::flex().autodiff();
    let masks = masks.map(|blueprint| CompiledMasks::new(blueprint, &device));
    let smoothing = (recipe.label_smoothing > 0.0).then_some(recipe.label_smoothing);
    let cross_entropy = CrossEntropyLossConfig::new().with_smoothing(smoothing).init(&device);
    let mut optimiser = AdamWConfig::new()
        .with_weight_decay(recipe.weight_decay as f32)
        .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)))
        .init();
    let mut model = model.train();
    let mut generator = ChaCha12Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..examples.len()).collect();
    let (mut step, steps) = (0, recipe.steps(examples.len()));
    for _ in 0..recipe.epochs {
        order.shuffle(&mut generator);
        for indices in order.chunks(recipe.batch as usize) {
            let shard_size = indices.len().div_ceil(SHARDS);
            let shard = |shard: &[usize]| {
                // Leaves of its own: two graphs that share leaves cannot run backward side by side.
                let model = model.clone().fork(&device);
                let attention = masks.as_ref().map_or(Attention::Dense, Attention::Masked);
                let logits = model.forward(examples.batch(shard, &device), attention); // [shard, classes]
                let hard = cross_entropy.forward(logits.clone(), examples.label_batch(shard, &device));
                let loss = match teacher.filter(|_| recipe.distillation > 0.0) {
                    Some(teacher) => {
                        let wanted = Tensor::from_inner(rows(teacher, shard));
                        let soft = -(softmax(wanted, 1) * log_softmax(logits, 1)).sum_dim(1).mean();
                        hard.mul_scalar(1.0 - recipe.distillation) + soft.mul_scalar(recipe.distillation)
                    }
                    None => hard,
                };
                let loss = loss.mul_scalar(shard.len() as f64 / indices.len() as f64);
                let value = f64::from(loss.clone().into_scalar::<f32>());
                (value, (GradientsParams::from_grads(loss.backward(), &model), device.clone()))
            };
            let (losses, grads): (Vec<f64>, Vec<_>) = indices.par_chunks(shard_size).map(shard).unzip();
            let loss: f64 = losses.iter().sum();
            if !loss.is_finite() {
                return Err(TrainingError::NotFinite { loss, step, steps });
            }
            let learning_rate = recipe.learning_rate_at(step, steps);
            model = optimiser.step_multi(learning_rate, model, MultiGradientsParams { grads });
            step += 1;
            if watch(TrainingProgress { step, steps, loss }).is_break() {
                return Err(TrainingError::Interrupted { step, steps });
            }
        }
    }
    Ok(model.valid())
}

fn rows(of: &Tensor<2>, indices: &[usize]) -> Tensor<2> {
    let indices: Vec<i32> = indices.iter().map(|&at| at as i32).collect();
    of.clone().select(0, Tensor::from_data(indices.as_slice(), &of.device()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_then_falls_to_zero() {
        let recipe = Recipe {
            epochs: 1,
            batch: 1,
            learning_rate: 1.0,
            warmup: 0.1,
            weight_decay: 0.0,
            label_smoothing: 0.0,
            distillation: 0.0,
        };
        let at = |step| recipe.learning_rate_at(step, 100);
        assert_eq!((at(0), at(9)), (0.1, 1.0));
        assert!((at(55) - 0.5).abs() < 1e-12); // half of the cosine
        assert!(at(99) < 1e-3);
    }
}
