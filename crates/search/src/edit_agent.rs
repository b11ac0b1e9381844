use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData, activation::softmax},
};
use maskwright_cost_model::CostError;
use rand::rngs::ChaCha12Rng;

use crate::{
    Candidate,
    edit::Edit,
    environment::{Environment, Observation},
    guide::{FEATURES, SizeGuide},
    mutation::{RANKING_DEVIATION, RANKING_PRIOR, draw, edit_prior, ranked, ranking},
    policy::{EditPolicy, Memory},
    random_stream::{Purpose, random_stream},
    reinforce::{Likelihood, Reinforce},
};

/// Share of the prior in the action probabilities: keeps the policy from collapsing onto one edit.
const PRIOR_SHARE: f32 = 0.05;

/// REINFORCE over edits: an episode passes once over the windows of an archive member and mostly leaves them alone.
pub(crate) struct EditAgent {
    reinforce: Reinforce<EditPolicy>,
}

/// What the agent did in one episode, as it must be known to learn from it.
#[derive(Debug, Clone)]
pub(crate) struct EditEpisode {
    pub candidate: Candidate,
    /// What distortion gave to the reward of the archive member that it started from.
    parent_rest: f64,
    /// Of the candidate.
    speed: f64,
    observations: Vec<Observation>,
    edits: Vec<usize>,
    rankings: Vec<[f32; FEATURES]>,
    /// Change of the reward's speed part by each step.
    speed_gains: Vec<f64>,
}

impl EditAgent {
    pub(crate) fn new(seed: u64) -> Self {
        use rand::RngExt;
        let network_seed = random_stream(seed, Purpose::Network, 0).random();
        let policy = EditPolicy::new(network_seed, &Device::flex().autodiff());
        Self { reinforce: Reinforce::new(policy) }
    }

    /// Episodes side by side, each with its own start, what distortion gave to the reward of the start's parent, and
    /// generator.
    pub(crate) fn propose(
        &self,
        environment: &Environment<'_>,
        starts: Vec<(Candidate, f64)>,
        generators: &mut [ChaCha12Rng],
    ) -> Result<Vec<EditEpisode>, CostError> {
        let policy = self.reinforce.policy().clone().valid();
        let prior = edit_prior(environment);
        let mut drafts = Vec::with_capacity(starts.len());
        let mut episodes = Vec::with_capacity(starts.len());
        for (start, parent_rest) in starts {
            episodes.push(EditEpisode {
                candidate: start.clone(),
                parent_rest,
                speed: 0.0,
                observations: Vec::new(),
                edits: Vec::new(),
                rankings: Vec::new(),
                speed_gains: Vec::new(),
            });
            drafts.push(environment.reset(start)?);
        }
        let mut memory = Memory::new();
        for _ in 0..environment.windows() {
            let observations: Vec<Observation> = drafts.iter().map(|draft| environment.observe(draft)).collect();
            let seen = tensor3(&[&observations], &Device::flex()).swap_dims(0, 1); // [episodes, 1, observation]
            let (logits, next) = policy.forward(seen, memory);
            memory = next;
            let probabilities = values(edit_probabilities(logits.edits, &prior));
            let means = values(logits.ranking);
            for (at, (draft, episode)) in drafts.iter_mut().zip(&mut episodes).enumerate() {
                let generator = &mut generators[at];
                let edit = draw(&probabilities[at * Edit::ALL.len()..(at + 1) * Edit::ALL.len()], generator);
                let mean: Vec<f32> =
                    means[at * FEATURES..(at + 1) * FEATURES].iter().zip(RANKING_PRIOR).map(|(m, p)| m + p).collect();
                let weights = ranking(&mean, generator);
                let (head, mask) = environment.window(draft);
                let value = |guide: &SizeGuide, block: usize| ranked(&weights, guide, block);
                let mask = Edit::ALL[edit].apply(mask, head, environment.space, &value, generator);
                let speed_gain = environment.step(draft, mask)?;
                episode.observations.push(observations[at]);
                episode.edits.push(edit);
                episode.rankings.push(weights);
                episode.speed_gains.push(speed_gain);
            }
        }
        for (episode, draft) in episodes.iter_mut().zip(drafts) {
            (episode.candidate, episode.speed) = (draft.candidate, draft.speed);
        }
        Ok(episodes)
    }

