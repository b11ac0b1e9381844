use std::ops::Range;

use maskwright_blueprint::{AttentionShape, BlockSize, HeadMask, ModelShape, Precision};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Candidate, Space, candidate::repaired};

/// Masks that depend on positions alone, as the literature fixes them: the same for all heads, at any width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum PatternFamily {
    /// What is near (Longformer, Beltagy et al. 2020, arXiv 2004.05150).
    Local,
    /// What is near, and what is a multiple of so many blocks away (Sparse Transformer, Child et al. 2019, arXiv 1904.10509).
    Strided,
    /// What is near, and the last column of every so many (the same).
    Fixed,
    /// What is near, the first row and column, and columns by chance (BigBird, Zaheer et al. 2020, arXiv 2007.14062).
    BigBird,
    /// What is near, and the first row and column.
    ClassToken,
}

impl PatternFamily {
    /// The row of a search's answer that has a mask of this family.
    pub(crate) fn row(self) -> &'static str {
        match self {
            Self::Local => "pattern-local",
            Self::Strided => "pattern-strided",
            Self::Fixed => "pattern-fixed",
            Self::BigBird => "pattern-bigbird",
            Self::ClassToken => "pattern-class-token",
        }
    }
}

/// A mask of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    /// Blocks within `width` of the diagonal (Longformer's window).
    Local { width: usize },
    /// The local window and every `stride`-th column counted from the diagonal (Sparse Transformer, strided).
    Strided { width: usize, stride: usize },
    /// The local window and the last column of every `stride` (Sparse Transformer, fixed).
    Fixed { width: usize, stride: usize },
    /// First row and column, window, and `random` columns a row by a fixed hash (BigBird).
    BigBird { width: usize, random: usize },
    /// The class token's row and column, and the diagonal.
    ClassToken { width: usize },
}

impl Pattern {
    fn family(self) -> PatternFamily {
        match self {
            Self::Local { .. } => PatternFamily::Local,
            Self::Strided { .. } => PatternFamily::Strided,
            Self::Fixed { .. } => PatternFamily::Fixed,
            Self::BigBird { .. } => PatternFamily::BigBird,
            Self::ClassToken { .. } => PatternFamily::ClassToken,
        }
    }

    fn is_active(self, row: usize, column: usize, columns: usize) -> bool {
        let near = |width: usize| row.abs_diff(column) <= width;
        match self {
            Self::Local { width } => near(width),
            Self::Strided { width, stride } => near(width) || row.abs_diff(column).is_multiple_of(stride),
            Self::Fixed { width, stride } => near(width) || column % stride == stride - 1,
            Self::BigBird { width, random } => {
                // Knuth's multiplicative hash: the same "random" columns for every search.
                let hashed = |draw: usize| ((row * 31 + draw + 1).wrapping_mul(2_654_435_761) >> 7) % columns;
                near(width) || row == 0 || column == 0 || (0..random).any(|draw| hashed(draw) == column)
            }
            Self::ClassToken { width } => row == 0 || column == 0 || (width > 0 && near(width - 1)),
        }
    }
}

/// One pattern in blocks of one size and precision, the same for all heads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FixedMask {
    pattern: Pattern,
    size: BlockSize,
    precision: Precision,
}

impl FixedMask {
    pub(crate) fn candidate(self, shape: &ModelShape) -> Candidate {
        let Self { pattern, size, precision } = self;
        let mut made: Vec<(AttentionShape, HeadMask)> = Vec::new();
        Candidate::from_fn(shape, |_, of| -> HeadMask {
            if let Some((_, mask)) = made.iter().find(|(shape, _)| shape == of) {
                return mask.clone();
            }
            let (rows, columns) = (size.cover(of.queries) as usize, size.cover(of.keys) as usize);
            let cell = |at: usize| pattern.is_active(at / columns, at % columns, columns).then_some(precision);
            // A pattern for square masks may leave rows of a rectangular one empty; they keep what lies on the diagonal.
            let cells = (0..rows * columns).map(cell).collect();
            let mask = repaired(of, size, cells, |at| -((at / columns).abs_diff(at % columns) as f64), precision);
            made.push((*of, mask.clone()));
            mask
        })
    }
}

/// Strides of the patterns that a baseline tries.
const STRIDES: Range<usize> = 2..6;

/// Strides beyond which a pattern is hardly sparser.
const MOST_STRIDE: usize = 32;

/// Every pattern at every width, size and precision of the space.
pub(crate) fn fixed_patterns(shape: &ModelShape, space: &Space) -> Vec<FixedMask> {
    let mut masks = Vec::new();
    for &size in &space.block_sizes {
        for pattern in patterns(widest(shape, size), STRIDES) {
            masks.extend(space.precisions.iter().map(|&precision| FixedMask { pattern, size, precision }));
        }
    }
    masks
}

/// The masks of a family whose density is nearest to those of `like`, in the precision that most of its scores have.
pub(crate) fn nearest_in_density(
    family: PatternFamily,
    like: &Candidate,
    shape: &ModelShape,
    space: &Space,
) -> Candidate {
    let precision = commonest_precision(like, shape);
    let of_size = |&size: &BlockSize| {
        let widest = widest(shape, size);
        let all = patterns(widest, STRIDES.start..widest.clamp(STRIDES.start, MOST_STRIDE) + 1).into_iter();
        all.filter(|pattern| pattern.family() == family).map(move |pattern| FixedMask { pattern, size, precision })
    };
    let density = like.density(shape);
    let all = space.block_sizes.iter().flat_map(of_size).map(|mask| mask.candidate(shape));
    let distance = |of: Candidate| ((of.density(shape) - density).abs(), of);
    let nearest = all.map(distance).min_by(|(a, _), (b, _)| a.total_cmp(b));
    nearest.expect("a space has block sizes, and each family a mask of each").1
}

