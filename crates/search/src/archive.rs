use serde::{Deserialize, Serialize};

use crate::Candidate;

/// Members that may be edited further.
const ELITES: usize = 24;

/// An evaluated candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    pub candidate: Candidate,
    /// Dense over this, by the objective; predicted.
    pub speed: f64,
    /// Mean KL divergence in nats from the dense model on the loop's examples.
    pub distortion: f64,
    pub reward: f64,
}

/// The best candidates so far, best first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Archive {
    elites: Vec<Evaluated>,
}

impl Archive {
    /// Adds a candidate if it is among the best; equal rewards keep the older one first.
    pub(crate) fn insert(&mut self, evaluated: Evaluated) {
        let at = self.elites.partition_point(|elite| elite.reward >= evaluated.reward);
        self.elites.insert(at, evaluated);
        self.elites.truncate(ELITES);
    }

    pub(crate) fn best(&self) -> Option<&Evaluated> {
        self.elites.first()
    }

    pub(crate) fn elites(&self) -> &[Evaluated] {
        &self.elites
    }
}