    /// Learns from evaluated episodes and their rewards.
    ///
    /// What an edit did to the speed is its own return; what all of them did to the distortion is everybody's, as an
    /// improvement over the parent. That part is clipped to half a unit: rewards have heavy tails. What crossing the
    /// parent did to the speed is nobody's.
    pub(crate) fn learn(&mut self, environment: &Environment<'_>, episodes: &[(&EditEpisode, f64)]) {
        if episodes.len() < 2 {
            return;
        }
        let returns: Vec<Vec<f64>> = episodes
            .iter()
            .map(|(episode, reward)| {
                let rest = reward - environment.reward.speed_part(episode.speed);
                let shared = (rest - episode.parent_rest).clamp(-0.5, 0.5);
                episode.speed_gains.iter().map(|gain| gain + shared).collect()
            })
            .collect();
        let prior = edit_prior(environment);
        self.reinforce.update(&returns, |policy| likelihood(policy, episodes, &prior));
    }
}

/// `ln pi` of what the episodes did: `ln` of the edit's probability, and of the ranking's density where the edit used it.
fn likelihood(policy: &EditPolicy, episodes: &[(&EditEpisode, f64)], prior: &[f32]) -> Likelihood {
    let device = Device::flex().autodiff();
    let (count, steps) = (episodes.len(), episodes[0].0.edits.len());
    let observations: Vec<&[Observation]> = episodes.iter().map(|(episode, _)| &episode.observations[..]).collect();
    let (logits, _) = policy.forward(tensor3(&observations, &device), Memory::new());
    let probabilities = edit_probabilities(logits.edits, prior); // [episodes, steps, edits]
    let log_probabilities = probabilities.clone().clamp_min(1e-9).log();
    let entropy = -(probabilities * log_probabilities.clone()).sum_dim(2).squeeze_dim(2);

    let edits: Vec<i32> = episodes.iter().flat_map(|(episode, _)| &episode.edits).map(|edit| *edit as i32).collect();
    let edits = Tensor::<3, Int>::from_data(TensorData::new(edits, [count, steps, 1]), &device);
    let of_edits: Tensor<2> = log_probabilities.gather(2, edits).squeeze_dim(2);

    let rankings: Vec<&[[f32; FEATURES]]> = episodes.iter().map(|(episode, _)| &episode.rankings[..]).collect();
    let prior_mean = Tensor::<1>::from_data(RANKING_PRIOR, &device).reshape([1, 1, FEATURES]);
    let distance = (tensor3(&rankings, &device) - logits.ranking - prior_mean).div_scalar(RANKING_DEVIATION);
    let of_rankings: Tensor<2> = distance.powi_scalar(2).sum_dim(2).mul_scalar(-0.5).squeeze_dim(2);
    let ranks = |edit: &usize| if Edit::ALL[*edit].ranks_blocks() { 1.0f32 } else { 0.0 };
    let used: Vec<f32> = episodes.iter().flat_map(|(episode, _)| &episode.edits).map(ranks).collect();
    let used = Tensor::<2>::from_data(TensorData::new(used, [count, steps]), &device);
    Likelihood { log_probability: of_edits + of_rankings * used, entropy }
}

/// The policy's probabilities, anchored at the prior: `0.95 softmax(logits + ln prior) + 0.05 prior`.
fn edit_probabilities(logits: Tensor<3>, prior: &[f32]) -> Tensor<3> {
    let prior = Tensor::<1>::from_data(prior, &logits.device()).reshape([1, 1, Edit::ALL.len()]);
    let anchored = softmax(logits + prior.clone().clamp_min(1e-30).log(), 2);
    anchored.mul_scalar(1.0 - PRIOR_SHARE) + prior.mul_scalar(PRIOR_SHARE)
}

/// `[outer][inner]` rows of one width as `[outer, inner, width]`.
fn tensor3<const W: usize>(rows: &[&[[f32; W]]], device: &Device) -> Tensor<3> {
    let flat: Vec<f32> = rows.iter().copied().flatten().flatten().copied().collect();
    Tensor::from_data(TensorData::new(flat, [rows.len(), rows[0].len(), W]), device)
}

fn values(tensor: Tensor<3>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("a policy computes in f32")
}
