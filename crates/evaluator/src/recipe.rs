use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a model is trained: AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with a learning rate that rises in a line
/// and then falls to zero. What a file leaves out is as in [`Recipe::default`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Passes over the training examples.
    pub epochs: u32,
    pub batch: u32,
    /// Batches whose gradients are averaged for one step: as if `batch` were so many times as large, in the memory of one.
    pub accumulate: u32,
    /// Highest learning rate, reached after the warm-up.
    pub learning_rate: f64,
    /// Share of the steps in which the learning rate rises, in [0, 1].
    pub warmup: f64,
    pub decay: Decay,
    pub weight_decay: f64,
    /// Gradients of one tensor that are longer than this (in the Euclidean norm) are shortened to it.
    pub clip: f64,
    /// Share of each label that is spread over all classes, in [0, 1).
    pub label_smoothing: f32,
    /// Share of the loss that follows the dense model's class probabilities instead of the labels, in [0, 1]; only
    /// where there is a dense model to follow.
    pub distillation: f64,
    /// Training stops after so many epochs without a better accuracy on validation examples, and the best epoch's
    /// weights are taken; by default all epochs are trained and the last one's weights taken.
    pub patience: Option<u32>,
}

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Decay {
    /// Along a line.
    Linear,
    /// Along half a cosine.
    Cosine,
}

/// Ten epochs of batches of 32, linear decay: as BERT-class models are fine-tuned.
impl Default for Recipe {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch: 32,
            accumulate: 1,
            learning_rate: 5e-5,
            warmup: 0.1,
            decay: Decay::Linear,
            weight_decay: 0.01,
            clip: 1.0,
            label_smoothing: 0.0,
            distillation: 0.0,
            patience: None,
        }
    }
}

impl Recipe {
    /// Why no training can follow this recipe, if so.
    pub fn check(&self) -> Result<(), String> {
        let share = |name: &str, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(format!("{name} is a share in [0, 1], not {value}")),
        };
        if self.epochs > 10_000 || !(1..=65_536).contains(&self.batch) || !(1..=65_536).contains(&self.accumulate) {
            return Err("epochs is at most 10000, batch and accumulate are 1 to 65536".into());
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 10.0 && (0.0..=10.0).contains(&self.weight_decay)) {
            return Err("learning_rate lies in (0, 10], weight_decay in [0, 10]".into());
        }
        if !(self.clip > 0.0 && self.clip <= 1e6) || self.patience == Some(0) {
            return Err("clip lies in (0, 1000000], patience is at least 1".into());
        }
        share("warmup", self.warmup)?;
        share("distillation", self.distillation)?;
        match (0.0..1.0).contains(&self.label_smoothing) {
            true => Ok(()),
            false => Err(format!("label_smoothing is a share in [0, 1), not {}", self.label_smoothing)),
        }
    }

    /// Steps over `examples` examples.
    pub fn steps(&self, examples: usize) -> u64 {
        u64::from(self.epochs) * self.steps_each(examples)
    }

    /// Steps of one epoch.
    pub(crate) fn steps_each(&self, examples: usize) -> u64 {
        examples.div_ceil(self.batch as usize).div_ceil(self.accumulate as usize) as u64
    }

    /// Learning rate of step `step` of `steps`.
    pub(crate) fn learning_rate_at(&self, step: u64, steps: u64) -> f64 {
        let warmup = (self.warmup * steps as f64).max(1.0);
        let step = step as f64;
        let rise = ((step + 1.0) / warmup).min(1.0);
        let fallen = ((step - warmup) / (steps as f64 - warmup).max(1.0)).clamp(0.0, 1.0);
        let left = match self.decay {
            Decay::Linear => 1.0 - fallen,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * fallen).cos()),
        };
        self.learning_rate * rise * left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_then_falls_to_zero() {
        for (decay, half_way, three_quarters) in [(Decay::Linear, 0.5, 0.25), (Decay::Cosine, 0.5, 0.1464466)] {
            let recipe = Recipe { learning_rate: 1.0, decay, ..Recipe::default() };
            let at = |step| recipe.learning_rate_at(step, 90);
            assert_eq!((at(0), at(8)), (1.0 / 9.0, 1.0));
            assert!((recipe.learning_rate_at(50, 90) - 0.5).abs() < 0.02);
            let recipe = Recipe { warmup: 0.0, ..recipe };
            assert!((recipe.learning_rate_at(51, 101) - half_way).abs() < 1e-6); // after one step of warm-up, 100 are left
            assert!((recipe.learning_rate_at(76, 101) - three_quarters).abs() < 1e-6);
            assert!(at(89) < 0.02);
        }
    }

    #[test]
    fn gradients_of_several_batches_make_one_step() {
        let recipe = Recipe { epochs: 3, batch: 10, accumulate: 4, ..Recipe::default() };
        assert_eq!(recipe.steps(95), 9); // ten batches an epoch: four, four and two
    }
}
