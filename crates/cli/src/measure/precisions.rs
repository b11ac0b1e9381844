use std::{fmt, str::FromStr};

use maskwright_blueprint::Precision;

/// Shares of a mask's blocks by precision, as the command line writes them: `fp32`, `bf16`, `int8`, `mixed`, or shares of
/// a hundred from coarse to fine, `40/40/20`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Precisions {
    /// In the order of [`Precision::ALL`]; they add up to 100.
    percent: [u32; 3],
}

/// Why a text says no precisions.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is no precision: use fp32, bf16, int8, mixed, or the shares of 8, 16 and 32 bit in a hundred, such as \
     40/40/20"
)]
pub(crate) struct PrecisionsError {
    given: String,
}

const NAMES: [(&str, [u32; 3]); 4] =
    [("int8", [100, 0, 0]), ("bf16", [0, 100, 0]), ("fp32", [0, 0, 100]), ("mixed", [40, 40, 20])];

impl Precisions {
    /// Precisions of `blocks` blocks, coarse ones first; shares are rounded so that none is lost.
    pub(crate) fn of_blocks(self, blocks: usize) -> impl Iterator<Item = Precision> {
        let [int8, half, _] = self.percent.map(|percent| percent as usize);
        let first = (blocks * int8).div_ceil(100).min(blocks);
        let second = (blocks * (int8 + half)).div_ceil(100).clamp(first, blocks);
        (0..blocks).map(move |at| match at {
            _ if at < first => Precision::Int8,
            _ if at < second => Precision::Half,
            _ => Precision::Single,
        })
    }
}

impl FromStr for Precisions {
    type Err = PrecisionsError;

    fn from_str(text: &str) -> Result<Self, PrecisionsError> {
        let error = || PrecisionsError { given: text.into() };
        if let Some((_, percent)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(Self { percent: *percent });
        }
        let parts: Vec<u32> = text.split('/').map(str::parse).collect::<Result<_, _>>().map_err(|_| error())?;
        let percent: [u32; 3] = parts.try_into().map_err(|_| error())?;
        match percent.iter().try_fold(0_u32, |sum, part| sum.checked_add(*part)) {
            Some(100) => Ok(Self { percent }),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Precisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [int8, half, single] = self.percent;
        match NAMES.iter().find(|(name, percent)| *percent == self.percent && *name != "mixed") {
            Some((name, _)) => f.pad(name),
            None => f.pad(&format!("{int8}/{half}/{single}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_shares_are_two_ways_to_say_the_same() {
        for (text, shown) in
            [("int8", "int8"), ("100/0/0", "int8"), ("fp32", "fp32"), ("mixed", "40/40/20"), ("10/20/70", "10/20/70")]
        {
            assert_eq!(text.parse::<Precisions>().unwrap().to_string(), shown);
        }
        for text in ["", "fp16", "40/40", "40/40/30", "40/-40/100", "4294967295/1/100"] {
            assert!(text.parse::<Precisions>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_of_blocks_are_exact_where_they_can_be() {
        let count = |blocks| {
            let all: Vec<_> = "mixed".parse::<Precisions>().unwrap().of_blocks(blocks).collect();
            Precision::ALL.map(|of| all.iter().filter(|precision| **precision == of).count())
        };
        assert_eq!(count(100), [40, 40, 20]);
        assert_eq!(count(1), [1, 0, 0]);
        assert_eq!(count(3), [2, 1, 0]); // 1.2, 1.2 and .6 blocks
    }
}
