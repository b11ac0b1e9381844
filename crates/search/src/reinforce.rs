use burn::{
    grad_clipping::GradientClippingConfig,
    module::Module,
    optim::{AdamConfig, GradientsParams, ModuleOptimizer},
    tensor::{Device, Tensor, TensorData},
};

/// Adam's step for the policy. Large, for a search has only some dozens of updates.
const LEARNING_RATE: f64 = 1e-2;

/// Log-probabilities and entropies of the actions of some episodes, `[episodes, steps]`.
pub(crate) struct Likelihood {
    pub log_probability: Tensor<2>,
    pub entropy: Tensor<2>,
}

/// The learning half of REINFORCE (Williams 1992; for architecture search Zoph & Le 2017).
pub(crate) struct Reinforce<P> {
    policy: P,
    optimiser: ModuleOptimizer,
    updates: u64,
}

impl<P: Module> Reinforce<P> {
    pub(crate) fn new(policy: P) -> Self {
        let clipping = GradientClippingConfig::Norm(1.0);
        Self { policy, optimiser: AdamConfig::new().with_grad_clipping(Some(clipping)).init(), updates: 0 }
    }

    pub(crate) fn policy(&self) -> &P {
        &self.policy
    }

    /// One update from `returns[episode][step]`, the reward that followed each action.
    ///
    /// Gradient: `E[sum_t A_t grad ln pi(a_t | s_t)]`, with the advantage `A_t = G_t - mean of the other episodes' G_t`
    /// (leave-one-out baseline, Kool et al. 2019), divided by the batch's deviation; plus an entropy bonus that decays.
    pub(crate) fn update(&mut self, returns: &[Vec<f64>], likelihood: impl FnOnce(&P) -> Likelihood) {
        let (episodes, steps) = (returns.len(), returns[0].len());
        if episodes < 2 {
            return;
        }
        let sums: Vec<f64> = (0..steps).map(|t| returns.iter().map(|g| g[t]).sum()).collect();
        let others = |g: &[f64], t: usize| (sums[t] - g[t]) / (episodes - 1) as f64;
        let advantages: Vec<f64> =
            returns.iter().flat_map(|g| (0..steps).map(move |t| (g, t))).map(|(g, t)| g[t] - others(g, t)).collect();
        let deviation = (advantages.iter().map(|a| a * a).sum::<f64>() / advantages.len() as f64).sqrt();
        let scaled: Vec<f32> = advantages.iter().map(|a| (a / (deviation + 1e-8)) as f32).collect();
        let entropy_weight = 0.02 * 0.98f64.powi(self.updates.min(10_000) as i32);

        let advantage = Tensor::<2>::from_data(TensorData::new(scaled, [episodes, steps]), &Device::flex().autodiff());
        let likelihood = likelihood(&self.policy);
        let gain = (likelihood.log_probability * advantage).sum_dim(1).mean();
        let objective = gain + likelihood.entropy.sum_dim(1).mean().mul_scalar(entropy_weight);
        let gradients = GradientsParams::from_grads((-objective).backward(), &self.policy);
        self.policy = self.optimiser.step(LEARNING_RATE, self.policy.clone(), gradients);
        self.updates += 1;
    }
}
