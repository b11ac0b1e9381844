//! How examples are ordered and parted where a task leaves it open.

use crate::{Fold, TaskError};

/// Draws the order of the examples: files are often sorted by label, and searches look at the first ones.
pub(crate) const ORDER_SEED: u64 = 0;

/// Parts of the training examples of which one validates, where a task has no validation split.
const PARTS: usize = 10;

/// Places of the training examples that stay, and of a tenth of each class for validation.
pub(crate) fn part_off(labels: &[u32]) -> Result<Fold, TaskError> {
    match labels.len() < PARTS {
        true => Err(TaskError::TooFew { found: labels.len() }),
        false => Ok(Fold::stratified(labels, PARTS, ORDER_SEED).swap_remove(0)),
    }
}
