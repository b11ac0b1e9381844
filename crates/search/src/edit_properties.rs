//! Properties that every edit, every budget and every searcher's candidates must keep.

use maskwright_blueprint::{
    AttentionKind, AttentionShape, BlockSize, Digest, HeadMask, ModelShape, ModuleShape, Precision, Provenance,
};
use maskwright_cost_model::{Dataflow, DeviceProfile};
use maskwright_evaluator::{BlockStatistics, Calibration, HeadStatistics};
use proptest::prelude::*;

use crate::{
    Budget, Candidate, Evaluated, Guide, Limit, Objective, Pricing, Reward, Space,
    edit::Edit,
    edit_searcher::EditSearcher,
    environment::Environment,
    guide::SizeGuide,
    knapsack::{knapsack, multipliers, reweighted},
    mutation::mutated,
    random_stream::{Purpose, random_stream},
    searcher::{KnapsackSearcher, RandomSearcher, Searcher, shuffled},
};

fn shape(tokens: u32, heads: u32) -> ModelShape {
    let shape = AttentionShape {
        kind: AttentionKind::SelfAttention,
        heads,
        queries: tokens,
        keys: tokens,
        head_dim: 16,
        windows: 1,
    };
    ModelShape {
        name: "test".into(),
        digest: Digest::of(["test"]),
        modules: (0..2).map(|layer| ModuleShape { name: format!("block.{layer}.attention"), shape }).collect(),
        linears: Vec::new(),
        elementwise: 0,
    }
}

/// Statistics in which influence falls with the distance from the diagonal, differently in each head.
fn calibration(shape: &ModelShape) -> Calibration {
    let head = |head: usize, of: &AttentionShape| {
        let blocks = |size: BlockSize| {
            let (rows, columns) = (size.cover(of.queries) as usize, size.cover(of.keys) as usize);
            let influence: Vec<f32> = (0..rows * columns)
                .map(|at| (-((at / columns).abs_diff(at % columns) as f32) - 0.1 * (head * at % 7) as f32).exp())
                .collect();
            let rounding = |share: f32| influence.iter().map(|x| share * x).collect::<Vec<f32>>();
            BlockStatistics {
                rows,
                columns,
                mass: influence.clone(),
                variance: influence.clone(),
                rounding: [rounding(1e-2), rounding(1e-4), rounding(0.0)],
                influence,
            }
        };
        HeadStatistics::new([0.125; 8], BlockSize::ALL.map(blocks))
    };
    let modules = shape.modules.iter().enumerate();
    Calibration::new(
        modules.map(|(m, of)| (0..of.shape.heads as usize).map(|h| head(4 * m + h, &of.shape)).collect()).collect(),
        1,
    )
}

struct World {
    shape: ModelShape,
    guide: Guide,
    pricing: Pricing,
    space: Space,
}

impl World {
    fn new(tokens: u32, heads: u32) -> Self {
        Self::of(shape(tokens, heads))
    }

    fn of(shape: ModelShape) -> Self {
        let space = Space { block_sizes: BlockSize::ALL.into(), precisions: Precision::ALL.into() };
        let device = DeviceProfile::named("rk3588s2").unwrap();
        let pricing = Pricing::new(&device, Dataflow::Flash, 1, Objective::Latency, &shape).unwrap();
        let guide = Guide::new(&calibration(&shape), &pricing, &shape, &space).unwrap();
        Self { shape, guide, pricing, space }
    }

    fn environment(&self, budget: Budget) -> Environment<'_> {
        let Self { shape, guide, pricing, space } = self;
        Environment { shape, guide, pricing, space, budget, reward: Reward::Constrained { alpha: 1.0, lambda: 2.0 } }
    }

    /// A candidate is a blueprint of this model: the type checks everything else.
    fn check(&self, candidate: &Candidate, budget: Budget) {
        candidate.blueprint(&self.shape, Provenance::default());
        let used = budget.used(candidate, &self.shape);
        assert!(used <= budget.limit(), "{used} of {budget}");
    }
}

