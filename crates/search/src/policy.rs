use burn::{
    module::{Module, Param},
    nn::{Linear, LinearConfig, Lstm, LstmConfig, LstmState},
    tensor::{Device, Tensor, activation::relu},
};
use maskwright_transformer::initialise;

use crate::{edit::Edit, guide::FEATURES};

/// Width of both LSTM layers (HB-BSSA 3.3).
pub(crate) const HIDDEN: usize = 128;

/// Width in which a writing policy compares its state with a block.
const BLOCK_WIDTH: usize = 32;

/// A two-layer LSTM over the windows (heads) of a model, with outputs for each part of an action.
#[derive(Module, Debug)]
pub(crate) struct Policy {
    observe: Linear,
    layers: Vec<Lstm>,
    outputs: Outputs,
}

#[derive(Module, Debug)]
enum Outputs {
    Edit(EditOutputs),
    Write(WriteOutputs),
}

#[derive(Module, Debug)]
struct EditOutputs {
    edits: Linear,
    ranking: Linear,
}

#[derive(Module, Debug)]
struct WriteOutputs {
    sizes: Linear,
    precisions: Linear,
    query: Linear,
    expand: Linear,
    contract: Linear,
    bias: Param<Tensor<1>>,
}

/// What each LSTM layer remembers, `[episodes, HIDDEN]` twice.
pub(crate) type Memory = Vec<Option<LstmState<2>>>;

/// What an editing policy says of a step.
pub(crate) struct EditLogits {
    /// `[episodes, steps, edits]`
    pub edits: Tensor<3>,
    /// Mean of the Gaussian from which the weights of block features are drawn, `[episodes, steps, FEATURES]`.
    pub ranking: Tensor<3>,
}

/// What a writing policy says of a step.
pub(crate) struct WriteLogits {
    /// `[episodes, steps, 3]`
    pub sizes: Tensor<3>,
    /// `[episodes, steps, 3]`
    pub precisions: Tensor<3>,
    /// `[episodes, steps, BLOCK_WIDTH]`, to be compared with blocks in [`Policy::block_logits`].
    pub query: Tensor<3>,
}

impl Policy {
    /// One that edits masks.
    pub(crate) fn editing(observation: usize, seed: u64, device: &Device) -> Self {
        let linear = |outputs| LinearConfig::new(HIDDEN, outputs).init(device);
        let outputs = Outputs::Edit(EditOutputs { edits: linear(Edit::ALL.len()), ranking: linear(FEATURES) });
        Self::new(observation, outputs, seed, device)
    }

    /// One that writes masks, knowing `block_features` of each block.
    pub(crate) fn writing(observation: usize, block_features: usize, seed: u64, device: &Device) -> Self {
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        let outputs = Outputs::Write(WriteOutputs {
            sizes: linear(HIDDEN, 3),
            precisions: linear(HIDDEN, 3),
            query: linear(HIDDEN, BLOCK_WIDTH),
            expand: linear(block_features, 2 * BLOCK_WIDTH),
            contract: linear(2 * BLOCK_WIDTH, BLOCK_WIDTH),
            bias: Param::from_tensor(Tensor::zeros([1], device)),
        });
        Self::new(observation, outputs, seed, device)
    }

    fn new(observation: usize, outputs: Outputs, seed: u64, device: &Device) -> Self {
        let layer = |_| LstmConfig::new(HIDDEN, HIDDEN, true).init(device);
        let observe = LinearConfig::new(observation, HIDDEN).init(device);
        initialise(Self { observe, layers: (0..2).map(layer).collect(), outputs }, seed)
    }

    /// Nothing remembered yet.
    pub(crate) fn no_memory(&self) -> Memory {
        self.layers.iter().map(|_| None).collect()
    }

    /// What an editing policy says of observations `[episodes, steps, observation]`.
    ///
    /// # Panics
    /// When this policy writes.
    pub(crate) fn edit(&self, observations: Tensor<3>, memory: Memory) -> (EditLogits, Memory) {
        let (hidden, memory) = self.remember(observations, memory);
        let Outputs::Edit(outputs) = &self.outputs else { panic!("a writing policy was asked to edit") };
        let edits = outputs.edits.forward(hidden.clone());
        (EditLogits { edits, ranking: outputs.ranking.forward(hidden) }, memory)
    }

    /// What a writing policy says of observations `[episodes, steps, observation]`.
    ///
    /// # Panics
    /// When this policy edits.
    pub(crate) fn write(&self, observations: Tensor<3>, memory: Memory) -> (WriteLogits, Memory) {
        let (hidden, memory) = self.remember(observations, memory);
        let outputs = self.write_outputs();
        let sizes = outputs.sizes.forward(hidden.clone());
        let precisions = outputs.precisions.forward(hidden.clone());
        (WriteLogits { sizes, precisions, query: outputs.query.forward(hidden) }, memory)
    }

    /// Log-odds that each block is active: `[episodes, steps, BLOCK_WIDTH]` against block features
    /// `[episodes, steps, blocks, features]` gives `[episodes, steps, blocks]`.
    pub(crate) fn block_logits(&self, query: Tensor<3>, features: Tensor<4>) -> Tensor<3> {
        let outputs = self.write_outputs();
        let blocks = outputs.contract.forward(relu(outputs.expand.forward(features)));
        let scale = (BLOCK_WIDTH as f32).sqrt().recip();
        let logits = (blocks * query.unsqueeze_dim(2)).sum_dim(3).squeeze_dim(3);
        logits.mul_scalar(scale) + outputs.bias.val().reshape([1, 1, 1])
    }

    fn write_outputs(&self) -> &WriteOutputs {
        let Outputs::Write(outputs) = &self.outputs else { panic!("an editing policy was asked to write") };
        outputs
    }

    fn remember(&self, observations: Tensor<3>, memory: Memory) -> (Tensor<3>, Memory) {
        let mut hidden = self.observe.forward(observations); // [episodes, steps, HIDDEN]
        let mut remembered = Vec::with_capacity(memory.len());
        for (layer, state) in self.layers.iter().zip(memory) {
            let (next, state) = layer.forward(hidden, state);
            hidden = next;
            remembered.push(Some(state));
        }
        (hidden, remembered)
    }
}
