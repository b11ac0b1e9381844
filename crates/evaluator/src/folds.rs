use rand::{SeedableRng, rngs::ChaCha12Rng, seq::SliceRandom};

/// One of the splits of a cross-validation, as places of examples in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    pub train: Vec<usize>,
    pub held_out: Vec<usize>,
}

impl Fold {
    /// How many folds are usual, and made where nobody asks for another number.
    pub const DEFAULT: usize = 5;

    /// Cuts examples into `folds` parts, each of which is held out once.
    ///
    /// Parts are stratified: their sizes differ by at most one example, and so does how many examples of any one class
    /// they hold. Same labels, number and seed: same folds.
    ///
    /// # Panics
    /// When there are fewer than two folds, or fewer examples than folds.
    pub fn stratified(labels: &[u32], folds: usize, seed: u64) -> Vec<Self> {
        assert!((2..=labels.len()).contains(&folds), "{folds} folds of {} examples", labels.len());
        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.shuffle(&mut ChaCha12Rng::seed_from_u64(seed));
        order.sort_by_key(|&at| labels[at]); // stable: shuffled within each class
        // Dealt like cards: neighbours in this order go to different parts.
        let fold = |number: usize| {
            let mut held_out: Vec<usize> = order.iter().skip(number).step_by(folds).copied().collect();
            held_out.sort_unstable();
            let train = (0..labels.len()).filter(|at| held_out.binary_search(at).is_err()).collect();
            Self { train, held_out }
        };
        (0..folds).map(fold).collect()
    }
}
