use serde::{Deserialize, Serialize};

use crate::MaskError;

/// Precision of a block's arithmetic; ordered from coarse to fine.
///
/// Files and pictures write it by its width in bytes: 1, 2 or 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum Precision {
    /// 8-bit integers, symmetric, zero point 0.
    Int8 = 1,
    /// 16-bit floats: bf16 where the device has it, else f16.
    Half = 2,
    /// 32-bit floats.
    Single = 4,
}

impl Precision {
    /// Every precision, coarsest first.
    pub const ALL: [Self; 3] = [Self::Int8, Self::Half, Self::Single];

    /// Bytes of one element.
    pub const fn bytes(self) -> u32 {
        self as u32
    }

    /// The next finer precision; `Single` is the finest and stays.
    pub const fn finer(self) -> Self {
        match self {
            Self::Int8 => Self::Half,
            Self::Half | Self::Single => Self::Single,
        }
    }

    /// Place in [`Precision::ALL`], for tables with one entry a precision.
    pub const fn index(self) -> usize {
        match self {
            Self::Int8 => 0,
            Self::Half => 1,
            Self::Single => 2,
        }
    }

    /// One character, as in pictures and files.
    pub const fn glyph(self) -> char {
        match self {
            Self::Int8 => '1',
            Self::Half => '2',
            Self::Single => '4',
        }
    }
}

impl TryFrom<u32> for Precision {
    type Error = MaskError;

    fn try_from(bytes: u32) -> Result<Self, MaskError> {
        Self::ALL.into_iter().find(|p| p.bytes() == bytes).ok_or(MaskError::Precision { bytes })
    }
}

impl From<Precision> for u32 {
    fn from(precision: Precision) -> u32 {
        precision.bytes()
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Int8 => "8 bit",
            Self::Half => "16 bit",
            Self::Single => "32 bit",
        })
    }
}
