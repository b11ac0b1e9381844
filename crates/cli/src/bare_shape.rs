//! Attention without a model around it, as the command line writes it.

use std::{collections::BTreeMap, str::FromStr};

use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, MaskError, Precision, nearest};

/// `batch=64,heads=12,tokens=4096,head_dim=64`: attention that is priced without a blueprint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BareShape {
    /// Examples at once; 1 unless given.
    pub(crate) batch: u32,
    /// Cross-attention when `keys` is given.
    pub(crate) shape: AttentionShape,
    /// The device's finest unless given.
    pub(crate) precision: Option<Precision>,
    pub(crate) block_size: Option<BlockSize>,
}

/// What a shape may say.
const KEYS: [&str; 7] = ["heads", "tokens", "head_dim", "batch", "keys", "precision", "block_size"];

/// Why a text is no shape.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum BareShapeError {
    #[error("`{part}` is no part of a shape: write `key=number`, with commas between, such as `{EXAMPLE}`")]
    Part { part: String },
    #[error("a shape has no `{key}`: {help}")]
    Key { key: String, help: String },
    #[error("`{key}` is given twice")]
    Twice { key: String },
    #[error("`{key}` is a whole number from 1 to {}, not `{value}`", u32::MAX)]
    Number { key: String, value: String },
    #[error("`{key}` is missing: a shape says at least `{EXAMPLE}`")]
    Missing { key: &'static str },
    #[error(transparent)]
    Mask(#[from] MaskError),
}

const EXAMPLE: &str = "heads=12,tokens=512,head_dim=64";

impl FromStr for BareShape {
    type Err = BareShapeError;

    fn from_str(text: &str) -> Result<Self, BareShapeError> {
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        for part in text.split(',').map(str::trim) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(BareShapeError::Part { part: part.into() });
            };
            if !KEYS.contains(&key) {
                return Err(BareShapeError::Key { key: key.into(), help: nearest(key, &KEYS) });
            }
            let number = value.parse().ok().filter(|number| *number > 0);
            let number = number.ok_or_else(|| BareShapeError::Number { key: key.into(), value: value.into() })?;
            if numbers.insert(key, number).is_some() {
                return Err(BareShapeError::Twice { key: key.into() });
            }
        }
        let needed = |key| numbers.get(key).copied().ok_or(BareShapeError::Missing { key });
        let (heads, queries, head_dim) = (needed("heads")?, needed("tokens")?, needed("head_dim")?);
        let (kind, keys) = match numbers.get("keys") {
            Some(keys) => (AttentionKind::CrossAttention, *keys),
            None => (AttentionKind::SelfAttention, queries),
        };
        Ok(Self {
            batch: numbers.get("batch").copied().unwrap_or(1),
            shape: AttentionShape { kind, heads, queries, keys, head_dim, windows: 1 },
            precision: numbers.get("precision").map(|bytes| Precision::try_from(*bytes)).transpose()?,
            block_size: numbers.get("block_size").map(|tokens| BlockSize::try_from(*tokens)).transpose()?,
        })
    }
}

/// `12 heads of width 64, 512 x 77 tokens`.
pub(crate) fn in_words(shape: &AttentionShape) -> String {
    let AttentionShape { kind, heads, queries, keys, head_dim, .. } = shape;
    let plural = if *heads == 1 { "" } else { "s" };
    let causal = if *kind == AttentionKind::CausalSelfAttention { ", causal" } else { "" };
    format!("{heads} head{plural} of width {head_dim}, {queries} x {keys} tokens{causal}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_make_it_cross_attention() {
        let shape: BareShape = "heads=12, tokens=512, head_dim=64, keys=77, precision=1".parse().unwrap();
        assert_eq!((shape.batch, shape.precision, shape.block_size), (1, Some(Precision::Int8), None));
        assert_eq!((shape.shape.kind, shape.shape.queries, shape.shape.keys), (AttentionKind::CrossAttention, 512, 77));
        assert_eq!(in_words(&shape.shape), "12 heads of width 64, 512 x 77 tokens");
        let causal = AttentionShape { kind: AttentionKind::CausalSelfAttention, keys: 512, ..shape.shape };
        assert_eq!(in_words(&causal), "12 heads of width 64, 512 x 512 tokens, causal");
    }

    #[test]
    fn whatever_is_no_shape_is_answered_with_what_is_allowed() {
        let refused = |text: &str| text.parse::<BareShape>().unwrap_err().to_string();
        for (text, says) in [
            ("", "`` is no part of a shape: write `key=number`"),
            ("heads=12,tokens=512", "`head_dim` is missing"),
            ("heads=12,token=512,head_dim=64", "a shape has no `token`: did you mean `tokens`?"),
            ("heads=0,tokens=512,head_dim=64", "`heads` is a whole number from 1 to 4294967295, not `0`"),
            ("heads=-1,tokens=512,head_dim=64", "not `-1`"),
            ("heads=1.5,tokens=512,head_dim=64", "not `1.5`"),
            ("heads=12,heads=12,tokens=512,head_dim=64", "`heads` is given twice"),
            ("heads=12,tokens=512,head_dim=64,block_size=24", "block size is 8, 16 or 32 tokens, not 24"),
            ("heads=12,tokens=512,head_dim=64,precision=3", "1, 2 or 4"),
        ] {
            let error = refused(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
