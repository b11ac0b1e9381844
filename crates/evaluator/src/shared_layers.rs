use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use burn::tensor::{Device, Tensor};
use maskwright_blueprint::{Blueprint, Digest, ModelShape};
use maskwright_transformer::{Attention, CompiledMasks, Midway, Model};
use rayon::prelude::*;

use crate::{
    Examples, ImageFolderError,
    class_scores::{batches, in_order},
};

/// What is remembered between calls takes at most this much memory, in bytes. A call itself holds, for each batch that is
/// under way, two states a candidate.
const MOST_BYTES: usize = 1 << 29;

/// Runs candidates through one model side by side. Up to the first layer in which two have different masks they compute
/// the same numbers, so that is done once, whether the other one comes in the same call or came shortly before.
#[derive(Debug, Default)]
pub(crate) struct SharedLayers {
    kept: Mutex<Kept>,
    /// Layers of all batches and candidates, and those of them that had to be computed.
    asked: AtomicU64,
    computed: AtomicU64,
}

/// States between layers, by batch and by all masks below.
#[derive(Debug, Default)]
struct Kept {
    states: BTreeMap<(usize, Digest), (u64, Midway)>,
    /// By when they were used last.
    order: BTreeSet<(u64, (usize, Digest))>,
    clock: u64,
    bytes: usize,
}

impl SharedLayers {
    /// Class scores `[answers, classes]` of each candidate, to the bit those of [`Model::forward`]. Always of the same
    /// model and examples.
    pub(crate) fn logits(
        &self,
        model: &Model,
        shape: &ModelShape,
        examples: &Examples,
        candidates: &[Blueprint],
    ) -> Result<Vec<Tensor<2>>, ImageFolderError> {
        let device = model.device();
        let candidates: Vec<_> = candidates.iter().map(|of| Masked::new(model, of, &device)).collect();
        let batches = batches(examples, shape);
        let run = |(number, batch): (usize, &Vec<usize>)| self.run(model, examples, &candidates, number, batch);
        let parts: Result<Vec<Vec<Tensor<2>>>, _> = batches.par_iter().enumerate().map(run).collect();
        let parts = parts?;
        let of = |candidate: usize| parts.iter().map(|part| part[candidate].clone()).collect();
        Ok((0..candidates.len()).map(|candidate| in_order(of(candidate), &batches, examples)).collect())
    }

    /// Share of the layers that did not have to be computed, of all asked for so far.
    pub(crate) fn reused(&self) -> f64 {
        let (asked, computed) = (self.asked.load(Relaxed), self.computed.load(Relaxed));
        1.0 - computed as f64 / asked.max(1) as f64
    }

    /// Class scores of one batch by each candidate.
    fn run(
        &self,
        model: &Model,
        examples: &Examples,
        candidates: &[Masked],
        number: usize,
        batch: &[usize],
    ) -> Result<Vec<Tensor<2>>, ImageFolderError> {
        let inputs = examples.batch(batch, &model.device())?;
        let mut states = self.known(number, candidates);
        if candidates.iter().any(|of| !of.below.iter().any(|below| states.contains_key(below))) {
            states.insert(nothing(), model.begin(&inputs));
        }
        // Where each candidate goes on: above the last layer whose outcome is known.
        let known = |of: &Masked| of.below.iter().rposition(|below| states.contains_key(below)).unwrap_or(0);
        let starts: Vec<usize> = candidates.iter().map(known).collect();
        for at in 0..model.layers() {
            let arrived = candidates.iter().zip(&starts).filter(|(_, start)| **start <= at);
            let missing = arrived.filter(|(of, _)| !states.contains_key(&of.below[at + 1]));
            let missing: BTreeMap<Digest, &Masked> = missing.map(|(of, _)| (of.below[at + 1], of)).collect();
            self.asked.fetch_add(candidates.len() as u64, Relaxed);
            self.computed.fetch_add(missing.len() as u64, Relaxed);
            let compute = |(below, of): (&Digest, &&Masked)| {
                let from = states[&of.below[at]].clone();
                (*below, model.layer(at, from, &inputs, &mut Attention::Masked(&of.masks)))
            };
            let computed: Vec<(Digest, Midway)> = missing.par_iter().map(compute).collect();
            states.extend(computed);
            // Nobody in this call comes back to where all have been. The same masks altogether are not asked for again,
            // so what the last layer gives is not kept.
            let left = candidates.iter().filter_map(|of| Some((of.below[at], states.remove(&of.below[at])?)));
            self.keep(number, left.collect());
        }
        let last = |of: &Masked| states[&of.below[model.layers()]].clone();
        Ok(candidates.par_iter().map(|of| model.finish(last(of), &inputs)).collect())
    }

    /// For each candidate, what is known of the highest layer.
    fn known(&self, number: usize, candidates: &[Masked]) -> BTreeMap<Digest, Midway> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut highest =
            |of: &Masked| of.below.iter().rev().find_map(|below| Some((*below, kept.get(number, *below)?)));
        candidates.iter().filter_map(&mut highest).collect()
    }

    fn keep(&self, number: usize, states: Vec<(Digest, Midway)>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        states.into_iter().for_each(|(below, state)| kept.insert(number, below, state));
    }
}

/// A candidate with, for each layer, what tells the masks of all layers below it apart; the last entry is about all.
struct Masked {
    masks: CompiledMasks,
    below: Vec<Digest>,
}

impl Masked {
    fn new(model: &Model, blueprint: &Blueprint, device: &Device) -> Self {
        let mut below = vec![nothing()];
        for layer in 0..model.layers() {
            let masks = &blueprint.masks()[model.modules_of(layer)];
            let so_far = below[layer].to_string();
            below.push(Digest::of([so_far, format!("{masks:?}")]));
        }
        Self { masks: CompiledMasks::new(blueprint, device), below }
    }
}

/// No masks at all: below the first layer.
fn nothing() -> Digest {
    Digest::of::<&str>([])
}

impl Kept {
    fn get(&mut self, number: usize, below: Digest) -> Option<Midway> {
        let key = (number, below);
        let (used, state) = self.states.get_mut(&key)?;
        self.clock += 1;
        self.order.remove(&(*used, key));
        self.order.insert((self.clock, key));
        *used = self.clock;
        Some(state.clone())
    }

    fn insert(&mut self, number: usize, below: Digest, state: Midway) {
        if self.get(number, below).is_some() || state.bytes() > MOST_BYTES {
            return;
        }
        let key = (number, below);
        self.clock += 1;
        self.bytes += state.bytes();
        self.order.insert((self.clock, key));
        self.states.insert(key, (self.clock, state));
        while self.bytes > MOST_BYTES {
            let (_, oldest) = self.order.pop_first().expect("what takes memory is in order");
            let (_, state) = self.states.remove(&oldest).expect("what is in order is kept");
            self.bytes -= state.bytes();
        }
    }
}
