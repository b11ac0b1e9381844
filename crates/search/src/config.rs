use maskwright_blueprint::{BlockSize, Precision};
use maskwright_cost_model::Dataflow;
use maskwright_evaluator::{Decay, ModelSource, Recipe, Task};
use maskwright_transformer::{Backend, EncoderConfig, EncoderInput};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Budget, Objective, PatternFamily, Reward};

/// Everything that decides a search. Version 1; `docs/search.md` describes it field by field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SearchConfig {
    /// 1.
    pub version: u32,
    /// Decides everything that is drawn.
    pub seed: u64,
    pub model: ModelConfig,
    pub task: Task,
    /// What computes the models: `flex`, `libtorch`, `cuda` or `wgpu`. Not the device that masks are searched for.
    pub backend: Backend,
    /// A profile by name (`maskwright device list`) or a RON file of one's own.
    pub device: String,
    #[schemars(with = "String")]
    pub dataflow: Dataflow,
    /// Examples that the device computes at once, for the prices.
    pub batch: u32,
    pub space: Space,
    /// What no candidate exceeds.
    pub budget: Budget,
    /// What is to be small.
    pub objective: Objective,
    /// How much accuracy may fall.
    pub tolerance: Tolerance,
    pub reward: Reward,
    pub agent: Agent,
    /// Candidates that each searcher may evaluate in the loop, the search and every baseline alike.
    pub evaluations: u32,
    /// Validation examples on which candidates are compared in the loop; the others select.
    pub loop_examples: u32,
    /// Training examples on which the dense model's attention is probed.
    pub calibration_examples: u32,
    /// The distortion that stands for the tolerance.
    pub kappa: Kappa,
    /// How many times the distortion that the tolerance allows a candidate may have before fine-tuning, which wins most
    /// of it back.
    pub slack: f64,
    /// Finished candidates of each searcher that are fine-tuned.
    pub finalists: u32,
    pub fine_tune: Recipe,
    /// Searchers that the report compares with, each with as many evaluations.
    pub baselines: Vec<Baseline>,
    /// Fixed patterns that are fine-tuned beside the searched masks, each at the density that is nearest to theirs.
    pub patterns: Vec<PatternFamily>,
}

/// The dense model, and how it comes by its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// For people and file names.
    pub name: String,
    pub source: ModelSource,
    pub training: Recipe,
}

/// What a head's mask may be made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Space {
    /// Of 8, 16, 32 tokens.
    #[schemars(with = "Vec<u32>")]
    pub block_sizes: Vec<BlockSize>,
    /// Of 1, 2, 4 bytes an element.
    #[schemars(with = "Vec<u32>")]
    pub precisions: Vec<Precision>,
}

/// How much accuracy may fall.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Tolerance {
    /// Points of [0, 1]: `Absolute(0.01)` lets .83 fall to .82.
    Absolute(f64),
    /// A share of the dense accuracy: `Relative(0.01)` lets .83 fall to .8217.
    Relative(f64),
}

/// How much distortion stands for the tolerance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Kappa {
    /// From this many knapsack candidates: their accuracy drops on the selection split against their distortions.
    Scan(u32),
    /// In nats; nothing is measured for it.
    Fixed(f64),
}

/// What proposes candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Agent {
    /// Knapsack scan, then REINFORCE over edits of archive members, mixed with unlearned edits; a surrogate screens.
    Edit,
    /// The same with learning off: evolution with the screen.
    Evolution,
    /// REINFORCE that writes a whole blueprint in each episode.
    Write { start: Start, features: Features },
}

/// What a writing agent's first masks look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Start {
    /// Every block by the toss of a coin.
    Cold,
    /// Blocks of much influence are likelier from the start.
    Warm,
}

/// What a writing agent knows of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Features {
    /// Where it lies, and what calibration says of it.
    Block,
    /// Where it lies.
    Position,
}

/// A searcher that learns nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Baseline {
    /// Blocks by chance, at every density, size and precision of the space.
    Random,
    /// Local window, strided, fixed, BigBird, class row and column, at every width.
    Fixed,
    /// Squared influence against price, by Lagrange multiplier.
    Knapsack,
    /// Edits of archive members without learning, with the same surrogate screen.
    Evolution,
}

impl Baseline {
    /// As tables and files write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Fixed => "fixed",
            Self::Knapsack => "knapsack",
            Self::Evolution => "evolution",
        }
    }
}

