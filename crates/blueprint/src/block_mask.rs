use std::{fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};

use crate::Precision;

/// Which key blocks each query block attends to, and how precisely.
///
/// Shape: `[query_blocks][key_blocks]`; `None` is a skipped block. Every row keeps at least one active block, so a
/// masked softmax always has a term. Text form: a row a line, one glyph a block, its width in bytes, `.` for skipped.
///
/// ```
/// # use maskwright_blueprint::BlockMask;
/// let mask: BlockMask = "4.\n12".parse()?;
/// assert_eq!(mask.density(), 0.75);
/// # Ok::<(), maskwright_blueprint::MaskError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "Vec<String>")]
pub struct BlockMask {
    columns: usize,
    cells: Vec<Option<Precision>>,
}

/// Why a mask, block size or precision was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MaskError {
    #[error("block size is 8, 16 or 32 tokens, not {tokens}")]
    BlockSize { tokens: u32 },
    #[error("precision is 1, 2 or 4 bytes per element, not {bytes}")]
    Precision { bytes: u32 },
    #[error("query block {row} attends to no key block: its softmax has no terms; keep at least one block a row")]
    EmptyRow { row: usize },
    #[error(
        "`{}` in row {row} is no precision: use 1, 2 or 4 (bytes per element), or `.` for a skipped block",
        glyph.escape_debug()
    )]
    Glyph { glyph: char, row: usize },
    #[error("row {row} has {found} blocks, the rows before it have {expected}")]
    Ragged { row: usize, found: usize, expected: usize },
    #[error("a mask has at least one row and one column")]
    NoBlocks,
    #[error("{found} cells do not make rows of {columns} blocks")]
    Cells { found: usize, columns: usize },
    #[error(
        "query block {row} attends to no key block at or left of the diagonal: under a causal mask or right padding \
         its softmax has no terms"
    )]
    NothingBeforeDiagonal { row: usize },
    #[error(
        "{found_rows} x {found_columns} blocks of {block_size} tokens do not cover {queries} x {keys} tokens: that takes {rows} x {columns}"
    )]
    Shape { found_rows: usize, found_columns: usize, block_size: u32, queries: u32, keys: u32, rows: u32, columns: u32 },
}

impl BlockMask {
    /// From cells in row order; refuses empty rows.
    pub fn new(columns: usize, cells: Vec<Option<Precision>>) -> Result<Self, MaskError> {
        if columns == 0 || cells.is_empty() {
            return Err(MaskError::NoBlocks);
        }
        if !cells.len().is_multiple_of(columns) {
            return Err(MaskError::Cells { found: cells.len(), columns });
        }
        match cells.chunks(columns).position(|row| row.iter().all(Option::is_none)) {
            Some(row) => Err(MaskError::EmptyRow { row }),
            None => Ok(Self { columns, cells }),
        }
    }

    /// Every block active at one precision.
    ///
    /// # Panics
    /// When `rows` or `columns` is zero.
    pub fn dense(rows: usize, columns: usize, precision: Precision) -> Self {
        assert!(rows > 0 && columns > 0, "a mask has at least one row and one column");
        Self { columns, cells: vec![Some(precision); rows * columns] }
    }

    /// Query blocks.
    pub fn rows(&self) -> usize {
        self.cells.len() / self.columns
    }

    /// Key blocks.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The block of query block `row` and key block `column`.
    pub fn get(&self, row: usize, column: usize) -> Option<Precision> {
        self.row(row)[column]
    }

    /// The blocks of one query block, left to right.
    pub fn row(&self, row: usize) -> &[Option<Precision>] {
        &self.cells[row * self.columns..(row + 1) * self.columns]
    }

    /// All blocks in row order.
    pub fn cells(&self) -> &[Option<Precision>] {
        &self.cells
    }

    /// Active blocks as `(row, column, precision)`, in row order.
    pub fn active(&self) -> impl Iterator<Item = (usize, usize, Precision)> + '_ {
        self.cells.iter().enumerate().filter_map(|(at, cell)| Some((at / self.columns, at % self.columns, (*cell)?)))
    }

    /// Active share of the blocks, in (0, 1]. Ragged blocks count like whole ones; for the share of scores see
    /// [`HeadMask::active_scores`](crate::HeadMask::active_scores).
    pub fn density(&self) -> f64 {
        self.active().count() as f64 / self.cells.len() as f64
    }

    /// Refuses a mask in which some row has no block at or left of the diagonal, in tokens: what self-attention needs
    /// under causal masks and right padding. Only for square masks.
    pub(crate) fn keeps_the_past(&self) -> Result<(), MaskError> {
        let empty =
            (0..self.rows()).find(|&row| self.row(row)[..=row.min(self.columns - 1)].iter().all(Option::is_none));
        match empty {
            Some(row) => Err(MaskError::NothingBeforeDiagonal { row }),
            None => Ok(()),
        }
    }
}

impl FromStr for BlockMask {
    type Err = MaskError;

    fn from_str(text: &str) -> Result<Self, MaskError> {
        let mut rows = Rows::default();
        for line in text.lines() {
            rows.push(line.trim())?;
        }
        rows.finish()
    }
}

/// A list of rows. Each is checked as it is read, so that an error points at the row that is wrong.
impl<'de> Deserialize<'de> for BlockMask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RowsVisitor;

        impl<'de> Visitor<'de> for RowsVisitor {
            type Value = BlockMask;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of rows such as [\"1.\", \"41\"]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<BlockMask, A::Error> {
                let mut rows = Rows::default();
                while let Some(row) = list.next_element::<String>()? {
                    rows.push(&row).map_err(A::Error::custom)?;
                }
                rows.finish().map_err(A::Error::custom)
            }
        }

        deserializer.deserialize_seq(RowsVisitor)
    }
}

/// The rows of a mask's text form that were read so far.
#[derive(Default)]
struct Rows {
    count: usize,
    columns: usize,
    cells: Vec<Option<Precision>>,
}

impl Rows {
    fn push(&mut self, glyphs: &str) -> Result<(), MaskError> {
        let (row, start) = (self.count, self.cells.len());
        for glyph in glyphs.chars() {
            self.cells.push(match glyph {
                '.' => None,
                '1' => Some(Precision::Int8),
                '2' => Some(Precision::Half),
                '4' => Some(Precision::Single),
                _ => return Err(MaskError::Glyph { glyph, row }),
            });
        }
        let found = self.cells.len() - start;
        if row == 0 {
            self.columns = found;
        }
        if found != self.columns {
            return Err(MaskError::Ragged { row, found, expected: self.columns });
        }
        if self.cells[start..].iter().all(Option::is_none) {
            return Err(MaskError::EmptyRow { row });
        }
        self.count += 1;
        Ok(())
    }

    fn finish(self) -> Result<BlockMask, MaskError> {
        BlockMask::new(self.columns, self.cells)
    }
}

impl From<BlockMask> for Vec<String> {
    fn from(mask: BlockMask) -> Self {
        mask.to_string().lines().map(String::from).collect()
    }
}

impl fmt::Display for BlockMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, row) in self.cells.chunks(self.columns).enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            for cell in row {
                write!(f, "{}", cell.map_or('.', Precision::glyph))?;
            }
        }
        Ok(())
    }
}

/// The picture itself: a failed assertion then shows two masks that can be compared by eye.
impl fmt::Debug for BlockMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}\n")
    }
}
