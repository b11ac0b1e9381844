use std::collections::BTreeSet;

use maskwright_blueprint::Digest;
use maskwright_cost_model::CostError;
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};

use crate::{
    Candidate, Evaluated, Limit, Reward,
    archive::Archive,
    edit_agent::{EditAgent, EditEpisode},
    environment::Environment,
    knapsack::reweighted,
    mutation::{mutated, start},
    random_stream::{Purpose, random_stream},
    searcher::{KnapsackSearcher, Proposal, Searcher},
    surrogate::{Surrogate, surrogate_features},
};

/// Proposals from which the surrogate picks one to evaluate.
const SCREEN: usize = 8;

/// Updates in a row without a new candidate after which there is nothing more to find.
const MOST_STALE: u32 = 40;

/// Share of the proposals that the policy makes; adapts within these bounds to who improves the best.
const SHARES: (f64, f64) = (0.25, 0.75);

/// Share of the proposals by chance that are the knapsack's with each head's influence weighted anew.
const REWEIGHTED: f64 = 0.5;

/// Of the logarithm of a head's new weight.
const LARGEST_DEVIATION: f64 = 0.8;

/// A knapsack scan, then edits of archive members, by a policy and by chance, screened by a surrogate.
///
/// How much of a distortion fine-tuning wins back is known only at the end, so batches take turns in aiming at several
/// limits: whichever a finalist has to keep, the search has looked for the fastest candidate within it.
pub(crate) struct EditSearcher {
    seed: u64,
    scan: KnapsackSearcher,
    scan_left: usize,
    agent: Option<EditAgent>,
    reward: Reward,
    targets: Vec<Target>,
    /// The target of the next batch.
    turn: usize,
    seen: BTreeSet<Digest>,
    surrogate: Surrogate,
    /// Proposals made so far: the index of the next one's random stream.
    proposals: u64,
    policy_share: f64,
    stale: u32,
    asked: Vec<Asked>,
}

/// A limit to aim at, and the best candidates by it.
struct Target {
    limit: Limit,
    archive: Archive,
}

/// What was asked last: who proposed it, and the policy's episode if it was the policy.
struct Asked {
    origin: &'static str,
    episode: Option<EditEpisode>,
}

impl EditSearcher {
    /// A knapsack scan of `scanned` candidates first; then edits, learnt from unless `agent` is none, towards each of
    /// `limits` in turn.
    pub(crate) fn new(
        seed: u64,
        scan: KnapsackSearcher,
        scanned: usize,
        agent: Option<EditAgent>,
        reward: Reward,
        limits: &[Limit],
    ) -> Self {
        let target = |limit: &Limit| Target { limit: *limit, archive: Archive::default() };
        Self {
            seed,
            scan,
            scan_left: scanned,
            policy_share: if agent.is_some() { 0.5 } else { 0.0 },
            agent,
            reward,
            targets: limits.iter().map(target).collect(),
            turn: 0,
            seen: BTreeSet::new(),
            surrogate: Surrogate::default(),
            proposals: 0,
            stale: 0,
            asked: Vec::new(),
        }
    }

    /// New candidates, `SCREEN` for each that will be asked for: the policy's share and the rest by chance.
    fn propose(&mut self, environment: &Environment<'_>, count: usize) -> Result<Vec<(Candidate, Asked)>, CostError> {
        let mut generators: Vec<_> =
            (0..count as u64).map(|at| random_stream(self.seed, Purpose::Proposals, self.proposals + at)).collect();
        self.proposals += count as u64;
        let by_policy: Vec<bool> = generators.iter_mut().map(|g| g.random_bool(self.policy_share)).collect();
        let (mut starts, mut learned, mut chance) = (Vec::new(), Vec::new(), Vec::new());
        for (mut generator, by_policy) in generators.into_iter().zip(by_policy) {
            let (candidate, parent) = start(&self.target().archive, &mut generator);
            let Some(candidate) = environment.within_budget(candidate) else { continue };
            if by_policy {
                starts.push((candidate, parent.reward - self.reward.speed_part(parent.speed)));
                learned.push(generator);
            } else if generator.random_bool(REWEIGHTED) {
                chance.extend(self.reweighted(environment, &mut generator));
            } else {
                chance.push(mutated(environment, candidate, &mut generator)?);
            }
        }
        let mut proposals = Vec::with_capacity(count);
        if let Some(agent) = self.agent.as_ref().filter(|_| !starts.is_empty()) {
            for episode in agent.propose(environment, starts, &mut learned)? {
                let asked = Asked { origin: "policy", episode: Some(episode.clone()) };
                proposals.push((episode.candidate, asked));
            }
        }
        proposals.extend(chance.into_iter().map(|candidate| (candidate, Asked { origin: "unlearned", episode: None })));
        Ok(proposals)
    }

