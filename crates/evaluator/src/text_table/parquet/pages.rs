use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use flate2::read::MultiGzDecoder;

use super::{
    Fault, Kind, ParquetFault, Place,
    runs::Runs,
    thrift::{Value, read_struct, take},
};
use crate::text_table::MOST_ROW_BYTES;

/// Larger pages are refused; most programs write pages of a megabyte.
const MOST_PAGE_BYTES: u64 = 64 << 20;

/// A page's header is looked for in so many bytes, and, where it carries long statistics, in so many.
const HEADER_BYTES: [u64; 2] = [1 << 12, 1 << 22];

/// How the bytes of pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    None,
    Snappy,
    Gzip,
}

/// The pages of a column in one group of rows.
#[derive(Debug)]
pub(super) struct Chunk {
    codec: Codec,
    /// Where the next page starts, and the last one ends.
    at: u64,
    end: u64,
    dictionary: Vec<String>,
    page: Page,
}

#[derive(Debug)]
struct Page {
    /// Values that are left, those included that are left out.
    left: u64,
    /// 1 for each value that is there, 0 for each that is left out; none if all are there.
    present: Option<Runs>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Plain {
        bytes: Vec<u8>,
        at: usize,
    },
    /// Places in the dictionary.
    Indices(Runs),
}

/// How a page's values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Plain,
    Dictionary,
}

/// Why bytes are no text that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoText {
    Encoding,
    TooLong,
}

type Text = Result<String, NoText>;

impl Default for Chunk {
    fn default() -> Self {
        Self::at(Place { codec: Codec::None, start: 0, end: 0 })
    }
}

impl Chunk {
    pub(super) fn at(Place { codec, start, end }: Place) -> Self {
        let page = Page { left: 0, present: None, values: Values::Plain { bytes: Vec::new(), at: 0 } };
        Self { codec, at: start, end, dictionary: Vec::new(), page }
    }

    /// The next value; `None` if it is left out.
    pub(super) fn next(&mut self, file: &mut File, kind: Kind, optional: bool) -> Result<Option<Text>, Fault> {
        while self.page.left == 0 {
            self.read_page(file, kind, optional)?;
        }
        self.page.left -= 1;
        if let Some(present) = &mut self.page.present
            && present.next()? == 0
        {
            return Ok(None);
        }
        match &mut self.page.values {
            Values::Plain { bytes, at } => {
                let mut input = &bytes[*at..];
                let value = plain(&mut input, kind).ok_or_else(ends_early)?;
                *at = bytes.len() - input.len();
                Ok(Some(value))
            }
            Values::Indices(runs) => {
                let index = runs.next()? as usize;
                let missing = || Fault::damaged("a value that is not in its dictionary");
                self.dictionary.get(index).map(|text| Some(Ok(text.clone()))).ok_or_else(missing)
            }
        }
    }

    /// Reads one page: the dictionary, values, or something that is passed over.
    fn read_page(&mut self, file: &mut File, kind: Kind, optional: bool) -> Result<(), Fault> {
        let mut buffer = Vec::new();
        let (header, length) = self.read_header(file, &mut buffer)?;
        let no_size = || Fault::damaged("a page without a size");
        let compressed = bounded(header.size(3).ok_or_else(no_size)?)?;
        let unpacked = bounded(header.size(2).ok_or_else(no_size)?)?;
        let start = self.at + length;
        self.at = start.checked_add(compressed).filter(|end| *end <= self.end).ok_or_else(ends_early)?;

        let mut bytes = vec![0; compressed as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)?;
        let missing = || Fault::damaged("a page without a header of its kind");
        match header.integer(1) {
            Some(0) => {
                self.start_page(header.field(5).ok_or_else(missing)?, self.codec.unpack(bytes, unpacked)?, optional)
            }
            Some(2) => {
                let bytes = self.codec.unpack(bytes, unpacked)?;
                self.read_dictionary(header.field(7).ok_or_else(missing)?, &bytes, kind)
            }
            Some(3) => self.start_page_2(header.field(8).ok_or_else(missing)?, &bytes, unpacked, optional),
            _ => Ok(()),
        }
    }

