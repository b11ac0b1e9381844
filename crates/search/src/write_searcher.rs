use burn::{
    module::Module,
    tensor::{
        Device, Int, Tensor, TensorData,
        activation::{log_sigmoid, log_softmax, softmax},
    },
};
use maskwright_blueprint::{BlockSize, Precision};
use maskwright_cost_model::CostError;
use rand::RngExt;

use crate::{
    Evaluated, Features, Start,
    candidate::repaired,
    environment::{Environment, OBSERVATION, Observation},
    guide::{FEATURES, HeadGuide, SizeGuide},
    mutation::draw,
    policy::{Memory, WritePolicy},
    random_stream::{Purpose, random_stream},
    reinforce::{Likelihood, Reinforce},
    searcher::{Proposal, Searcher},
};

/// Features of a block's place: its row and column as waves of 1 to 4 periods, distance from the diagonal, and whether
/// it lies on the diagonal, in the first row, in the first column.
const PLACE: usize = 2 + 16 + 4;

/// What is added to forbidden choices' logits.
const FORBIDDEN: f32 = -1e9;

/// REINFORCE that writes a whole blueprint in each episode: for each window a block size, a precision, and each block's
/// fate by an independent Bernoulli draw whose log-probability is exact.
pub(crate) struct WriteSearcher {
    seed: u64,
    writing: Writing,
    reinforce: Reinforce<WritePolicy>,
    episodes: u64,
    asked: Vec<WriteEpisode>,
}

/// What the policy starts from and what it is told of blocks.
#[derive(Debug, Clone, Copy)]
struct Writing {
    start: Start,
    features: Features,
}

#[derive(Debug, Clone, Default)]
struct WriteEpisode {
    observations: Vec<Observation>,
    sizes: Vec<usize>,
    precisions: Vec<usize>,
    /// What was drawn for each block of each window, before any repair.
    drawn: Vec<Vec<bool>>,
    speed_gains: Vec<f64>,
}

impl WriteSearcher {
    pub(crate) fn new(seed: u64, start: Start, features: Features) -> Self {
        let network_seed = random_stream(seed, Purpose::Network, 0).random();
        let policy = WritePolicy::new(block_width(features), network_seed, &Device::flex().autodiff());
        let writing = Writing { start, features };
        Self { seed, writing, reinforce: Reinforce::new(policy), episodes: 0, asked: Vec::new() }
    }
}

impl Writing {
    /// Log-odds that are added to the policy's for each block.
    fn prior(self, guide: &SizeGuide, block: usize) -> f32 {
        match self.start {
            Start::Cold => 0.0,
            Start::Warm => 2.0 * guide.features[block][0] - 2.0,
        }
    }

    /// One window's block features, the policy's input for its Bernoulli draws.
    fn block_features(self, head: &HeadGuide, size: BlockSize) -> Vec<f32> {
        let guide = head.at(size);
        (0..guide.rows * guide.columns)
            .flat_map(|block| {
                let mut row = place(block / guide.columns, block % guide.columns, guide).to_vec();
                if self.features == Features::Block {
                    row.extend(guide.features[block]);
                }
                row
            })
            .collect()
    }

