use maskwright_blueprint::{BlockMask, HeadMask, ModelShape};
use maskwright_cost_model::CostError;
use rand::{RngExt, seq::SliceRandom};

use crate::{
    Candidate, Evaluated,
    candidate::{keepers, repaired},
    environment::Environment,
    knapsack::knapsack,
    patterns::{FixedMask, fixed_patterns},
    random_stream::{Purpose, random_stream},
};

/// A candidate that wants to be evaluated.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Proposal {
    pub candidate: Candidate,
    /// What proposed it, for the record.
    pub origin: &'static str,
}

/// What proposes candidates and learns from their evaluation: the search and every baseline alike.
///
/// A searcher depends on nothing but its configuration and what it was told, so a run is repeated by telling it the same
/// again: that is how a killed run resumes.
pub(crate) trait Searcher {
    /// At most `most` candidates; none when there are no more. One that was asked for before is not evaluated again.
    fn ask(&mut self, environment: &Environment<'_>, most: usize) -> Result<Vec<Proposal>, CostError>;

    /// How the last proposals did, in their order.
    fn tell(&mut self, environment: &Environment<'_>, results: &[Evaluated]);
}

/// Masks by chance: each draws its own density, and each head its own size and precision.
pub(crate) struct RandomSearcher {
    seed: u64,
    drawn: u64,
}

impl RandomSearcher {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }
}

impl Searcher for RandomSearcher {
    fn ask(&mut self, environment: &Environment<'_>, most: usize) -> Result<Vec<Proposal>, CostError> {
        let mut proposals = Vec::with_capacity(most);
        // A budget that chance nearly never meets ends the search instead of holding it up.
        let last = self.drawn + 100 * most as u64;
        while proposals.len() < most && self.drawn < last {
            let candidate = random_candidate(environment, self.seed, self.drawn);
            self.drawn += 1;
            if let Some(candidate) = environment.within_budget(candidate) {
                proposals.push(Proposal { candidate, origin: "random" });
            }
        }
        Ok(proposals)
    }

    fn tell(&mut self, _: &Environment<'_>, _: &[Evaluated]) {}
}

fn random_candidate(environment: &Environment<'_>, seed: u64, index: u64) -> Candidate {
    let mut generator = random_stream(seed, Purpose::Baseline, index);
    let density: f64 = generator.random();
    let space = environment.space;
    Candidate::from_fn(environment.shape, |_, of| {
        let size = space.block_sizes[generator.random_range(0..space.block_sizes.len())];
        let precision = space.precisions[generator.random_range(0..space.precisions.len())];
        let columns = size.cover(of.keys) as usize;
        let cells = (0..size.cover(of.queries) as usize * columns)
            .map(|_| generator.random_bool(density).then_some(precision))
            .collect();
        // A row left empty keeps its block on the diagonal.
        repaired(of, size, cells, |at| -((at / columns).abs_diff(at % columns) as f64), precision)
    })
}

/// A random mask like another: in each row of each head as many blocks of each precision, elsewhere.
pub(crate) fn shuffled(shape: &ModelShape, like: &Candidate, seed: u64) -> Candidate {
    let mut generator = random_stream(seed, Purpose::Baseline, u64::MAX);
    Candidate::from_fn(shape, |head, of| {
        let mask = &like.masks()[head];
        let columns = mask.blocks.columns();
        let mut cells = Vec::with_capacity(mask.blocks.cells().len());
        for row in 0..mask.blocks.rows() {
            let mut shuffled = mask.blocks.row(row).to_vec();
            shuffled.shuffle(&mut generator);
            let kept = keepers(of, row, columns);
            if shuffled[..kept].iter().all(Option::is_none) {
                let active = shuffled.iter().position(Option::is_some).expect("a row of a mask has a block");
                shuffled.swap(active, generator.random_range(0..kept));
            }
            cells.extend(shuffled);
        }
        let blocks = BlockMask::new(columns, cells).expect("every row has as many blocks as before");
        HeadMask { block_size: mask.block_size, blocks }
    })
}

/// What was all known beforehand: the fixed patterns, in an order that mixes widths, sizes and precisions.
pub(crate) struct FixedSearcher {
    left: Vec<FixedMask>,
}

impl FixedSearcher {
    pub(crate) fn new(environment: &Environment<'_>, seed: u64) -> Self {
        let mut left = fixed_patterns(environment.shape, environment.space);
        left.shuffle(&mut random_stream(seed, Purpose::Baseline, u64::MAX - 1));
        Self { left }
    }
}

impl Searcher for FixedSearcher {
    fn ask(&mut self, environment: &Environment<'_>, most: usize) -> Result<Vec<Proposal>, CostError> {
        let fits =
            |candidate: &Candidate| environment.budget.used(candidate, environment.shape) <= environment.budget.limit();
        let mut proposals = Vec::with_capacity(most);
        while proposals.len() < most
            && let Some(mask) = self.left.pop()
        {
            let candidate = mask.candidate(environment.shape);
            if fits(&candidate) {
                proposals.push(Proposal { candidate, origin: "fixed" });
            }
        }
        proposals.reverse(); // as they were shuffled
        Ok(proposals)
    }