    /// The next page's header and its length.
    fn read_header<'a>(&self, file: &mut File, buffer: &'a mut Vec<u8>) -> Result<(Value<'a>, u64), Fault> {
        let left = self.end.saturating_sub(self.at);
        if left == 0 {
            return Err(Fault::damaged("fewer values than rows"));
        }
        for most in HEADER_BYTES {
            buffer.clear();
            file.seek(SeekFrom::Start(self.at))?;
            file.take(most.min(left)).read_to_end(buffer)?;
            if read_struct(&mut buffer.as_slice()).is_some() {
                break;
            }
        }
        let mut rest = buffer.as_slice();
        let header = read_struct(&mut rest).ok_or_else(|| Fault::damaged("a page header that does not decode"))?;
        Ok((header, (buffer.len() - rest.len()) as u64))
    }

    fn read_dictionary(&mut self, header: &Value, bytes: &[u8], kind: Kind) -> Result<(), Fault> {
        let count = header.size(1).ok_or_else(ends_early)?;
        // Each value takes at least four bytes.
        if count > bytes.len() as u64 / 4 {
            return Err(ends_early());
        }
        let mut input = bytes;
        let value = |_| match plain(&mut input, kind) {
            None => Err(ends_early()),
            Some(Err(NoText::Encoding)) => Err(Fault::damaged("a dictionary of something other than text")),
            Some(Err(NoText::TooLong)) => {
                Err(ParquetFault::TooLarge { what: "a text", bytes: bytes.len() as u64, limit: MOST_ROW_BYTES }.into())
            }
            Some(Ok(text)) => Ok(text),
        };
        self.dictionary = (0..count).map(value).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// A page in the first form: if values may be left out, a length and which ones are there; then the values.
    fn start_page(&mut self, header: &Value, bytes: Vec<u8>, optional: bool) -> Result<(), Fault> {
        let encoding = Encoding::numbered(header.integer(2))?;
        let mut input = bytes.as_slice();
        let mut present = None;
        if optional {
            let length = take(&mut input, 4).ok_or_else(ends_early)?;
            let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
            let levels = take(&mut input, length.into()).ok_or_else(ends_early)?;
            present = Some(Runs::new(levels.to_vec(), 1)?);
        }
        self.page = Page { left: header.size(1).ok_or_else(ends_early)?, present, values: encoding.values(input)? };
        Ok(())
    }

    /// A page in the second form: which values are there is never compressed, and the header says how long it is.
    fn start_page_2(&mut self, header: &Value, bytes: &[u8], unpacked: u64, optional: bool) -> Result<(), Fault> {
        let encoding = Encoding::numbered(header.integer(4))?;
        let levels = header.size(5).ok_or_else(ends_early)?;
        let mut input = bytes;
        // Of columns without lists there is nothing about repetition.
        take(&mut input, header.size(6).ok_or_else(ends_early)?).ok_or_else(ends_early)?;
        let present = take(&mut input, levels).ok_or_else(ends_early)?;
        let present = optional.then(|| Runs::new(present.to_vec(), 1)).transpose()?;
        let unpacked = unpacked.checked_sub((bytes.len() - input.len()) as u64).ok_or_else(ends_early)?;
        let codec = if header.bool(7) == Some(false) { Codec::None } else { self.codec };
        let values = encoding.values(&codec.unpack(input.to_vec(), unpacked)?)?;
        self.page = Page { left: header.size(1).ok_or_else(ends_early)?, present, values };
        Ok(())
    }
}

impl Codec {
    pub(super) fn numbered(number: i64) -> Result<Self, ParquetFault> {
        let codec = match number {
            0 => return Ok(Self::None),
            1 => return Ok(Self::Snappy),
            2 => return Ok(Self::Gzip),
            4 => "brotli",
            5 | 7 => "lz4",
            6 => "zstd",
            _ => "something else",
        };
        Err(ParquetFault::Codec { codec })
    }

    /// Unpacks to exactly `length` bytes, which the caller has bounded.
    fn unpack(self, bytes: Vec<u8>, length: u64) -> Result<Vec<u8>, Fault> {
        let unpacked = match self {
            Self::None => Some(bytes),
            Self::Snappy => {
                let says = snap::raw::decompress_len(&bytes).ok().filter(|says| *says as u64 == length);
                says.and_then(|_| snap::raw::Decoder::new().decompress_vec(&bytes).ok())
            }
            Self::Gzip => {
                let mut unpacked = Vec::new();
                let read = MultiGzDecoder::new(bytes.as_slice()).take(length + 1).read_to_end(&mut unpacked);
                read.is_ok().then_some(unpacked)
            }
        };
        let wrong = || Fault::damaged("a page that does not unpack to its size");
        unpacked.filter(|unpacked| unpacked.len() as u64 == length).ok_or_else(wrong)
    }
}

impl Encoding {
    fn numbered(number: Option<i64>) -> Result<Self, Fault> {
        match number {
            Some(0) => Ok(Self::Plain),
            // Two numbers for the same; the older one is still written.
            Some(2 | 8) => Ok(Self::Dictionary),
            Some(encoding) => Err(ParquetFault::Encoding { encoding }.into()),
            None => Err(Fault::damaged("a page without an encoding")),
        }
    }

    fn values(self, bytes: &[u8]) -> Result<Values, Fault> {
        match self {
            Self::Plain => Ok(Values::Plain { bytes: bytes.into(), at: 0 }),
            // Before the places stands how many bits each has. A page of nothing but gaps has neither.
            Self::Dictionary => {
                let (bits, places) = bytes.split_first().unwrap_or((&0, &[]));
                Ok(Values::Indices(Runs::new(places.into(), (*bits).into())?))
            }
        }
    }
}

/// The next value in plain encoding, as text; `None` at the end.
fn plain(input: &mut &[u8], kind: Kind) -> Option<Text> {
    match kind {
        Kind::Int32 => Some(Ok(i32::from_le_bytes(take(input, 4)?.try_into().ok()?).to_string())),
        Kind::Int64 => Some(Ok(i64::from_le_bytes(take(input, 8)?.try_into().ok()?).to_string())),
        Kind::Text => {
            let length = u64::from(u32::from_le_bytes(take(input, 4)?.try_into().ok()?));
            let bytes = take(input, length)?;
            Some(match std::str::from_utf8(bytes) {
                Err(_) => Err(NoText::Encoding),
                Ok(_) if length > MOST_ROW_BYTES => Err(NoText::TooLong),
                Ok(text) => Ok(text.to_owned()),
            })
        }
    }
}

fn bounded(bytes: u64) -> Result<u64, Fault> {
    match bytes {
        0..=MOST_PAGE_BYTES => Ok(bytes),
        _ => Err(ParquetFault::TooLarge { what: "a page", bytes, limit: MOST_PAGE_BYTES }.into()),
    }
}

fn ends_early() -> Fault {
    Fault::damaged("a page that ends early")
}
