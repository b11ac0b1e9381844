use super::{Floats, Tensors};

/// The same inputs at several places of memory, with room for outputs at each. Which pages share the sets of a cache is
/// chance, and inputs that fill one take up to a sixth longer at one place than at another; taken in turn, the
/// middle place counts.
pub(crate) struct Placements(Vec<(Tensors, Floats)>);

const PLACES: usize = 8;

/// Values at all places together, where one has no more: 256 MiB of inputs and outputs.
const MOST_VALUES: usize = 1 << 24;

impl Placements {
    /// Tensors of so many values; fewer places where they are so large that hardly a cache holds them.
    pub(crate) fn of_values(values: usize, seed: u64) -> Self {
        let places = (MOST_VALUES / values.max(1)).clamp(1, PLACES);
        Self((0..places).map(|_| (Tensors::of_values(values, seed), Floats::zeroed(values))).collect())
    }

    /// Inputs, and where outputs go, of one round of measurements.
    pub(crate) fn of_round(&mut self, round: usize) -> (&Tensors, &mut Floats) {
        let places = self.0.len();
        let (tensors, out) = &mut self.0[round % places];
        (tensors, out)
    }
}
