use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::read_whole_text;

/// Larger RON files are refused unread. BERT-Large at 512 tokens in blocks of 8 has 384 masks of 4,096 glyphs: 2 MB.
const MOST_BYTES: u64 = 64 << 20;

/// Nesting deeper than any of our formats; keeps a hostile file from exhausting the stack.
const MOST_NESTING: usize = 64;

/// A RON file that could not be read, with the place where reading stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RonError {
    #[error("{} cannot be read", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is larger than {limit} bytes, more than any file of this kind needs", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        path: PathBuf,
        /// The whole text, for showing the place.
        text: Box<str>,
        /// Bytes of `text` where reading stopped.
        at: Range<usize>,
        line: usize,
        column: usize,
        message: Box<str>,
        /// The nearest name that would have been allowed.
        help: Option<String>,
    },
}

/// Reads one value from a RON file; the error says file, line and column, and the nearest allowed name.
pub fn read_ron<T: DeserializeOwned>(path: &Path) -> Result<T, RonError> {
    let text = read_whole_text(path, MOST_BYTES).map_err(|source| match source.kind() {
        io::ErrorKind::FileTooLarge => RonError::TooLarge { path: path.into(), limit: MOST_BYTES },
        _ => RonError::Io { path: path.into(), source },
    })?;
    parse_ron(&text, path)
}

/// Reads one value from RON text, where `Some(x)` may be written `x`; `path` is only for the error.
pub fn parse_ron<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, RonError> {
    let options = ron::Options::default().with_recursion_limit(MOST_NESTING);
    options.with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME).from_str(text).map_err(|error| {
        let at = place(text, &error);
        let (line, column) = line_and_column(text, at.start);
        let (message, help) = explain(&error.code);
        RonError::Syntax { path: path.into(), text: text.into(), at, line, column, message: message.into(), help }
    })
}

/// As RON text for people: one field a line, two blanks a level, no struct names.
///
/// # Panics
/// When `T`'s own `Serialize` refuses, which none of ours does.
pub fn to_ron<T: Serialize>(value: &T) -> String {
    let pretty = ron::ser::PrettyConfig::new().indentor("  ").struct_names(false);
    let mut text = ron::ser::to_string_pretty(value, pretty).expect("our types serialise to RON");
    text.push('\n');
    text
}

fn explain(code: &ron::Error) -> (String, Option<String>) {
    match code {
        ron::Error::NoSuchStructField { expected, found, .. } => {
            (format!("unknown key `{found}`"), Some(nearest(found, expected)))
        }
        ron::Error::NoSuchEnumVariant { expected, found, .. } => {
            (format!("unknown name `{found}`"), Some(nearest(found, expected)))
        }
        ron::Error::MissingStructField { field, .. } => (format!("key `{field}` is missing"), None),
        ron::Error::DuplicateStructField { field, .. } => (format!("key `{field}` is given twice"), None),
        ron::Error::IntegerOutOfBounds => {
            ("this whole number is too large here, or below 0 where only 0 and above are allowed".into(), None)
        }
        ron::Error::ExceededRecursionLimit => (format!("nested deeper than {MOST_NESTING} levels"), None),
        ron::Error::Message(message) => (message.clone(), None),
        other => {
            let text = other.to_string();
            let mut letters = text.chars();
            let lower = letters.next().map(|first| first.to_lowercase().chain(letters).collect());
            (lower.unwrap_or_default(), None)
        }
    }
}

/// `did you mean ..?` and what is allowed.
pub fn nearest(found: &str, allowed: &[impl AsRef<str>]) -> String {
    let all = || allowed.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ");
    let best = allowed
        .iter()
        .map(|name| (strsim::damerau_levenshtein(found, name.as_ref()), name.as_ref()))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3);
    match best {
        Some((_, name)) => format!("did you mean `{name}`? allowed here: {}", all()),
        None => format!("allowed here: {}", all()),
    }
}

/// Bytes of `text` that an error is about.
///
/// RON names the last stretch that it read. Where that is only the blank between two values, a custom check spoke about
/// the value before it, which it saw complete, and RON itself about the one behind it.
fn place(text: &str, error: &ron::error::SpannedError) -> Range<usize> {
    let start = byte_of(text, error.span.start);
    let end = byte_of(text, error.span.end).max(start);
    if !text[start..end].trim().is_empty() {
        return start..end;
    }
    let between = |c: char| c == ',' || c.is_whitespace();
    if !matches!(error.code, ron::Error::Message(_)) {
        let value = text.len() - text[start..].trim_start().len();
        return value..value.max(end);
    }
    let before = text[..start].trim_end_matches(between);
    let value = match before.strip_suffix('"') {
        Some(rest) => rest.rfind('"').unwrap_or(0),
        None => before.char_indices().next_back().map_or(0, |(at, _)| at),
    };
    value..before.len()
}

/// Byte offset of RON's 1-based line and column (in characters), clamped to the text.
fn byte_of(text: &str, position: ron::error::Position) -> usize {
    let start: usize = text.split_inclusive('\n').take(position.line.saturating_sub(1)).map(str::len).sum();
    let rest = &text[start..];
    start + rest.char_indices().nth(position.col.saturating_sub(1)).map_or(rest.len(), |(at, _)| at)
}

/// 1-based line and column (in characters) of a byte offset.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line = before.rsplit('\n').next().unwrap_or(before);
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}
