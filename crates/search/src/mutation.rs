use maskwright_cost_model::CostError;
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};

use crate::{
    Candidate,
    archive::{Archive, Evaluated},
    edit::Edit,
    environment::Environment,
    guide::{FEATURES, SizeGuide},
};

/// Deviation of the weights by which blocks are ranked, around "influence alone".
pub(crate) const RANKING_DEVIATION: f32 = 0.5;

/// Share of episodes that start from two parents, window by window.
const CROSSOVER: f64 = 0.3;

/// The weights around which rankings are drawn: the squared influence and nothing else.
pub(crate) const RANKING_PRIOR: [f32; FEATURES] = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];

/// Probability of each edit when nothing was learnt: mostly nothing happens, so that about two windows change.
pub(crate) fn edit_prior(environment: &Environment<'_>) -> Vec<f32> {
    let keep = (1.0 - 2.0 / environment.windows() as f32).clamp(0.5, 0.98);
    let legal: Vec<bool> = Edit::ALL.iter().map(|edit| edit.is_legal(environment.space)).collect();
    let others = legal.iter().skip(1).filter(|legal| **legal).count() as f32;
    let share = |(at, legal): (usize, &bool)| match (at, legal) {
        (0, _) => keep,
        (_, true) => (1.0 - keep) / others,
        (_, false) => 0.0,
    };
    legal.iter().enumerate().map(share).collect()
}

/// How a block ranks under weights of its features.
pub(crate) fn ranked(weights: &[f32], guide: &SizeGuide, block: usize) -> f64 {
    weights.iter().zip(&guide.features[block]).map(|(w, x)| f64::from(w * x)).sum()
}

/// A start for an episode: the better of two archive members, in three of ten cases crossed with another. And that
/// member, as it was before it was crossed.
pub(crate) fn start<'a>(archive: &'a Archive, generator: &mut impl Rng) -> (Candidate, &'a Evaluated) {
    let elites = archive.elites();
    let mut tournament = || {
        let draw = |generator: &mut _| RngExt::random_range(generator, 0..elites.len());
        // The archive is in order: the smaller index is the better member.
        draw(generator).min(draw(generator))
    };
    let (first, second) = (tournament(), tournament());
    let parent = &elites[first];
    let mut child = parent.candidate.clone();
    if first != second && generator.random_bool(CROSSOVER) {
        for (window, mask) in elites[second].candidate.masks().iter().enumerate() {
            if generator.random_bool(0.5) {
                child.set(window, mask.clone());
            }
        }
    }
    (child, parent)
}

/// A candidate edited by chance, each window by the prior: what the searcher does with learning off.
pub(crate) fn mutated(
    environment: &Environment<'_>,
    start: Candidate,
    generator: &mut impl Rng,
) -> Result<Candidate, CostError> {
    let prior = edit_prior(environment);
    let mut draft = environment.reset(start)?;
    for _ in 0..environment.windows() {
        let edit = Edit::ALL[draw(&prior, generator)];
        let weights = ranking(&RANKING_PRIOR, generator);
        let (head, mask) = environment.window(&draft);
        let value = |guide: &SizeGuide, block: usize| ranked(&weights, guide, block);
        let mask = edit.apply(mask, head, environment.space, &value, generator);
        environment.step(&mut draft, mask)?;
    }
    Ok(draft.candidate)
}

/// Weights of block features: Gaussian around `mean`.
pub(crate) fn ranking(mean: &[f32], generator: &mut impl Rng) -> [f32; FEATURES] {
    let mut weights = [0.0; FEATURES];
    for (weight, mean) in weights.iter_mut().zip(mean) {
        let noise: f32 = StandardNormal.sample(generator);
        *weight = mean + RANKING_DEVIATION * noise;
    }
    weights
}

/// One index, by probabilities that add up to 1.
pub(crate) fn draw(probabilities: &[f32], generator: &mut impl Rng) -> usize {
    let mut left: f32 = generator.random();
    let drawn = probabilities.iter().position(|p| {
        left -= p;
        left < 0.0
    });
    let last = || probabilities.iter().rposition(|p| *p > 0.0).expect("some probability is positive");
    drawn.unwrap_or_else(last)
}
