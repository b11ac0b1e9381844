use burn::{
    module::{Module, Param},
    nn::{Linear, LinearConfig, Lstm, LstmConfig, LstmState},
    tensor::{Device, Tensor, activation::relu},
};
use maskwright_transformer::initialise;

use crate::{edit::Edit, environment::OBSERVATION, guide::FEATURES};

/// Width of both LSTM layers (HB-BSSA 3.3).
const HIDDEN: usize = 128;

/// Width in which a writing policy compares its state with a block.
const BLOCK_WIDTH: usize = 32;

/// Two LSTM layers over the windows (heads) of a model: what every policy remembers of an episode.
#[derive(Module, Debug)]
struct Recurrence {
    observe: Linear,
    layers: Vec<Lstm>,
}

/// What each LSTM layer remembers, `[episodes, HIDDEN]` twice; empty at the start of an episode.
pub(crate) type Memory = Vec<LstmState<2>>;

impl Recurrence {
    fn new(device: &Device) -> Self {
        let layer = |_| LstmConfig::new(HIDDEN, HIDDEN, true).init(device);
        Self { observe: LinearConfig::new(OBSERVATION, HIDDEN).init(device), layers: (0..2).map(layer).collect() }
    }

    /// `[episodes, steps, OBSERVATION]` to `[episodes, steps, HIDDEN]`.
    fn forward(&self, observations: Tensor<3>, memory: Memory) -> (Tensor<3>, Memory) {
        let mut hidden = self.observe.forward(observations);
        let mut before = memory.into_iter();
        let mut after = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let (next, state) = layer.forward(hidden, before.next());
            hidden = next;
            after.push(state);
        }
        (hidden, after)
    }
}

/// Proposes an edit of each window.
#[derive(Module, Debug)]
pub(crate) struct EditPolicy {
    recurrence: Recurrence,
    edits: Linear,
    ranking: Linear,
}

/// What an editing policy says of each step.
pub(crate) struct EditLogits {
    /// `[episodes, steps, edits]`
    pub edits: Tensor<3>,
    /// Mean of the Gaussian from which the weights of block features are drawn, `[episodes, steps, FEATURES]`.
    pub ranking: Tensor<3>,
}

impl EditPolicy {
    pub(crate) fn new(seed: u64, device: &Device) -> Self {
        let linear = |outputs| LinearConfig::new(HIDDEN, outputs).init(device);
        let (edits, ranking) = (linear(Edit::ALL.len()), linear(FEATURES));
        initialise(Self { recurrence: Recurrence::new(device), edits, ranking }, seed)
    }

    /// Of observations `[episodes, steps, OBSERVATION]`.
    pub(crate) fn forward(&self, observations: Tensor<3>, memory: Memory) -> (EditLogits, Memory) {
        let (hidden, memory) = self.recurrence.forward(observations, memory);
        let edits = self.edits.forward(hidden.clone());
        (EditLogits { edits, ranking: self.ranking.forward(hidden) }, memory)
    }
}

/// Writes the mask of each window.
#[derive(Module, Debug)]
pub(crate) struct WritePolicy {
    recurrence: Recurrence,
    sizes: Linear,
    precisions: Linear,
    query: Linear,
    expand: Linear,
    contract: Linear,
    bias: Param<Tensor<1>>,
}

/// What a writing policy says of each step.
pub(crate) struct WriteLogits {
    /// `[episodes, steps, 3]`
    pub sizes: Tensor<3>,
    /// `[episodes, steps, 3]`
    pub precisions: Tensor<3>,
    /// `[episodes, steps, BLOCK_WIDTH]`, to be compared with blocks in [`WritePolicy::block_logits`].
    pub query: Tensor<3>,
}

impl WritePolicy {
    /// A policy that knows `block_features` figures of each block.
    pub(crate) fn new(block_features: usize, seed: u64, device: &Device) -> Self {
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        let policy = Self {
            recurrence: Recurrence::new(device),
            sizes: linear(HIDDEN, 3),
            precisions: linear(HIDDEN, 3),
            query: linear(HIDDEN, BLOCK_WIDTH),
            expand: linear(block_features, 2 * BLOCK_WIDTH),
            contract: linear(2 * BLOCK_WIDTH, BLOCK_WIDTH),
            bias: Param::from_tensor(Tensor::zeros([1], device)),
        };
        initialise(policy, seed)
    }

    /// Of observations `[episodes, steps, OBSERVATION]`.
    pub(crate) fn forward(&self, observations: Tensor<3>, memory: Memory) -> (WriteLogits, Memory) {
        let (hidden, memory) = self.recurrence.forward(observations, memory);
        let sizes = self.sizes.forward(hidden.clone());
        let precisions = self.precisions.forward(hidden.clone());
        (WriteLogits { sizes, precisions, query: self.query.forward(hidden) }, memory)
    }

    /// Log-odds that each block is active: `[episodes, steps, BLOCK_WIDTH]` against block features
    /// `[episodes, steps, blocks, features]` gives `[episodes, steps, blocks]`.
    pub(crate) fn block_logits(&self, query: Tensor<3>, features: Tensor<4>) -> Tensor<3> {
        let blocks = self.contract.forward(relu(self.expand.forward(features)));
        let scale = (BLOCK_WIDTH as f32).sqrt().recip();
        let logits = (blocks * query.unsqueeze_dim(2)).sum_dim(3).squeeze_dim(3);
        logits.mul_scalar(scale) + self.bias.val().reshape([1, 1, 1])
    }
}
