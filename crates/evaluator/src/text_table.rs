mod parquet;
mod rows;

use std::{
    io,
    path::{Path, PathBuf},
};

use maskwright_transformer::Text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gzip::open_unpacked;

pub use parquet::ParquetFault;
pub(crate) use rows::Lines;

use parquet::ParquetRecords;
use rows::LineRecords;

/// Longer rows are refused, so that a quote that is never closed does not take the rest of a file into memory.
pub(crate) const MOST_ROW_BYTES: u64 = 1 << 20;

/// More text than this is not kept at once; MNLI's training pairs are 75 MB.
const MOST_TEXT_BYTES: usize = 1 << 30;

/// How to read labelled texts, or pairs of texts, from a table with named columns.
///
/// The file's name says its form: `.csv` (commas, fields in double quotes as RFC 4180 has them), `.tsv` (tabs, a quote is
/// a character like any other, as in GLUE), `.tab` (as Orange writes it: tabs, quotes as in CSV, three header rows: names,
/// types, roles) or `.jsonl` (one object a line); each also gzipped, with `.gz` behind. Text is UTF-8. The first row of a
/// file that is not JSONL names the columns. `.parquet` files are read as well: columns of text or whole numbers, without
/// nesting, uncompressed or compressed with snappy or gzip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextTable {
    /// The column of the text.
    pub text: String,
    /// The column of a second text, for tasks about pairs.
    #[serde(default)]
    pub second: Option<String>,
    /// The column of the label.
    pub label: String,
    pub labels: Labels,
}

/// What stands in the label column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Labels {
    /// Whole numbers from 0, of so many classes.
    Numbers(u32),
    /// These names; the class is the place in the list.
    Names(Vec<String>),
}

/// A labelled text or pair of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextExample {
    pub text: String,
    pub second: Option<String>,
    /// Class, from 0.
    pub label: u32,
}

/// Why a table could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextTableError {
    #[error("{} cannot be read", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is no table that can be read: names end in .csv, .tsv, .tab or .jsonl, also with .gz behind, or in .parquet", path.display())]
    Format { path: PathBuf },
    #[error("{} has no column `{column}`; its columns are {}", path.display(), quoted(columns))]
    Column { path: PathBuf, column: String, columns: Vec<String> },
    #[error("{} has several columns `{column}`: name each differently", path.display())]
    ColumnTwice { path: PathBuf, column: String },
    #[error("line {line} of {} {fault}", path.display())]
    Row {
        path: PathBuf,
        /// Counted from 1; where the row starts.
        line: u64,
        fault: RowFault,
    },
    #[error("row {row} of {} {fault}", path.display())]
    Entry {
        path: PathBuf,
        /// Of a file without lines, counted from 1.
        row: u64,
        fault: RowFault,
    },
    #[error("{} {fault}", path.display())]
    Parquet { path: PathBuf, fault: ParquetFault },
    #[error("{} holds more than {limit} bytes of text: split it, or go through its rows one by one", path.display())]
    TooLarge { path: PathBuf, limit: usize },
    #[error("{} holds no examples", path.display())]
    Empty { path: PathBuf },
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowFault {
    #[error("is not UTF-8: convert the file, for example with iconv")]
    Encoding,
    #[error("starts a row of more than {limit} bytes; in a CSV file, is a quote not closed?")]
    TooLong { limit: u64 },
    #[error("opens a quote that the file never closes")]
    OpenQuote,
    #[error("has text behind a closing quote: a quote within a quoted field is written twice")]
    BehindQuote,
    #[error("has {found} fields, the first row names {expected}")]
    Fields { found: usize, expected: usize },
    #[error(
        "gives a column the role `{role}`, which Orange has not: a .tab file starts with three rows, names, types and roles; rename one that has names alone to .tsv"
    )]
    OrangeRole { role: String },
    #[error("is no JSON object: {reason}")]
    Json { reason: String },
    #[error("has no field `{column}`; its fields are {}", quoted(fields))]
    Missing { column: String, fields: Vec<String> },
    #[error("has something other than text in `{column}`")]
    NoText { column: String },
    #[error("has nothing in `{column}`: fill it in, or leave the row out")]
    Nothing { column: String },
    #[error("has more than {limit} bytes of text in `{column}`")]
    LongText { column: String, limit: u64 },
    #[error("has the label `{label}`; labels are {allowed}")]
    Label { label: String, allowed: String },
}

/// A table's examples one by one: memory does not grow with the file.
pub struct TextRows {
    records: Records,
    table: TextTable,
    path: PathBuf,
}

impl TextTable {
    /// Opens a file and finds its columns; examples are read as they are asked for.
    pub fn rows(&self, path: &Path) -> Result<TextRows, TextTableError> {
        Ok(self.rows_in(Records::open(path, self.columns())?, path))
    }

    /// [`TextTable::rows`] of a file whose name does not say its form.
    pub(crate) fn rows_of(&self, path: &Path, format: Format) -> Result<TextRows, TextTableError> {
        Ok(self.rows_in(Records::open_lines(path, format, self.columns())?, path))
    }

    /// All examples of a file, at least one.
    pub fn read(&self, path: &Path) -> Result<Vec<TextExample>, TextTableError> {
        self.rows(path)?.read_all()
    }

