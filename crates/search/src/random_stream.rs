use rand::{SeedableRng, rngs::ChaCha12Rng};

/// What random numbers are drawn for; each purpose has its own sequence.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Proposals = 1,
    Actions = 2,
    Network = 3,
    Baseline = 4,
}

/// One generator for each (seed, purpose, index): what one episode draws never shifts what another draws.
pub(crate) fn random_stream(seed: u64, purpose: Purpose, index: u64) -> ChaCha12Rng {
    let mut generator = ChaCha12Rng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose as u64);
    generator.set_stream(index);
    generator
}
