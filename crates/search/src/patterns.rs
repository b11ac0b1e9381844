use maskwright_blueprint::{BlockSize, HeadMask, ModelShape, Precision};

use crate::{Candidate, Space, candidate::repaired};

/// A mask that depends on positions alone, as the literature fixes them.
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

/// Every pattern at every width, size and precision of the space; the same mask for all heads.
pub(crate) fn fixed_patterns(shape: &ModelShape, space: &Space) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for &size in &space.block_sizes {
        let widest = shape.modules.iter().map(|of| size.cover(of.shape.keys)).max().unwrap_or(1) as usize;
        for pattern in patterns(widest) {
            for &precision in &space.precisions {
                candidates.push(candidate(shape, pattern, size, precision));
            }
        }
    }
    candidates
}

fn patterns(widest: usize) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for width in 0..widest.min(8) {
        patterns.push(Pattern::Local { width });
        patterns.push(Pattern::ClassToken { width });
        for stride in 2..6 {
            patterns.push(Pattern::Strided { width, stride });
            patterns.push(Pattern::Fixed { width, stride });
        }
        for random in 1..4 {
            patterns.push(Pattern::BigBird { width, random });
        }
    }
    patterns
}

fn candidate(shape: &ModelShape, pattern: Pattern, size: BlockSize, precision: Precision) -> Candidate {
    Candidate::from_fn(shape, |_, of| -> HeadMask {
        let (rows, columns) = (size.cover(of.queries) as usize, size.cover(of.keys) as usize);
        let cell = |at: usize| pattern.is_active(at / columns, at % columns, columns).then_some(precision);
        // A pattern for square masks may leave rows of a rectangular one empty; they keep what lies on the diagonal.
        let cells = (0..rows * columns).map(cell).collect();
        repaired(of, size, cells, |at| -((at / columns).abs_diff(at % columns) as f64), precision)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