    /// The knapsack's answer when it trusts some heads' influence more than others'. An edit of one head leaves the set of
    /// masks that are best for their price; this does not.
    fn reweighted(&self, environment: &Environment<'_>, generator: &mut impl Rng) -> Option<Candidate> {
        let (low, high) = self.scan.around_best()?;
        let lambda = low * (high / low).powf(generator.random());
        let deviation = generator.random_range(0.0..LARGEST_DEVIATION);
        let lambda = || {
            let noise: f64 = StandardNormal.sample(generator);
            lambda * (deviation * noise).exp()
        };
        environment.within_budget(reweighted(environment.guide, environment.space, lambda))
    }

    /// Guessed reward: the price is known, the distortion is the surrogate's guess.
    fn guess(&self, environment: &Environment<'_>, candidate: &Candidate) -> Result<f64, CostError> {
        let distortion = self.surrogate.predict(&surrogate_features(candidate, environment.guide));
        let speed = environment.pricing.speed(candidate)?;
        let limit = self.target().limit;
        Ok(self.reward.score(speed, distortion.unwrap_or(limit.kappa), limit))
    }

    fn target(&self) -> &Target {
        &self.targets[self.turn]
    }
}

impl Searcher for EditSearcher {
    fn ask(&mut self, environment: &Environment<'_>, most: usize) -> Result<Vec<Proposal>, CostError> {
        self.asked.clear();
        if self.scan_left > 0 {
            let proposals = self.scan.ask(environment, most.min(self.scan_left))?;
            self.scan_left = if proposals.is_empty() { 0 } else { self.scan_left.saturating_sub(proposals.len()) };
            if !proposals.is_empty() {
                return Ok(proposals);
            }
        }
        while self.stale < MOST_STALE && self.target().archive.best().is_some() {
            let mut fresh = Vec::new();
            let mut fresh_digests = BTreeSet::new();
            for (candidate, asked) in self.propose(environment, most * SCREEN)? {
                let digest = candidate.digest();
                if !self.seen.contains(&digest) && fresh_digests.insert(digest) {
                    fresh.push((self.guess(environment, &candidate)?, candidate, asked));
                }
            }
            if fresh.is_empty() {
                self.stale += 1;
                continue;
            }
            self.stale = 0;
            fresh.sort_by(|a, b| b.0.total_cmp(&a.0));
            fresh.truncate(most);
            let mut proposals = Vec::with_capacity(fresh.len());
            for (_, candidate, asked) in fresh {
                proposals.push(Proposal { candidate, origin: asked.origin });
                self.asked.push(asked);
            }
            return Ok(proposals);
        }
        Ok(Vec::new())
    }

    fn tell(&mut self, environment: &Environment<'_>, results: &[Evaluated]) {
        if self.asked.is_empty() {
            self.scan.tell(environment, results);
        }
        let asked = std::mem::take(&mut self.asked);
        let Target { limit, archive } = self.target();
        let reward = |result: &Evaluated| self.reward.score(result.speed, result.distortion, *limit);
        let best = archive.best().map_or(f64::NEG_INFINITY, |best| best.reward);
        let rewards: Vec<f64> = results.iter().map(reward).collect();
        if let Some(agent) = &mut self.agent {
            let mut episodes = Vec::new();
            for (reward, asked) in rewards.iter().zip(&asked) {
                // Whoever improves the best proposes more; the bounds keep both alive.
                if *reward > best {
                    let goal = if asked.episode.is_some() { SHARES.1 } else { SHARES.0 };
                    self.policy_share += 0.2 * (goal - self.policy_share);
                }
                episodes.extend(asked.episode.as_ref().map(|episode| (episode, *reward)));
            }
            agent.learn(environment, &episodes);
        }
        for result in results {
            self.seen.insert(result.candidate.digest());
            self.surrogate.add(&surrogate_features(&result.candidate, environment.guide), result.distortion);
            for Target { limit, archive } in &mut self.targets {
                let reward = self.reward.score(result.speed, result.distortion, *limit);
                archive.insert(Evaluated { reward, ..result.clone() });
            }
        }
        if !asked.is_empty() {
            self.turn = (self.turn + 1) % self.targets.len();
        }
        self.surrogate.fit();
    }
}