/// The precision of most scores; the coarser of two that are equally common.
fn commonest_precision(of: &Candidate, shape: &ModelShape) -> Precision {
    let scores = |precision: Precision| -> u64 {
        let of_head = |((_, of), mask): ((_, &AttentionShape), &HeadMask)| {
            let scores = |row: usize, column: usize| {
                let size = mask.block_size;
                u64::from(size.extent(row as u32, of.queries)) * u64::from(size.extent(column as u32, of.keys))
            };
            let alike = mask.blocks.active().filter(|(_, _, other)| *other == precision);
            u64::from(of.windows) * alike.map(|(row, column, _)| scores(row, column)).sum::<u64>()
        };
        shape.heads().zip(of.masks()).map(of_head).sum()
    };
    Precision::ALL.into_iter().rev().max_by_key(|precision| scores(*precision)).expect("there are three precisions")
}

/// Blocks in the longest row of keys.
fn widest(shape: &ModelShape, size: BlockSize) -> usize {
    shape.modules.iter().map(|of| size.cover(of.shape.keys)).max().unwrap_or(1) as usize
}

fn patterns(widest: usize, strides: Range<usize>) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for width in 0..widest.min(8) {
        patterns.push(Pattern::Local { width });
        patterns.push(Pattern::ClassToken { width });
        for stride in strides.clone() {
            patterns.push(Pattern::Strided { width, stride });
            patterns.push(Pattern::Fixed { width, stride });
        }
        for random in 1..4 {
            patterns.push(Pattern::BigBird { width, random });
        }
    }
    patterns
}

#[cfg(test)]
mod tests {
    use maskwright_blueprint::{AttentionKind, Digest, ModuleShape};

    use super::*;

    fn one_head(tokens: u32) -> ModelShape {
        let kind = AttentionKind::SelfAttention;
        let shape = AttentionShape { kind, heads: 1, queries: tokens, keys: tokens, head_dim: 8, windows: 1 };
        let modules = vec![ModuleShape { name: "only".into(), shape }];
        ModelShape { name: "m".into(), digest: Digest::of(["m"]), modules, linears: vec![], elementwise: 0 }
    }

    #[test]
    fn each_family_has_masks_about_as_dense_as_others_in_their_commonest_precision() {
        let (shape, space) =
            (one_head(128), Space { block_sizes: BlockSize::ALL.into(), precisions: Precision::ALL.into() });
        let local =
            |size, precision| FixedMask { pattern: Pattern::Local { width: 0 }, size, precision }.candidate(&shape);
        // A quarter of all scores, and a sixteenth.
        for like in [local(BlockSize::B32, Precision::Int8), local(BlockSize::B8, Precision::Single)] {
            use PatternFamily::{BigBird, ClassToken, Fixed, Local, Strided};
            for (family, most) in [(Local, 0.0), (Strided, 0.07), (Fixed, 0.07), (BigBird, 0.2), (ClassToken, 0.12)] {
                let found = nearest_in_density(family, &like, &shape, &space);
                let distance = (found.density(&shape) - like.density(&shape)).abs();
                assert!(distance <= most, "{family:?} at {}, not {}", found.density(&shape), like.density(&shape));
                assert_eq!(commonest_precision(&found, &shape), commonest_precision(&like, &shape), "{family:?}");
            }
        }
    }

    #[test]
    fn a_single_block_has_a_mask_of_every_family() {
        let (shape, space) =
            (one_head(8), Space { block_sizes: BlockSize::ALL.into(), precisions: Precision::ALL.into() });
        let only = FixedMask { pattern: Pattern::Local { width: 0 }, size: BlockSize::B8, precision: Precision::Half };
        let only = only.candidate(&shape);
        use PatternFamily::{BigBird, ClassToken, Fixed, Local, Strided};
        for family in [Local, Strided, Fixed, BigBird, ClassToken] {
            assert_eq!(nearest_in_density(family, &only, &shape, &space), only, "{family:?}");
        }
    }

    fn picture(pattern: Pattern) -> String {
        let row = |row| (0..6).map(|column| if pattern.is_active(row, column, 6) { '#' } else { '.' }).collect();
        (0..6).map(row).collect::<Vec<String>>().join("\n")
    }

    #[test]
    fn patterns_look_as_in_their_papers() {
        assert_eq!(picture(Pattern::Local { width: 1 }), "##....\n###...\n.###..\n..###.\n...###\n....##");
        assert_eq!(picture(Pattern::ClassToken { width: 1 }), "######\n##....\n#.#...\n#..#..\n#...#.\n#....#");
        assert_eq!(picture(Pattern::Strided { width: 0, stride: 3 }), "#..#..\n.#..#.\n..#..#\n#..#..\n.#..#.\n..#..#");
        assert_eq!(picture(Pattern::Fixed { width: 0, stride: 3 }), "#.#..#\n.##..#\n..#..#\n..##.#\n..#.##\n..#..#");
    }
}