#[test]
fn a_budget_that_some_masks_keep_is_kept() {
    let mut shape = shape(16, 2);
    for module in &mut shape.modules {
        (module.shape.kind, module.shape.keys) = (AttentionKind::CrossAttention, 17); // the last block is one key wide
    }
    let world = World::of(shape);
    let budget = Budget::Density(1.0 / 17.0);
    assert!((budget.least(&world.shape, &world.space) - 1.0 / 17.0).abs() < 1e-12);
    let dense = Candidate::from_fn(&world.shape, |_, of| HeadMask::dense(of, BlockSize::B8, Precision::Single));
    let found = world.environment(budget).within_budget(dense).unwrap();
    world.check(&found, budget);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_edit_of_every_mask_fits_its_head(tokens in 9u32..80, seed in 0u64..1000, value in -1.0f64..1.0) {
        let world = World::new(tokens, 2);
        let environment = world.environment(Budget::Density(1.0));
        let mut searcher = RandomSearcher::new(seed);
        let start = searcher.ask(&environment, 1).unwrap().remove(0).candidate;
        let mut generator = random_stream(seed, Purpose::Actions, 0);
        let rank = |_: &SizeGuide, block: usize| (block as f64 * value).sin();
        for edit in Edit::ALL {
            for (head, mask) in world.guide.heads().iter().zip(start.masks()) {
                let edited: HeadMask = edit.apply(mask, head, &world.space, &rank, &mut generator);
                prop_assert!(edited.check(&head.shape).is_ok(), "{edit:?}");
                let (before, after) = (mask.blocks.active().count(), edited.blocks.active().count());
                match edit {
                    Edit::Keep | Edit::Requantise(_) => prop_assert_eq!(before, after),
                    Edit::GrowLittle | Edit::GrowMuch => prop_assert!(after >= before),
                    Edit::ShrinkLittle | Edit::ShrinkMuch => prop_assert!(after <= before),
                    Edit::Resize(size) => prop_assert_eq!(edited.block_size, size),
                    Edit::Swap | Edit::Flip => {}
                }
            }
        }
    }

    #[test]
    fn no_searcher_passes_the_budget(tokens in 17u32..80, seed in 0u64..1000, share in 0.0f64..1.0) {
        let world = World::new(tokens, 2);
        let least = Budget::Density(1.0).least(&world.shape, &world.space);
        let sparsest = world.environment(Budget::Density(1.0)).sparsest();
        prop_assert!((sparsest.density(&world.shape) - least).abs() < 1e-12);
        let budget = Budget::Density(least + share * (1.0 - least));
        let environment = world.environment(budget);
        for proposal in RandomSearcher::new(seed).ask(&environment, 4).unwrap() {
            world.check(&proposal.candidate, budget);
            let mut generator = random_stream(seed, Purpose::Proposals, 0);
            let child = mutated(&environment, proposal.candidate.clone(), &mut generator).unwrap();
            world.check(&child, budget);
            let control = shuffled(&world.shape, &child, seed);
            let blocks = |of: &Candidate| of.masks().iter().map(|mask| mask.blocks.active().count()).sum::<usize>();
            prop_assert_eq!(blocks(&control), blocks(&child));
        }
    }
}

#[test]
fn budgets_in_blocks_and_bytes_are_met_by_larger_or_smaller_blocks() {
    let world = World::new(65, 4);
    for budget in [Budget::Blocks(30), Budget::Blocks(100), Budget::Bytes(6000), Budget::Bytes(40_000)] {
        assert!(budget.least(&world.shape, &world.space) <= budget.limit());
        let environment = world.environment(budget);
        let proposals = RandomSearcher::new(1).ask(&environment, 8).unwrap();
        assert_eq!(proposals.len(), 8, "{budget}");
        proposals.iter().for_each(|proposal| world.check(&proposal.candidate, budget));
    }
}

#[test]
fn a_dearer_multiplier_never_buys_more() {
    let world = World::new(65, 4);
    let mut before = f64::INFINITY;
    for lambda in multipliers(&world.guide, &world.space, 12) {
        let candidate = knapsack(&world.guide, &world.space, lambda);
        let seconds = world.pricing.cost(&candidate).unwrap().seconds.0;
        assert!(seconds <= before * 1.0001, "{seconds} after {before}");
        before = seconds;
    }
}

#[test]
fn the_same_seed_draws_the_same_candidates_and_another_seed_others() {
    let world = World::new(65, 4);
    let environment = world.environment(Budget::Density(0.6));
    let draw = |seed| RandomSearcher::new(seed).ask(&environment, 8).unwrap();
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(4));
}

#[test]
fn a_head_weighted_anew_gets_what_the_knapsack_gives_it_at_that_multiplier() {
    let world = World::new(65, 4);
    let all = multipliers(&world.guide, &world.space, 8);
    let mut next = all.iter().copied();
    let mixed = reweighted(&world.guide, &world.space, || next.next().unwrap());
    for (head, lambda) in all.iter().enumerate() {
        assert_eq!(mixed.masks()[head], knapsack(&world.guide, &world.space, *lambda).masks()[head]);
    }
}

#[test]
fn edits_keep_the_budget_and_beat_the_scan_that_they_start_from() {
    let world = World::new(65, 4);
    let budget = Budget::Density(0.5);
    let environment = world.environment(budget);
    let scan = multipliers(&world.guide, &world.space, 12);
    let limit = Limit { kappa: 0.5, tolerance: 0.01 };
    let reward = Reward::Constrained { alpha: 1.0, lambda: 2.0 };
    let mut searcher = EditSearcher::new(3, KnapsackSearcher::new(&scan), 12, None, reward, &[limit]);
    // Every other head matters ten times as much as its influence says.
    let distortion = |of: &Candidate| -> f64 {
        let lost = of.masks().iter().zip(world.guide.heads()).enumerate().map(|(at, (mask, head))| {
            let size = head.at(mask.block_size);
            let lost: f64 = mask.blocks.cells().iter().enumerate().map(|(block, cell)| size.loss(block, *cell)).sum();
            lost / size.skip.iter().sum::<f64>() * if at % 2 == 0 { 1.0 } else { 10.0 }
        });
        lost.sum::<f64>() / 8.0
    };
    let (mut scanned, mut edited) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    for _ in 0..30 {
        let proposals = searcher.ask(&environment, 8).unwrap();
        let results: Vec<Evaluated> = proposals
            .iter()
            .map(|proposal| {
                world.check(&proposal.candidate, budget);
                let speed = environment.pricing.speed(&proposal.candidate).unwrap();
                let distortion = distortion(&proposal.candidate);
                let reward = reward.score(speed, distortion, limit);
                let best = if proposal.origin == "scan" { &mut scanned } else { &mut edited };
                *best = best.max(reward);
                Evaluated { candidate: proposal.candidate.clone(), speed, distortion, reward }
            })
            .collect();
        searcher.tell(&environment, &results);
    }
    assert!(edited > scanned + 0.05, "{edited} after {scanned}");
}
