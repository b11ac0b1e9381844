use maskwright_blueprint::{HeadMask, ModelShape};
use maskwright_cost_model::CostError;

use crate::{
    Budget, Candidate, Guide, Pricing, Reward, Space,
    candidate::repaired,
    edit::commonest,
    guide::{HeadGuide, SizeGuide},
};

/// Width of an [`Observation`].
pub(crate) const OBSERVATION: usize = 8 + 3 + 3 + 7;

/// What a policy sees before each step: the histogram of the window's attention logits, what the window holds (one-hot
/// block size, shares of precisions), its density and place, the candidate's density, the share of the budget in use, and
/// the last reward.
pub(crate) type Observation = [f32; OBSERVATION];

/// One episode: the windows of a candidate, one after another, each open to one action. A window is one head.
///
/// The budget is a wall: what an action would put beyond it is taken back, least valued blocks first, in the window that
/// was acted on. The log-probability that is learnt from is that of what the policy drew.
pub(crate) struct Environment<'a> {
    pub shape: &'a ModelShape,
    pub guide: &'a Guide,
    pub pricing: &'a Pricing,
    pub space: &'a Space,
    pub budget: Budget,
    pub reward: Reward,
}

/// A candidate between two steps.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub candidate: Candidate,
    window: usize,
    /// Dense over this, by the objective; predicted.
    pub speed: f64,
    last_reward: f64,
}

