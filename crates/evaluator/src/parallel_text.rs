use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    gzip::open_unpacked,
    text_table::{Lines, Records, TextTableError},
};

/// More text than this is not kept at once: some five million sentence pairs.
const MOST_TEXT_BYTES: usize = 1 << 30;

/// How to read sentences with their translations.
///
/// Text is UTF-8, with or without a byte order mark; each file may be gzipped, whatever its name. Space at the ends of a
/// sentence is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum ParallelFiles {
    /// Two files, as WMT has them (`train.en`, `train.de`): line n of one is the translation of line n of the other.
    Lines { source: PathBuf, target: PathBuf },
    /// A table as [`TextTable`](crate::TextTable) reads them, with a column for each language.
    Table { path: PathBuf, source: String, target: String },
}

/// A sentence and its translation, neither of them empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentencePair {
    pub source: String,
    pub target: String,
}

/// Sentences with their translations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParallelText {
    /// In the files' order, at least one.
    pub pairs: Vec<SentencePair>,
    /// How many were passed over because one side is empty.
    pub empty: usize,
}

/// Why parallel text could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParallelTextError {
    #[error(transparent)]
    Table(#[from] TextTableError),
    #[error(
        "{} has {source_lines} lines, {} {target_lines}: line n of one is to be the translation of line n of the other, so \
         one of them lacks lines",
        source_path.display(), target_path.display()
    )]
    Lengths { source_path: PathBuf, source_lines: u64, target_path: PathBuf, target_lines: u64 },
    #[error("{} has no pair of which both sides hold text", path.display())]
    Empty { path: PathBuf },
    #[error("`most` is 0, which leaves no pair of {}: leave it out for all of them, or give 1 or more", path.display())]
    NoneWanted { path: PathBuf },
}

impl ParallelFiles {
    /// Reads the pairs, of those the first `most`.
    ///
    /// Two files are read to their ends even so, for nothing else tells that they belong together.
    pub fn read(&self, most: Option<usize>) -> Result<ParallelText, ParallelTextError> {
        let mut found = Gathered { read: ParallelText { pairs: Vec::new(), empty: 0 }, most, bytes: 0 };
        let path = match self {
            Self::Lines { source, target } => {
                read_lines(source, target, &mut found)?;
                source
            }
            Self::Table { path, source, target } => {
                read_table(path, [source, target], &mut found)?;
                path
            }
        };
        match found.read.pairs.is_empty() {
            true if most == Some(0) => Err(ParallelTextError::NoneWanted { path: path.clone() }),
            true => Err(ParallelTextError::Empty { path: path.clone() }),
            false => Ok(found.read),
        }
    }
}

/// The pairs so far.
struct Gathered {
    read: ParallelText,
    most: Option<usize>,
    bytes: usize,
}

impl Gathered {
    fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.read.pairs.len() >= most)
    }

    fn push(&mut self, source: &str, target: &str, path: &Path) -> Result<(), TextTableError> {
        let [source, target] = [source, target].map(|text| text.trim().to_owned());
        self.bytes += size_of::<SentencePair>() + source.len() + target.len(); // of empty pairs, too: they must come to an end
        if self.bytes > MOST_TEXT_BYTES {
            return Err(TextTableError::TooLarge { path: path.into(), limit: MOST_TEXT_BYTES });
        }
        if source.is_empty() || target.is_empty() {
            self.read.empty += 1;
            return Ok(());
        }
        self.read.pairs.push(SentencePair { source, target });
        Ok(())
    }
}

fn read_lines(source: &Path, target: &Path, found: &mut Gathered) -> Result<(), ParallelTextError> {
    let [mut sources, mut targets] = [LinesOf::open(source)?, LinesOf::open(target)?];
    loop {
        let (one, other) = (sources.next()?, targets.next()?);
        match (one, other) {
            (None, None) => return Ok(()),
            (Some(one), Some(other)) if !found.is_full() => found.push(&one, &other, source)?,
            (Some(_), Some(_)) => (),
            _ => {
                return Err(ParallelTextError::Lengths {
                    source_path: source.into(),
                    source_lines: sources.count_to_end()?,
                    target_path: target.into(),
                    target_lines: targets.count_to_end()?,
                });
            }
        }
    }
}

fn read_table(path: &Path, columns: [&String; 2], found: &mut Gathered) -> Result<(), TextTableError> {
    let mut records = Records::open(path, columns.map(String::clone).into())?;
    while !found.is_full()
        && let Some((_, fields)) = records.next_record(path)?
    {
        found.push(&fields[0], &fields[1], path)?;
    }
    Ok(())
}

/// A file's lines, with the name that its errors carry.
struct LinesOf<'a> {
    lines: Lines,
    path: &'a Path,
}

impl<'a> LinesOf<'a> {
    fn open(path: &'a Path) -> Result<Self, TextTableError> {
        let source = open_unpacked(path).map_err(|source| TextTableError::Io { path: path.into(), source })?;
        Ok(Self { lines: Lines::new(source), path })
    }

    fn next(&mut self) -> Result<Option<String>, TextTableError> {
        let mut line = String::new();
        match self.lines.append_to(&mut line) {
            Ok(read) => Ok(read.then_some(line)),
            Err(fault) => Err(fault.named(self.path, self.lines.count())),
        }
    }

    /// How many lines the file has.
    fn count_to_end(mut self) -> Result<u64, TextTableError> {
        while self.next()?.is_some() {}
        Ok(self.lines.count())
    }
}
