use std::{
    io::{BufRead, Read},
    path::Path,
};

use serde_json::Value;

use super::{Format, MOST_ROW_BYTES, RowFault, TextTableError, shortened};

/// What the third row of an Orange file may say of a column, beside `name=value`; nothing makes it a feature.
const ORANGE_ROLES: [&str; 9] = ["", "class", "c", "meta", "m", "ignore", "i", "weight", "w"];

/// The wanted fields of a table's rows, in the order in which they were asked for.
pub(crate) struct LineRecords {
    lines: Lines,
    format: Format,
    /// The columns that are wanted.
    columns: Vec<String>,
    /// Where they are, and how many fields a row has; of JSON every row says so itself.
    places: Vec<usize>,
    fields: usize,
}

/// A file's lines, none of them longer than a row may be.
pub(crate) struct Lines {
    source: Box<dyn BufRead + Send>,
    /// How many were read so far: the number of the last one, from 1.
    line: u64,
}

/// A row has a line to be named with; what stops a whole file has not.
pub(crate) enum Fault {
    Io(std::io::Error),
    Row(RowFault),
}

impl Fault {
    pub(crate) fn named(self, path: &Path, line: u64) -> TextTableError {
        match self {
            Self::Io(source) => TextTableError::Io { path: path.into(), source },
            Self::Row(fault) => TextTableError::Row { path: path.into(), line, fault },
        }
    }
}

impl From<RowFault> for Fault {
    fn from(fault: RowFault) -> Self {
        Self::Row(fault)
    }
}

impl LineRecords {
    pub(super) fn new(
        source: Box<dyn BufRead + Send>,
        format: Format,
        columns: Vec<String>,
        path: &Path,
    ) -> Result<Self, TextTableError> {
        let mut records = Self { lines: Lines::new(source), format, columns, places: Vec::new(), fields: 0 };
        if format == Format::Jsonl {
            return Ok(records);
        }
        let names = match records.next_fields(path)? {
            Some((_, names)) => names,
            None => return Err(TextTableError::Empty { path: path.into() }),
        };
        for column in &records.columns {
            let place = names.iter().position(|name| name == column);
            let missing =
                || TextTableError::Column { path: path.into(), column: column.clone(), columns: names.clone() };
            records.places.push(place.ok_or_else(missing)?);
            if names.iter().filter(|name| *name == column).count() > 1 {
                return Err(TextTableError::ColumnTwice { path: path.into(), column: column.clone() });
            }
        }
        records.fields = names.len();
        if format == Format::Tab {
            records.check_types_and_roles().map_err(|fault| fault.named(path, records.lines.line))?;
        }
        Ok(records)
    }

    /// The second and third row of an Orange file: a type for each column, then what it is used for, if anything.
    fn check_types_and_roles(&mut self) -> Result<(), Fault> {
        let mut row = || {
            let mut text = String::new();
            self.lines.append_to(&mut text).map(|_| text)
        };
        let found = row()?.split('\t').count();
        if found != self.fields {
            return Err(RowFault::Fields { found, expected: self.fields }.into());
        }
        let roles = row()?;
        match roles.split(['\t', ' ']).find(|role| !role.contains('=') && !ORANGE_ROLES.contains(role)) {
            Some(role) => Err(RowFault::OrangeRole { role: shortened(role) }.into()),
            None => Ok(()),
        }
    }

    /// The next row's line and wanted fields; blank lines are passed over.
    pub(super) fn next_record(&mut self, path: &Path) -> Result<Option<(u64, Vec<String>)>, TextTableError> {
        let Some((line, mut fields)) = self.next_fields(path)? else { return Ok(None) };
        if self.format == Format::Jsonl {
            return Ok(Some((line, fields)));
        }
        if fields.len() != self.fields {
            let fault = RowFault::Fields { found: fields.len(), expected: self.fields };
            return Err(TextTableError::Row { path: path.into(), line, fault });
        }
        // A column may be wanted twice, so fields are copied but for their last use.
        let take = |(at, &place): (usize, &usize)| match self.places[at + 1..].contains(&place) {
            true => fields[place].clone(),
            false => std::mem::take(&mut fields[place]),
        };
        Ok(Some((line, self.places.iter().enumerate().map(take).collect())))
    }