    /// `ln pi` of what the episodes did: size and precision of each window, and every block's draw.
    fn likelihood(self, policy: &WritePolicy, environment: &Environment<'_>, asked: &[WriteEpisode]) -> Likelihood {
        let device = Device::flex().autodiff();
        let (count, steps) = (asked.len(), environment.windows());
        let seen: Vec<f32> = asked.iter().flat_map(|e| e.observations.iter().flatten()).copied().collect();
        let seen = Tensor::from_data(TensorData::new(seen, [count, steps, OBSERVATION]), &device);
        let (logits, _) = policy.forward(seen, Memory::new());
        let (size_bias, precision_bias) = choice_bias(environment);
        let chosen = |logits: Tensor<3>, bias: [f32; 3], of: &dyn Fn(&WriteEpisode) -> &Vec<usize>| {
            let bias = Tensor::<1>::from_data(bias, &device).reshape([1, 1, 3]);
            let index: Vec<i32> = asked.iter().flat_map(of).map(|at| *at as i32).collect();
            let index = Tensor::<3, Int>::from_data(TensorData::new(index, [count, steps, 1]), &device);
            log_softmax(logits + bias, 2).gather(2, index).squeeze_dim::<2>(2)
        };
        let of_sizes = chosen(logits.sizes, size_bias, &|episode| &episode.sizes);
        let of_precisions = chosen(logits.precisions, precision_bias, &|episode| &episode.precisions);

        // Windows of different block sizes have different numbers of blocks: pad, and leave the padding out.
        let most = asked.iter().flat_map(|episode| &episode.drawn).map(Vec::len).max().unwrap_or(0);
        let width = block_width(self.features);
        let (mut features, mut prior) = (Vec::new(), Vec::new());
        let (mut sign, mut counts) = (Vec::new(), Vec::new());
        for episode in asked {
            for (window, drawn) in episode.drawn.iter().enumerate() {
                let head = &environment.guide.heads()[window];
                let size = BlockSize::ALL[episode.sizes[window]];
                let own = self.block_features(head, size);
                features.extend(&own);
                features.resize(features.len() + (most - drawn.len()) * width, 0.0);
                let padding = most - drawn.len();
                prior.extend((0..drawn.len()).map(|block| self.prior(head.at(size), block)));
                prior.resize(prior.len() + padding, 0.0);
                sign.extend(drawn.iter().map(|active| if *active { 1.0f32 } else { -1.0 }));
                sign.resize(sign.len() + padding, 0.0);
                counts.extend(drawn.iter().map(|_| 1.0f32));
                counts.resize(counts.len() + padding, 0.0);
            }
        }
        let dims = [count, steps, most];
        let tensor = |values: Vec<f32>| Tensor::<3>::from_data(TensorData::new(values, dims), &device);
        let features = Tensor::<4>::from_data(TensorData::new(features, [count, steps, most, width]), &device);
        let log_odds = policy.block_logits(logits.query, features) + tensor(prior);
        let counts = tensor(counts);
        // ln p of the draw is ln sigmoid(+-log-odds).
        let of_blocks = (log_sigmoid(log_odds.clone() * tensor(sign)) * counts.clone()).sum_dim(2).squeeze_dim::<2>(2);
        let p = burn::tensor::activation::sigmoid(log_odds.clone());
        let entropy = -(p.clone() * log_sigmoid(log_odds.clone()) + (p.neg() + 1.0) * log_sigmoid(-log_odds));
        let entropy = (entropy * counts).sum_dim(2).squeeze_dim::<2>(2);
        Likelihood { log_probability: of_sizes + of_precisions + of_blocks, entropy: entropy.mul_scalar(0.1) }
    }
}

