//! Parquet files: named columns of text and whole numbers, without nesting.
//!
//! A file ends with what it says about itself (Thrift, compact protocol). Its rows come in groups; in each, a column is a
//! row of pages, often behind a dictionary page that the others point into. Pages are read one at a time, and a value when
//! it is asked for, so that memory does not grow with the file.

mod pages;
mod runs;
mod thrift;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use self::{
    pages::{Chunk, Codec, NoText},
    thrift::{Value, read_struct},
};
use super::{MOST_ROW_BYTES, RowFault, TextTableError};

const MAGIC: &[u8; 4] = b"PAR1";

/// Longer descriptions are refused; one of ten thousand row groups of three columns takes some megabytes.
const MOST_FOOTER_BYTES: u64 = 8 << 20;

/// What is wrong with a Parquet file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParquetFault {
    #[error("is no whole Parquet file, which starts and ends with PAR1; get it again")]
    Foreign,
    #[error("is damaged, it has {what}; get it again")]
    Damaged { what: &'static str },
    #[error("has {what} of {bytes} bytes, more than {limit}; write it anew with smaller pages and row groups")]
    TooLarge { what: &'static str, bytes: u64, limit: u64 },
    #[error("has {found} in the column `{column}`; text and whole numbers are read, one in each row")]
    Kind { column: String, found: &'static str },
    #[error(
        "is compressed with {codec}; write it anew uncompressed or with snappy or gzip, in pandas with to_parquet(.., compression=\"snappy\")"
    )]
    Codec { codec: &'static str },
    #[error("has values in encoding {encoding}; write it anew with plain or dictionary encoding, as pandas does")]
    Encoding { encoding: i64 },
}

/// Why a value could not be had.
#[derive(Debug)]
enum Fault {
    Io(io::Error),
    File(ParquetFault),
    Row(RowFault),
}

/// The wanted columns of a file's rows.
pub(crate) struct ParquetRecords {
    file: File,
    columns: Vec<Column>,
    /// For each group of rows how many it has, and where each wanted column lies.
    groups: std::vec::IntoIter<(u64, Vec<Place>)>,
    /// Rows of the current group that are left, and the number of the last one that was read.
    left: u64,
    row: u64,
}

struct Column {
    name: String,
    kind: Kind,
    optional: bool,
    chunk: Chunk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Int32,
    Int64,
}

/// Where the pages of a column in a group lie.
#[derive(Debug, Clone, Copy)]
struct Place {
    codec: Codec,
    start: u64,
    end: u64,
}

impl ParquetRecords {
    /// Reads what the file says about itself; `columns` are those that are wanted.
    pub(crate) fn open(path: &Path, columns: &[String]) -> Result<Self, TextTableError> {
        let named = |fault: Fault| fault.of(path, 0);
        let mut file = File::open(path).map_err(|error| named(error.into()))?;
        let (footer, length) = read_footer(&mut file).map_err(named)?;
        let damaged = || named(Fault::damaged("a description that does not decode"));
        let metadata = read_struct(&mut footer.as_slice()).ok_or_else(damaged)?;
        let leaves = leaves(metadata.list(2).ok_or_else(damaged)?).ok_or_else(damaged)?;

        let mut places = Vec::new();
        let mut wanted = Vec::new();
        for name in columns {
            let Some(leaf) = leaves.iter().find(|leaf| leaf.name == name) else {
                let columns = leaves.iter().map(|leaf| leaf.name.to_owned()).collect();
                return Err(TextTableError::Column { path: path.into(), column: name.clone(), columns });
            };
            let (kind, optional) = leaf.kind().map_err(|fault| named(Fault::File(fault)))?;
            places.push(leaf.index);
            wanted.push(Column { name: name.clone(), kind, optional, chunk: Chunk::default() });
        }
        let groups = metadata.list(4).ok_or_else(damaged)?.iter();
        let groups = groups.map(|group| {
            let chunks = group.list(1)?;
            let found = places.iter().map(|&index| Place::of(chunks.get(index?)?, length));
            Some((group.size(3)?, found.collect::<Option<Result<Vec<_>, Fault>>>()?))
        });
        let groups: Vec<_> = groups
            .map(|group| group.ok_or_else(damaged).and_then(|(rows, places)| Ok((rows, places.map_err(named)?))))
            .collect::<Result<_, _>>()?;
        Ok(Self { file, columns: wanted, groups: groups.into_iter(), left: 0, row: 0 })
    }

    /// The next row's number, from 1, and wanted fields.
    pub(crate) fn next_record(&mut self, path: &Path) -> Result<Option<(u64, Vec<String>)>, TextTableError> {
        while self.left == 0 {
            let Some((rows, places)) = self.groups.next() else { return Ok(None) };
            self.left = rows;
            for (column, place) in self.columns.iter_mut().zip(places) {
                column.chunk = Chunk::at(place);
            }
        }
        self.left -= 1;
        self.row += 1;
        let fields = self.columns.iter_mut().map(|column| column.next(&mut self.file)).collect::<Result<_, _>>();
        match fields {
            Ok(fields) => Ok(Some((self.row, fields))),
            Err(fault) => {
                // Behind a broken page nothing is where it should be.
                if !matches!(fault, Fault::Row(_)) {
                    (self.left, self.groups) = (0, Vec::new().into_iter());
                }
                Err(fault.of(path, self.row))
            }
        }
    }
}

impl Column {
    fn next(&mut self, file: &mut File) -> Result<String, Fault> {
        match self.chunk.next(file, self.kind, self.optional)? {
            None => Err(Fault::Row(RowFault::Nothing { column: self.name.clone() })),
            Some(Err(NoText::Encoding)) => Err(Fault::Row(RowFault::NoText { column: self.name.clone() })),
            Some(Err(NoText::TooLong)) => {
                Err(Fault::Row(RowFault::LongText { column: self.name.clone(), limit: MOST_ROW_BYTES }))
            }
            Some(Ok(text)) => Ok(text),
        }
    }
}

impl Fault {
    fn damaged(what: &'static str) -> Self {
        Self::File(ParquetFault::Damaged { what })
    }

    fn of(self, path: &Path, row: u64) -> TextTableError {
        let path = path.into();
        match self {
            Self::Io(source) => TextTableError::Io { path, source },
            Self::File(fault) => TextTableError::Parquet { path, fault },
            Self::Row(fault) => TextTableError::Entry { path, row, fault },
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::damaged("a column that ends early"),
            _ => Self::Io(error),
        }
    }
}

impl From<ParquetFault> for Fault {
    fn from(fault: ParquetFault) -> Self {
        Self::File(fault)
    }
}

/// What the file says about itself, and the length of what stands before that.
fn read_footer(file: &mut File) -> Result<(Vec<u8>, u64), Fault> {
    let length = file.seek(SeekFrom::End(0))?;
    // The magic bytes, the footer, its length in four bytes, the magic bytes.
    if length < 12 {
        return Err(ParquetFault::Foreign.into());
    }
    let (mut start, mut end) = ([0; 4], [0; 8]);
    file.rewind()?;
    file.read_exact(&mut start)?;
    file.seek(SeekFrom::End(-8))?;
    file.read_exact(&mut end)?;
    if start != *MAGIC || end[4..] != *MAGIC {
        return Err(ParquetFault::Foreign.into());
    }
    let bytes = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    if bytes > MOST_FOOTER_BYTES {
        let what = "a description";
        return Err(ParquetFault::TooLarge { what, bytes, limit: MOST_FOOTER_BYTES }.into());
    }
    let Some(before) = (length - 12).checked_sub(bytes) else {
        return Err(Fault::damaged("a description that is longer than the file"));
    };
    let mut footer = vec![0; bytes as usize];
    file.seek(SeekFrom::Start(4 + before))?;
    file.read_exact(&mut footer)?;
    Ok((footer, 4 + before))
}

/// A column on the top level of the schema.
struct Leaf<'a> {
    name: &'a str,
    /// Its place among all columns that hold values; none if it holds further columns.
    index: Option<usize>,
    element: &'a Value<'a>,
}