    fn tell(&mut self, _: &Environment<'_>, _: &[Evaluated]) {}
}

/// Gaps of the knapsack's scan that are halved at a time.
const GAPS: usize = 8;

/// Multipliers on each side of the best one that are taken for its neighbours.
const NEIGHBOURS: usize = 2;

/// A scan of the knapsack's multiplier, then ever finer.
pub(crate) struct KnapsackSearcher {
    /// Multipliers and their rewards, in order of the multiplier.
    told: Vec<(f64, f64)>,
    asked: Vec<f64>,
    waiting: Vec<f64>,
}

impl KnapsackSearcher {
    pub(crate) fn new(multipliers: &[f64]) -> Self {
        Self { told: Vec::new(), asked: Vec::new(), waiting: multipliers.iter().rev().copied().collect() }
    }

    /// The multipliers between which the best one so far lies, neighbours in the scan; none before the first answer.
    pub(crate) fn around_best(&self) -> Option<(f64, f64)> {
        let best = self.best()?;
        let last = self.told.len() - 1;
        Some((self.told[best.saturating_sub(NEIGHBOURS)].0, self.told[(best + NEIGHBOURS).min(last)].0))
    }

    fn best(&self) -> Option<usize> {
        (0..self.told.len()).max_by(|a, b| self.told[*a].1.total_cmp(&self.told[*b].1))
    }

    /// Halves the widest gaps, in logarithm, below the best multiplier and its next neighbour: an ever finer scan of all
    /// that a choice after fine-tuning may need.
    fn refine(&mut self) {
        let Some(best) = self.best() else { return };
        let useful = &self.told[..(best + 2).min(self.told.len())];
        let mut gaps: Vec<(f64, f64)> = useful.windows(2).map(|pair| (pair[0].0, pair[1].0)).collect();
        gaps.retain(|(low, high)| high / low > 1.0 + 1e-6);
        gaps.sort_by(|a, b| (b.1 / b.0).total_cmp(&(a.1 / a.0)));
        self.waiting.extend(gaps.iter().take(GAPS).map(|(low, high)| (low * high).sqrt()));
    }
}

impl Searcher for KnapsackSearcher {
    fn ask(&mut self, environment: &Environment<'_>, most: usize) -> Result<Vec<Proposal>, CostError> {
        if self.waiting.is_empty() {
            self.refine();
        }
        self.asked.clear();
        let mut proposals = Vec::new();
        while proposals.len() < most
            && let Some(lambda) = self.waiting.pop()
        {
            let candidate = knapsack(environment.guide, environment.space, lambda);
            if let Some(candidate) = environment.within_budget(candidate) {
                self.asked.push(lambda);
                proposals.push(Proposal { candidate, origin: "scan" });
            }
        }
        Ok(proposals)
    }

    fn tell(&mut self, _: &Environment<'_>, results: &[Evaluated]) {
        self.told.extend(self.asked.drain(..).zip(results.iter().map(|result| result.reward)));
        self.told.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.told.dedup_by(|a, b| a.0 == b.0);
    }
}