    /// The next row that is not blank, and the line it starts in.
    fn next_fields(&mut self, path: &Path) -> Result<Option<(u64, Vec<String>)>, TextTableError> {
        loop {
            let mut text = String::new();
            let read = self.lines.append_to(&mut text);
            let line = self.lines.line;
            let fields = match read {
                Ok(false) => return Ok(None),
                Ok(true) if text.is_empty() => continue,
                Ok(true) => match self.format {
                    Format::Csv => self.quoting_fields(&mut text, ','),
                    Format::Tab => self.quoting_fields(&mut text, '\t'),
                    Format::Tsv => Ok(text.split('\t').map(str::to_owned).collect()),
                    Format::Jsonl => json_fields(&text, &self.columns).map_err(Fault::Row),
                },
                Err(fault) => Err(fault),
            };
            return fields.map(|fields| Some((line, fields))).map_err(|fault| fault.named(path, line));
        }
    }

    /// The fields of the row that starts with `text`; further lines are read where a quote goes over them.
    fn quoting_fields(&mut self, text: &mut String, separator: char) -> Result<Vec<String>, Fault> {
        let mut fields = Vec::new();
        let mut at = 0;
        loop {
            let (field, end) = match text[at..].strip_prefix('"') {
                Some(_) => self.quoted_field(text, at + 1)?,
                None => {
                    let end = text[at..].find(separator).map_or(text.len(), |length| at + length);
                    (text[at..end].to_owned(), end)
                }
            };
            fields.push(field);
            match text[end..].chars().next() {
                None => return Ok(fields),
                Some(next) if next == separator => at = end + 1,
                Some(_) => return Err(RowFault::BehindQuote.into()),
            }
        }
    }

    /// What a quote at `text[start - 1]` opens, and the place behind the one that closes it.
    fn quoted_field(&mut self, text: &mut String, start: usize) -> Result<(String, usize), Fault> {
        let mut field = String::new();
        let mut at = start;
        loop {
            match text[at..].find('"') {
                Some(quote) => {
                    field.push_str(&text[at..at + quote]);
                    at += quote + 1;
                    if !text[at..].starts_with('"') {
                        return Ok((field, at));
                    }
                    field.push('"');
                    at += 1;
                }
                None => {
                    field.push_str(&text[at..]);
                    field.push('\n');
                    text.push('\n');
                    at = text.len();
                    if !self.lines.append_to(text)? {
                        return Err(RowFault::OpenQuote.into());
                    }
                }
            }
        }
    }
}

impl Lines {
    pub(crate) fn new(source: Box<dyn BufRead + Send>) -> Self {
        Self { source, line: 0 }
    }

    /// How many were read so far.
    pub(crate) fn count(&self) -> u64 {
        self.line
    }

    /// Adds the next line, without its end, to `text`; false at the end of the file.
    pub(crate) fn append_to(&mut self, text: &mut String) -> Result<bool, Fault> {
        let room = MOST_ROW_BYTES - (text.len() as u64).min(MOST_ROW_BYTES);
        let mut bytes = Vec::new();
        let read = (&mut self.source).take(room + 1).read_until(b'\n', &mut bytes).map_err(Fault::Io)?;
        if read == 0 {
            return Ok(false);
        }
        self.line += 1;
        if read as u64 > room {
            return Err(RowFault::TooLong { limit: MOST_ROW_BYTES }.into());
        }
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line).map_err(|_| RowFault::Encoding)?;
        // What some programs put before the first character of a file to say that it is UTF-8.
        let line = if self.line == 1 { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        text.push_str(line);
        Ok(true)
    }
}

/// The wanted fields of an object; numbers and truth values count as text in the form in which JSON has them.
fn json_fields(line: &str, columns: &[String]) -> Result<Vec<String>, RowFault> {
    let not_json = |reason: String| RowFault::Json { reason };
    let object = match serde_json::from_str(line).map_err(|error| not_json(without_line(&error)))? {
        Value::Object(object) => object,
        _ => return Err(not_json("it starts with no `{`".into())),
    };
    let field = |column: &String| match object.get(column) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::Bool(value)) => Ok(value.to_string()),
        Some(_) => Err(RowFault::NoText { column: column.clone() }),
        None => Err(RowFault::Missing { column: column.clone(), fields: object.keys().cloned().collect() }),
    };
    columns.iter().map(field).collect()
}

/// What is wrong with a line of JSON; to serde every line is the first, and the row's own is told already.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(place.as_str()).unwrap_or(&text).to_owned()
}