    fn columns(&self) -> Vec<String> {
        [Some(&self.text), self.second.as_ref(), Some(&self.label)].into_iter().flatten().cloned().collect()
    }

    fn rows_in(&self, records: Records, path: &Path) -> TextRows {
        TextRows { records, table: self.clone(), path: path.into() }
    }
}

impl TextRows {
    /// All examples that are left, at least one.
    pub(crate) fn read_all(self) -> Result<Vec<TextExample>, TextTableError> {
        let path = self.path.clone();
        let (mut examples, mut bytes) = (Vec::new(), 0);
        for example in self {
            let example = example?;
            bytes += size_of::<TextExample>() + example.text.len() + example.second.as_ref().map_or(0, String::len);
            if bytes > MOST_TEXT_BYTES {
                return Err(TextTableError::TooLarge { path, limit: MOST_TEXT_BYTES });
            }
            examples.push(example);
        }
        match examples.is_empty() {
            true => Err(TextTableError::Empty { path }),
            false => Ok(examples),
        }
    }
}

impl Iterator for TextRows {
    type Item = Result<TextExample, TextTableError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (number, fields) = match self.records.next_record(&self.path).transpose()? {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        let mut fields = fields.into_iter();
        let mut next = || fields.next().expect("a record has one field for each column");
        let (text, second) = (next(), self.table.second.as_ref().map(|_| next()));
        let label = self.table.labels.class(&next());
        let named = |fault| self.records.named(fault, number, &self.path);
        Some(label.map(|label| TextExample { text, second, label }).map_err(named))
    }
}

impl TextExample {
    /// As a tokeniser takes it.
    pub fn as_text(&self) -> Text<'_> {
        match &self.second {
            None => Text::One(&self.text),
            Some(second) => Text::Pair(&self.text, second),
        }
    }
}

impl Labels {
    /// How many classes there are.
    pub fn classes(&self) -> u32 {
        match self {
            Self::Numbers(classes) => *classes,
            Self::Names(names) => names.len() as u32,
        }
    }

    fn class(&self, label: &str) -> Result<u32, RowFault> {
        let class = match self {
            Self::Numbers(classes) => label.trim().parse().ok().filter(|class| class < classes),
            Self::Names(names) => names.iter().position(|name| name == label).map(|class| class as u32),
        };
        class.ok_or_else(|| RowFault::Label { label: shortened(label), allowed: self.allowed() })
    }

    /// What a label may be, for people.
    fn allowed(&self) -> String {
        match self {
            Self::Numbers(classes) => format!("whole numbers from 0, below {classes}"),
            Self::Names(names) => quoted(names),
        }
    }
}

/// The form of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    Tsv,
    /// Orange's.
    Tab,
    Jsonl,
}

/// The wanted columns of a file's rows, in the order in which they were asked for.
pub(crate) enum Records {
    Lines(LineRecords),
    Parquet(ParquetRecords),
}

impl Records {
    /// Opens a file of the form that its name says.
    pub(crate) fn open(path: &Path, columns: Vec<String>) -> Result<Self, TextTableError> {
        match path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("parquet")) {
            true => ParquetRecords::open(path, &columns).map(Self::Parquet),
            false => Self::open_lines(path, Format::of(path)?, columns),
        }
    }

    /// Opens a file of lines whose name need not say its form.
    pub(crate) fn open_lines(path: &Path, format: Format, columns: Vec<String>) -> Result<Self, TextTableError> {
        let source = open_unpacked(path).map_err(|source| TextTableError::Io { path: path.into(), source })?;
        LineRecords::new(source, format, columns, path).map(Self::Lines)
    }

    /// The next row's wanted fields, and the number of its line or, of a file without lines, its own.
    pub(crate) fn next_record(&mut self, path: &Path) -> Result<Option<(u64, Vec<String>)>, TextTableError> {
        match self {
            Self::Lines(records) => records.next_record(path),
            Self::Parquet(records) => records.next_record(path),
        }
    }

    /// What is wrong with the row of that number.
    fn named(&self, fault: RowFault, number: u64, path: &Path) -> TextTableError {
        let path = path.into();
        match self {
            Self::Lines(_) => TextTableError::Row { path, line: number, fault },
            Self::Parquet(_) => TextTableError::Entry { path, row: number, fault },
        }
    }
}

impl Format {
    /// As the end of a file's name says.
    fn of(path: &Path) -> Result<Self, TextTableError> {
        let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        match name.strip_suffix(".gz").unwrap_or(&name).rsplit_once('.') {
            Some((_, "csv")) => Ok(Self::Csv),
            Some((_, "tsv")) => Ok(Self::Tsv),
            Some((_, "tab")) => Ok(Self::Tab),
            Some((_, "jsonl")) => Ok(Self::Jsonl),
            _ => Err(TextTableError::Format { path: path.into() }),
        }
    }
}

/// At most a dozen names, as an error shows them.
pub(crate) fn quoted(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{}`", shortened(name))).collect();
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// What of a value an error shows.
fn shortened(value: &str) -> String {
    const SHOWN: usize = 40;
    match value.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &value[..at]),
        None => value.to_owned(),
    }
}
