use maskwright_blueprint::{BlockSize, Blueprint, HeadMask, Precision};

use crate::ExportError;

/// What a target can express.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    pub block_sizes: &'static [BlockSize],
    pub precisions: &'static [Precision],
    /// Whether the heads of a module may have masks of their own.
    pub per_head: bool,
    /// Whether a query block may attend to later key blocks.
    pub non_causal: bool,
    pub skips_work: SkipsWork,
}

/// Whether a skipped block saves time where the exported form runs. A mask alone is no speed-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipsWork {
    /// The runtime computes active blocks only.
    Yes,
    /// The runtime computes every block and masks the scores afterwards.
    No,
    /// The form is a table; the code that reads it decides.
    AsItsReader,
}

impl Capability {
    /// Every block size, precision and pattern.
    pub const ANY_MASK: Self = Self {
        block_sizes: &BlockSize::ALL,
        precisions: &Precision::ALL,
        per_head: true,
        non_causal: true,
        skips_work: SkipsWork::AsItsReader,
    };

    /// Refuses a blueprint that this target cannot express, naming the first head that it fails on.
    pub fn check(&self, blueprint: &Blueprint) -> Result<(), ExportError> {
        for (head, _) in blueprint.model().heads() {
            let mask = blueprint.mask(head);
            if !self.block_sizes.contains(&mask.block_size) {
                let allowed = self.block_sizes.to_vec();
                return Err(ExportError::BlockSize { head, found: mask.block_size, allowed });
            }
            let unknown = |precision: &Precision| !self.precisions.contains(precision);
            if let Some(found) = mask.blocks.active().map(|(.., precision)| precision).find(unknown) {
                return Err(ExportError::Precision { head, found, allowed: self.precisions.to_vec() });
            }
            if !self.per_head && *mask != blueprint.masks()[head.module as usize][0] {
                return Err(ExportError::PerHead { head });
            }
            if let Some((row, column)) = first_later_block(mask).filter(|_| !self.non_causal) {
                return Err(ExportError::NotCausal { head, row, column });
            }
        }
        Ok(())
    }
}

fn first_later_block(mask: &HeadMask) -> Option<(usize, usize)> {
    mask.blocks.active().map(|(row, column, _)| (row, column)).find(|(row, column)| column > row)
}

impl std::fmt::Display for SkipsWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::No => "no: computed, then masked",
            Self::AsItsReader => "as its reader does",
        })
    }
}