impl Tolerance {
    /// The largest drop from a dense accuracy, in points of [0, 1].
    pub fn allowed(self, dense: f64) -> f64 {
        match self {
            Self::Absolute(points) => points,
            Self::Relative(share) => share * dense,
        }
    }
}

/// The quickstart's: a small ViT on Fashion-MNIST, for an Arm board.
impl Default for SearchConfig {
    fn default() -> Self {
        let training = Recipe {
            epochs: 6,
            batch: 64,
            learning_rate: 4e-3,
            decay: Decay::Cosine,
            weight_decay: 0.05,
            ..Recipe::default()
        };
        let fine_tune =
            Recipe { epochs: 1, learning_rate: 1e-3, weight_decay: 0.0, distillation: 0.5, ..training.clone() };
        let input = EncoderInput::Image { side: 32, patch: 4, channels: 1, overlap: 0 };
        Self {
            version: 1,
            seed: 1,
            model: ModelConfig {
                name: "vit-mini".into(),
                source: ModelSource::New {
                    encoder: EncoderConfig { input, width: 64, layers: 2, heads: 4, mlp: 128, classes: 10 },
                },
                training,
            },
            task: Task::FashionMnist { folder: "data/fashion-mnist".into() },
            backend: Backend::Flex,
            device: "rk3588s2".into(),
            dataflow: Dataflow::Flash,
            batch: 1,
            space: Space { block_sizes: BlockSize::ALL.into(), precisions: Precision::ALL.into() },
            budget: Budget::Density(0.5),
            objective: Objective::Latency,
            tolerance: Tolerance::Absolute(0.01),
            reward: Reward::Constrained { alpha: 1.0, lambda: 2.0 },
            agent: Agent::Edit,
            evaluations: 320,
            loop_examples: 128,
            calibration_examples: 384,
            kappa: Kappa::Scan(16),
            slack: 2.0,
            finalists: 4,
            fine_tune,
            baselines: vec![Baseline::Random, Baseline::Fixed, Baseline::Knapsack],
            patterns: Vec::new(),
        }
    }
}

impl SearchConfig {
    /// Why no search can follow this configuration, if so: the field and what it allows.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: f64, low: f64, high: f64| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(format!("`{name}` lies in [{low}, {high}], not at {value}")),
        };
        if self.version != 1 {
            return Err(format!("`version` is 1, not {}: this program reads no other", self.version));
        }
        if self.space.block_sizes.is_empty() || self.space.precisions.is_empty() {
            return Err("`space` needs at least one block size and one precision".into());
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let name = &self.model.name;
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(is_plain) {
            return Err("`model.name` has 1 to 64 letters, digits, `-`, `_` and `.`, for it names files".into());
        }
        if self.task.name().chars().any(char::is_control) {
            return Err("`task` has a name with a control character".into());
        }
        within("batch", f64::from(self.batch), 1.0, 65_536.0)?;
        within("evaluations", f64::from(self.evaluations), 1.0, 1e6)?;
        within("loop_examples", f64::from(self.loop_examples), 1.0, 1e5)?;
        within("calibration_examples", f64::from(self.calibration_examples), 1.0, 1e5)?;
        match self.kappa {
            Kappa::Scan(count) => within("kappa: Scan", f64::from(count), 4.0, 60.0)?,
            Kappa::Fixed(kappa) => within("kappa: Fixed", kappa, 1e-9, 100.0)?,
        }
        within("slack", self.slack, 1.0, 100.0)?;
        within("finalists", f64::from(self.finalists), 1.0, 16.0)?;
        let (Tolerance::Absolute(tolerance) | Tolerance::Relative(tolerance)) = self.tolerance;
        within("tolerance", tolerance, 1e-6, 1.0)?;
        self.budget.check()?;
        self.reward.check()?;
        self.model.source.check()?;
        self.model.training.check().map_err(|why| format!("`model.training`: {why}"))?;
        self.fine_tune.check().map_err(|why| format!("`fine_tune`: {why}"))
    }

    /// The same with every list in order and without repeats, so that equal searches have equal digests.
    pub fn normalised(mut self) -> Self {
        self.space.block_sizes.sort_unstable();
        self.space.block_sizes.dedup();
        self.space.precisions.sort_unstable();
        self.space.precisions.dedup();
        self.baselines.sort_unstable();
        self.baselines.dedup();
        self.patterns.sort_unstable();
        self.patterns.dedup();
        self
    }
}