/// The top level of a schema, which is a tree written depth first, its root at the front.
fn leaves<'a>(schema: &'a [Value<'a>]) -> Option<Vec<Leaf<'a>>> {
    let children = |element: &Value| element.size(5).unwrap_or(0);
    let (mut leaves, mut index) = (Vec::new(), 0);
    // Elements that are still to come below a column of the top level.
    let mut below = 0_u64;
    for element in schema.get(1..)? {
        let holds_values = children(element) == 0;
        if below == 0 {
            leaves.push(Leaf { name: element.text(4)?, index: holds_values.then_some(index), element });
            below = children(element);
        } else {
            below = (below - 1).checked_add(children(element))?;
        }
        index += usize::from(holds_values);
    }
    Some(leaves)
}

impl Leaf<'_> {
    /// What its values are, and whether some may be left out.
    fn kind(&self) -> Result<(Kind, bool), ParquetFault> {
        let refuse = |found| Err(ParquetFault::Kind { column: self.name.to_owned(), found });
        if self.index.is_none() {
            return refuse("further columns");
        }
        let optional = match self.element.integer(3) {
            Some(0) => false,
            Some(1) => true,
            _ => return refuse("lists"),
        };
        match self.element.integer(1) {
            Some(1) => Ok((Kind::Int32, optional)),
            Some(2) => Ok((Kind::Int64, optional)),
            Some(6) => Ok((Kind::Text, optional)),
            Some(0) => refuse("truth values"),
            Some(4 | 5) => refuse("numbers with a point"),
            _ => refuse("something else"),
        }
    }
}

impl Place {
    /// From a column chunk's description, if that is whole; `length` is that of all pages of the file.
    fn of(chunk: &Value, length: u64) -> Option<Result<Self, Fault>> {
        if chunk.field(1).is_some() {
            return Some(Err(Fault::damaged("columns in other files")));
        }
        let metadata = chunk.field(3)?;
        let data = metadata.size(9)?;
        let start = metadata.size(11).filter(|dictionary| (1..data).contains(dictionary)).unwrap_or(data);
        let end = start.checked_add(metadata.size(7)?).filter(|end| *end <= length)?;
        let codec = Codec::numbered(metadata.integer(4)?).map_err(Fault::File);
        Some(codec.map(|codec| Self { codec, start, end }))
    }
}