impl Searcher for WriteSearcher {
    fn ask(&mut self, environment: &Environment<'_>, most: usize) -> Result<Vec<Proposal>, CostError> {
        let policy = self.reinforce.policy().clone().valid();
        let device = Device::flex();
        let (size_bias, precision_bias) = choice_bias(environment);
        let width = block_width(self.writing.features);
        self.asked.clear();
        let mut proposals = Vec::new();
        for _ in 0..most {
            let mut generator = random_stream(self.seed, Purpose::Actions, self.episodes);
            self.episodes += 1;
            let start = environment.sparsest();
            let Some(start) = environment.within_budget(start) else { break };
            let mut draft = environment.reset(start)?;
            let mut episode = WriteEpisode::default();
            let mut memory = Memory::new();
            for _ in 0..environment.windows() {
                let observation = environment.observe(&draft);
                let seen = Tensor::<1>::from_data(observation, &device).reshape([1, 1, OBSERVATION]);
                let (logits, next) = policy.forward(seen, memory);
                memory = next;
                let size_at = draw(&probabilities(logits.sizes, size_bias), &mut generator);
                let precision_at = draw(&probabilities(logits.precisions, precision_bias), &mut generator);
                let (size, precision) = (BlockSize::ALL[size_at], Precision::ALL[precision_at]);
                let head = environment.window(&draft).0;
                let guide = head.at(size);
                let features = self.writing.block_features(head, size);
                let blocks = features.len() / width;
                let features = Tensor::from_data(TensorData::new(features, [1, 1, blocks, width]), &device);
                let log_odds = values(policy.block_logits(logits.query, features));
                let log_odds = log_odds.iter().enumerate().map(|(block, x)| x + self.writing.prior(guide, block));
                let drawn: Vec<bool> = log_odds.map(|x| generator.random::<f32>() < 1.0 / (1.0 + (-x).exp())).collect();
                let finer = Some(precision.finer()).filter(|finer| environment.space.precisions.contains(finer));
                let of_block = |block: usize| {
                    if guide.varied[block] { finer.unwrap_or(precision) } else { precision }
                };
                let cells = drawn.iter().enumerate().map(|(block, active)| active.then(|| of_block(block))).collect();
                // An empty row keeps its block on the diagonal: a rule that knows nothing of the task.
                let columns = guide.columns;
                let diagonal = |at: usize| -((at / columns).abs_diff(at % columns) as f64);
                let mask = repaired(&head.shape, size, cells, diagonal, precision);
                let speed_gain = environment.step(&mut draft, mask)?;
                episode.observations.push(observation);
                episode.sizes.push(size_at);
                episode.precisions.push(precision_at);
                episode.drawn.push(drawn);
                episode.speed_gains.push(speed_gain);
            }
            proposals.push(Proposal { candidate: draft.candidate, origin: "policy" });
            self.asked.push(episode);
        }
        Ok(proposals)
    }

    fn tell(&mut self, environment: &Environment<'_>, results: &[Evaluated]) {
        let returns: Vec<Vec<f64>> = results
            .iter()
            .zip(&self.asked)
            .map(|(result, episode)| {
                // A window's own speed is its own return; the distortion is everybody's.
                let speed_part = environment.reward.speed_part(result.speed);
                let shared = result.reward - speed_part;
                let start = speed_part - episode.speed_gains.iter().sum::<f64>();
                let each = start / episode.speed_gains.len() as f64;
                episode.speed_gains.iter().map(|gain| gain + each + shared).collect()
            })
            .collect();
        if returns.len() == self.asked.len() {
            let (writing, asked) = (self.writing, &self.asked);
            self.reinforce.update(&returns, |policy| writing.likelihood(policy, environment, asked));
        }
    }
}

fn choice_bias(environment: &Environment<'_>) -> ([f32; 3], [f32; 3]) {
    let allowed = |yes: bool| if yes { 0.0 } else { FORBIDDEN };
    (
        BlockSize::ALL.map(|size| allowed(environment.space.block_sizes.contains(&size))),
        Precision::ALL.map(|precision| allowed(environment.space.precisions.contains(&precision))),
    )
}

fn probabilities(logits: Tensor<3>, bias: [f32; 3]) -> Vec<f32> {
    let bias = Tensor::<1>::from_data(bias, &logits.device()).reshape([1, 1, 3]);
    values(softmax(logits + bias, 2))
}

fn values(tensor: Tensor<3>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("a policy computes in f32")
}

fn block_width(features: Features) -> usize {
    match features {
        Features::Block => PLACE + FEATURES,
        Features::Position => PLACE,
    }
}

fn place(row: usize, column: usize, guide: &SizeGuide) -> [f32; PLACE] {
    let (y, x) = (row as f32 / guide.rows as f32, column as f32 / guide.columns as f32);
    let mut place = [0.0; PLACE];
    place[0] = y;
    place[1] = x;
    for period in 0..4 {
        let turn = std::f32::consts::TAU * (period + 1) as f32;
        let waves = [(turn * y).sin(), (turn * y).cos(), (turn * x).sin(), (turn * x).cos()];
        place[2 + 4 * period..6 + 4 * period].copy_from_slice(&waves);
    }
    let flag = |yes: bool| if yes { 1.0 } else { 0.0 };
    place[18..].copy_from_slice(&[(y - x).abs(), flag(row == column), flag(row == 0), flag(column == 0)]);
    place
}