impl Environment<'_> {
    /// A new episode that starts from a candidate within the budget.
    pub(crate) fn reset(&self, start: Candidate) -> Result<Draft, CostError> {
        let speed = self.pricing.speed(&start)?;
        Ok(Draft { candidate: start, window: 0, speed, last_reward: 0.0 })
    }

    /// Windows of an episode.
    pub(crate) fn windows(&self) -> usize {
        self.guide.heads().len()
    }

    /// The window that the next step acts on, and its mask.
    pub(crate) fn window<'d>(&self, draft: &'d Draft) -> (&HeadGuide, &'d HeadMask) {
        (&self.guide.heads()[draft.window], &draft.candidate.masks()[draft.window])
    }

    pub(crate) fn observe(&self, draft: &Draft) -> Observation {
        let (head, mask) = self.window(draft);
        let active = mask.blocks.active().count() as f32;
        let modules = self.shape.modules.len() as f32;
        let mut seen = Vec::with_capacity(OBSERVATION);
        seen.extend(&head.histogram);
        seen.extend(maskwright_blueprint::BlockSize::ALL.map(|size| if size == mask.block_size { 1.0 } else { 0.0 }));
        seen.extend(
            maskwright_blueprint::Precision::ALL
                .map(|precision| mask.blocks.active().filter(|(_, _, p)| *p == precision).count() as f32 / active),
        );
        seen.extend([
            mask.blocks.density() as f32,
            head.id.module as f32 / modules,
            head.id.head as f32 / head.shape.heads as f32,
            draft.window as f32 / self.windows() as f32,
            draft.candidate.density(self.shape) as f32,
            (self.budget.used(&draft.candidate, self.shape) / self.budget.limit()) as f32,
            draft.last_reward as f32,
        ]);
        seen.try_into().expect("an observation has its parts")
    }

    /// Puts `mask` into the draft's window, within the budget, and goes on to the next window. Returns the change of the
    /// reward's speed part by this step alone.
    pub(crate) fn step(&self, draft: &mut Draft, mask: HeadMask) -> Result<f64, CostError> {
        let before = draft.candidate.masks()[draft.window].clone();
        if mask != before {
            draft.candidate.set(draft.window, mask);
            self.keep_within_budget(&mut draft.candidate, draft.window);
            // A window that cannot give enough back, since its rows keep their blocks, stays as it was.
            if self.budget.used(&draft.candidate, self.shape) > self.budget.limit() {
                draft.candidate.set(draft.window, before.clone());
            }
        }
        let changed = draft.candidate.masks()[draft.window] != before;
        let speed = if changed { self.pricing.speed(&draft.candidate)? } else { draft.speed };
        let reward = self.reward.speed_part(speed) - self.reward.speed_part(draft.speed);
        (draft.speed, draft.last_reward) = (speed, reward);
        draft.window = (draft.window + 1) % self.windows();
        Ok(reward)
    }

    /// A candidate with every window thinned, most used first, until it keeps within the budget; none when even one block
    /// a row is too much.
    pub(crate) fn within_budget(&self, mut candidate: Candidate) -> Option<Candidate> {
        for _ in 0..=self.windows() {
            let used = self.budget.used(&candidate, self.shape);
            if used <= self.budget.limit() {
                return Some(candidate);
            }
            let keep = self.budget.limit() / used;
            for window in 0..self.windows() {
                let goal = self.used_by(&candidate, window) * keep;
                let thinned = self.thinned(&candidate.masks()[window], window, goal);
                candidate.set(window, thinned);
            }
            let of = |window: &usize| self.used_by(&candidate, *window);
            let fullest = (0..self.windows()).max_by(|a, b| of(a).total_cmp(&of(b)))?;
            self.keep_within_budget(&mut candidate, fullest);
        }
        // Windows whose block size cannot give enough give up their masks, one after another.
        let sparsest = self.sparsest();
        for window in 0..self.windows() {
            if self.budget.used(&candidate, self.shape) <= self.budget.limit() {
                break;
            }
            candidate.set(window, sparsest.masks()[window].clone());
        }
        (self.budget.used(&candidate, self.shape) <= self.budget.limit()).then_some(candidate)
    }

    /// The sparsest masks within reach, whatever the budget.
    pub(crate) fn sparsest(&self) -> Candidate {
        let heads = self.guide.heads();
        self.budget.sparsest(self.shape, self.space, |head, size, block| influence(heads[head].at(size), block))
    }

    fn used_by(&self, candidate: &Candidate, window: usize) -> f64 {
        let module = self.guide.heads()[window].id.module as usize;
        self.budget.used_by(&candidate.masks()[window], self.shape, module)
    }

    /// Takes blocks back from one window until the candidate keeps within the budget, or the window has no more to give.
    fn keep_within_budget(&self, candidate: &mut Candidate, window: usize) {
        let used = self.budget.used(candidate, self.shape);
        if used > self.budget.limit() {
            let own = self.used_by(candidate, window);
            let thinned = self.thinned(&candidate.masks()[window], window, own - (used - self.budget.limit()));
            candidate.set(window, thinned);
        }
    }

    /// A mask without its least influential blocks, using at most `goal` of the budget if its rows allow.
    fn thinned(&self, mask: &HeadMask, window: usize, goal: f64) -> HeadMask {
        let head = &self.guide.heads()[window];
        let guide = head.at(mask.block_size);
        let mut cells = mask.blocks.cells().to_vec();
        let mut active: Vec<usize> = (0..cells.len()).filter(|at| cells[*at].is_some()).collect();
        active.sort_by(|a, b| guide.skip[*a].total_cmp(&guide.skip[*b]));
        let rebuilt =
            |cells: &[_]| repaired(&head.shape, mask.block_size, cells.to_vec(), |at| guide.skip[at], commonest(mask));
        let module = head.id.module as usize;
        let mut thinned = mask.clone();
        // In strides, for masks of thousands of blocks: each stride is rebuilt and measured once.
        let stride = active.len().div_ceil(64);
        for stride in active.chunks(stride.max(1)) {
            if self.budget.used_by(&thinned, self.shape, module) <= goal {
                break;
            }
            for at in stride {
                cells[*at] = None;
            }
            thinned = rebuilt(&cells);
        }
        thinned
    }
}

/// How the unlearned searchers rank blocks: by influence.
pub(crate) fn influence(guide: &SizeGuide, block: usize) -> f64 {
    guide.skip[block]
}
