use serde::{Deserialize, Serialize};

use crate::MaskError;

/// Side of a square attention block, in tokens.
///
/// Files write it as the number itself: `block_size: 16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum BlockSize {
    B8 = 8,
    B16 = 16,
    B32 = 32,
}

impl BlockSize {
    /// Every block size, smallest first.
    pub const ALL: [Self; 3] = [Self::B8, Self::B16, Self::B32];

    /// Tokens along one side.
    pub const fn tokens(self) -> u32 {
        self as u32
    }

    /// Blocks that cover `tokens`; the last one may be ragged.
    ///
    /// ```
    /// # use maskwright_blueprint::BlockSize;
    /// assert_eq!(BlockSize::B16.cover(197), 13); // ViT-B/16: 12 whole blocks and one of 5 tokens
    /// ```
    pub const fn cover(self, tokens: u32) -> u32 {
        tokens.div_ceil(self.tokens())
    }

    /// Tokens that block `index` really holds when it covers `tokens`; the last one may be ragged.
    ///
    /// ```
    /// # use maskwright_blueprint::BlockSize;
    /// assert_eq!(BlockSize::B16.extent(12, 197), 5);
    /// ```
    pub const fn extent(self, index: u32, tokens: u32) -> u32 {
        let rest = tokens.saturating_sub(index * self.tokens());
        if rest < self.tokens() { rest } else { self.tokens() }
    }
}

impl TryFrom<u32> for BlockSize {
    type Error = MaskError;

    fn try_from(tokens: u32) -> Result<Self, MaskError> {
        Self::ALL.into_iter().find(|size| size.tokens() == tokens).ok_or(MaskError::BlockSize { tokens })
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> u32 {
        size.tokens()
    }
}

impl std::fmt::Display for BlockSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tokens().fmt(f)
    }
}
