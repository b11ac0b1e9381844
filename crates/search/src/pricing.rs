use maskwright_blueprint::{AttentionShape, BlockSize, Blueprint, HeadMask, ModelShape, Precision, Predicted};
use maskwright_cost_model::{Cost, CostError, CostModel, Dataflow, DeviceProfile, HeadCost, HeadWork, Softmax, Work};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Candidate;

/// What is to be small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Objective {
    /// Predicted seconds of attention.
    Latency,
    /// Predicted joules of attention.
    Energy,
    /// Predicted joules times seconds.
    EnergyDelay,
}

/// Prices candidates for one model on one device.
pub struct Pricing {
    model: CostModel,
    objective: Objective,
    shape: ModelShape,
    /// What each module costs beside its heads.
    modules: HeadCost,
    /// The finest precision that the device has.
    finest: Precision,
    /// Dense attention by the objective.
    dense: f64,
}

impl Pricing {
    /// Dense attention, what speed is relative to, is taken at the device's finest precision.
    pub fn new(
        device: &DeviceProfile,
        dataflow: Dataflow,
        batch: u32,
        objective: Objective,
        shape: &ModelShape,
    ) -> Result<Self, CostError> {
        let model = CostModel::new(device, dataflow, batch)?;
        let modules = shape.modules.iter().map(|of| model.module(&of.shape, Softmax::Float)).sum();
        let finest = device.precisions().into_iter().max().unwrap_or(Precision::Single);
        let dense = Candidate::from_fn(shape, |_, of| HeadMask::dense(of, BlockSize::B32, finest));
        let mut pricing = Self { model, objective, shape: shape.clone(), modules, finest, dense: 1.0 };
        pricing.dense = pricing.objective_of(&pricing.cost(&dense)?);
        if !(pricing.dense > 0.0 && pricing.dense.is_finite()) {
            let unit = match objective {
                Objective::Latency => "s",
                Objective::Energy => "J",
                Objective::EnergyDelay => "J s",
            };
            return Err(CostError::NoPrice { device: device.name.clone(), what: format!("{} {unit}", pricing.dense) });
        }
        Ok(pricing)
    }

    /// Predicted cost of a candidate's attention.
    pub fn cost(&self, candidate: &Candidate) -> Result<Cost, CostError> {
        let mut sum = self.modules;
        for ((_, of), mask) in self.shape.heads().zip(candidate.masks()) {
            sum = sum + self.model.head(mask, of, Softmax::Float)?;
        }
        Ok(self.model.total([sum]))
    }

    /// How many times as cheap as dense attention at the device's finest precision.
    pub fn speed(&self, candidate: &Candidate) -> Result<f64, CostError> {
        Ok(self.dense / self.objective_of(&self.cost(candidate)?))
    }

    /// What one more active block of this size and precision costs, on average over a head: the price in a knapsack.
    pub fn block_price(&self, of: &AttentionShape, size: BlockSize, precision: Precision) -> Result<f64, CostError> {
        let full = HeadMask::dense(of, size, precision);
        let (rows, columns) = (full.blocks.rows(), full.blocks.columns());
        let first = |at: usize| at.is_multiple_of(columns).then_some(precision);
        let bare = crate::candidate::repaired(of, size, (0..rows * columns).map(first).collect(), |_| 0.0, precision);
        let [full, bare] = [full, bare].map(|mask| HeadWork::of(&mask, of));
        let price = |head: &HeadWork| {
            let head = self.model.head_work(head, of, Softmax::Float)?;
            Ok::<_, CostError>(self.objective_of(&self.model.total([head])))
        };
        let more = (full.active_blocks() - bare.active_blocks()).max(1) as f64;
        Ok((price(&full)? - price(&bare)?).max(f64::MIN_POSITIVE) / more)
    }

    /// Every figure that a blueprint carries.
    pub fn predicted(&self, blueprint: &Blueprint) -> Result<Predicted, CostError> {
        let (work, dense) = (Work::of(blueprint), Work::of(&self.dense(self.finest)));
        let (cost, dense_cost) = (self.model.attention(&work)?, self.model.attention(&dense)?);
        let (whole, dense_whole) = (self.model.end_to_end(&work)?, self.model.end_to_end(&dense)?);
        Ok(Predicted {
            device: self.model.device().into(),
            dataflow: self.model.dataflow().to_string(),
            batch: self.model.batch(),
            seconds: cost.seconds,
            speedup: dense_cost.seconds / cost.seconds,
            end_to_end_speedup: dense_whole.seconds / whole.seconds,
            joules: cost.joules.value,
        })
    }

    /// Nothing skipped, at one precision.
    pub fn dense(&self, precision: Precision) -> Blueprint {
        Blueprint::dense(self.shape.clone(), BlockSize::B32, precision)
    }

    /// The finest precision that the device has.
    pub fn finest(&self) -> Precision {
        self.finest
    }

    fn objective_of(&self, cost: &Cost) -> f64 {
        match self.objective {
            Objective::Latency => cost.seconds.0,
            Objective::Energy => cost.joules.value.0,
            Objective::EnergyDelay => cost.joules.value.0 * cost.seconds.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use maskwright_blueprint::{AttentionKind, Digest, ModuleShape};

    use super::*;

    #[test]
    fn a_block_of_a_causal_head_costs_what_one_of_another_head_does() {
        let of = |kind| AttentionShape { kind, heads: 1, queries: 512, keys: 512, head_dim: 64, windows: 1 };
        let [all, causal] = [AttentionKind::SelfAttention, AttentionKind::CausalSelfAttention].map(of);
        let shape = ModelShape {
            name: "two".into(),
            digest: Digest::of([b"two"]),
            modules: [all, causal].map(|shape| ModuleShape { name: format!("{:?}", shape.kind), shape }).into(),
            linears: vec![],
            elementwise: 0,
        };
        let device = DeviceProfile::named("cpu-avx512").unwrap();
        let pricing = Pricing::new(&device, Dataflow::Flash, 1, Objective::Latency, &shape).unwrap();
        for size in BlockSize::ALL {
            let [all, causal] = [&all, &causal].map(|of| pricing.block_price(of, size, Precision::Int8).unwrap());
            assert!((causal / all - 1.0).abs() < 0.05, "{size}: {causal} and {all}");
        }
    }
}
