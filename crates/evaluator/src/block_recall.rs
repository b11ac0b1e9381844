use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};

use crate::{Examples, TaskData};

/// Tokens of a sequence; the first is the class token.
const LENGTH: usize = 64;
const SYMBOLS: u32 = 8;
/// The token whose symbol is the label.
const RECALLED: usize = 37;

/// Random sequences whose label is token 37: in blocks of 8, the class token needs block (0, 4) and no other block off
/// the diagonal matters. Without it accuracy is chance, 1 in 8; with it, everything.
///
/// The seed is fixed: the task is the same for every search.
pub(crate) fn generate() -> TaskData {
    let mut generator = ChaCha12Rng::seed_from_u64(37);
    let mut split = |count: usize| {
        let mut sequence = || {
            let class_token = std::iter::once(SYMBOLS);
            class_token.chain((1..LENGTH).map(|_| generator.random_range(0..SYMBOLS))).collect()
        };
        let sequences: Vec<Vec<u32>> = (0..count).map(|_| sequence()).collect();
        let labels = sequences.iter().map(|sequence| sequence[RECALLED]).collect();
        Examples::sequences(&sequences, labels)
    };
    TaskData::new(split(4000), split(1000), split(2000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_about_an_eighth() {
        let data = generate();
        for class in 0..8 {
            let count = data.test.labels().iter().filter(|label| **label == class).count();
            assert!((190..=310).contains(&count), "class {class}: {count} of 2000"); // 250 +- 4 standard deviations
        }
    }
}
