use super::{Floats, Tensors};

/// The same inputs at several places of memory, with room for outputs at each. Which pages share the sets of a cache is
/// chance, and inputs that fill one take up to 18 % longer at one place than at another; taken in turn, the middle place
/// counts.
pub(crate) struct Placements(Vec<(Tensors, Floats)>);

const PLACES: usize = 8;

/// Values of a tensor at all places together, where one place has no more: 256 MiB of inputs and outputs.
const VALUES_OF_ALL: usize = 1 << 24;

impl Placements {
    /// Tensors of so many values; fewer places where they are so large that hardly a cache holds them.
    pub(crate) fn of_values(values: usize, seed: u64) -> Self {
        Self((0..places(values)).map(|_| (Tensors::of_values(values, seed), Floats::zeroed(values))).collect())
    }

    /// Inputs, and where outputs go, of one sample. Those of one round are at all places in turn, and each mask's are, too, from
    /// round to round: what a place costs is then not taken for what else the machine does (`undisturbed`).
    pub(crate) fn of_sample(&mut self, round: usize, of_round: usize) -> (&Tensors, &mut Floats) {
        let places = self.0.len();
        let (tensors, out) = &mut self.0[(round + of_round) % places];
        (tensors, out)
    }
}

fn places(values: usize) -> usize {
    (VALUES_OF_ALL / values.max(1)).clamp(1, PLACES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_fewer_places_the_larger_the_tensors() {
        assert_eq!([0, 1, 1 << 21, 1 << 22, 1 << 24, 1 << 28].map(places), [8, 8, 8, 4, 1, 1]);
    }

    #[test]
    fn the_samples_of_a_round_and_those_of_a_mask_are_at_every_place() {
        let mut placements = Placements::of_values(16, 1);
        let mut at = |round, of_round| placements.of_sample(round, of_round).0.q.as_ptr();
        let of_round: std::collections::BTreeSet<_> = (0..PLACES).map(|mask| at(3, mask)).collect();
        let of_mask: std::collections::BTreeSet<_> = (0..PLACES).map(|round| at(round, 5)).collect();
        assert_eq!((of_round.len(), of_mask.len()), (PLACES, PLACES));
    }
}
