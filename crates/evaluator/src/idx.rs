//! IDX files of unsigned bytes: the form in which MNIST and its relatives ship.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::gzip::open_unpacked;

/// Larger arrays are refused: four times the 60,000 training images of Fashion-MNIST (47 MB), rounded up.
const MOST_BYTES: u64 = 256 << 20;

/// More dimensions than images with channels have are refused.
const MOST_DIMENSIONS: u8 = 4;

/// The element type code of unsigned bytes.
const UNSIGNED_BYTE: u8 = 0x08;

/// An array of unsigned bytes, as an IDX file holds it.
///
/// Always true: it has 1 to 4 dimensions, none of them 0, and as many bytes as the shape says. The last dimension runs
/// fastest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idx {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Why a file is no IDX file of unsigned bytes that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdxError {
    #[error("{} cannot be read", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} ends within its header: an IDX file starts with 4 bytes and 4 more for each dimension", path.display())]
    NoHeader { path: PathBuf },
    #[error(
        "{} is no IDX file: it starts with the bytes {found:02x?}, an IDX file of unsigned bytes (plain or gzipped) with \
         00 00 08 and the number of dimensions",
        path.display()
    )]
    Foreign { path: PathBuf, found: [u8; 4] },
    #[error("{} holds elements of type {found:#04x}; only unsigned bytes, type 0x08, are read", path.display())]
    ElementType { path: PathBuf, found: u8 },
    #[error("{} has {found} dimensions; 1 to {MOST_DIMENSIONS} are read", path.display())]
    Dimensions { path: PathBuf, found: u8 },
    #[error("{} has the shape {shape:?}, which holds no element", path.display())]
    Empty { path: PathBuf, shape: Vec<u32> },
    #[error("{} has the shape {shape:?}, more than {limit} bytes: more than any data set of this kind needs", path.display())]
    TooLarge { path: PathBuf, shape: Vec<u32>, limit: u64 },
    #[error("{} has the shape {shape:?}, which takes {expected} bytes, but ends after {found}; get it again", path.display())]
    Short { path: PathBuf, shape: Vec<u32>, expected: u64, found: u64 },
    #[error("{} has the shape {shape:?}, which takes {expected} bytes, but goes on after them", path.display())]
    Trailing { path: PathBuf, shape: Vec<u32>, expected: u64 },
}

impl Idx {
    /// Reads a file, gzipped or plain: its first bytes decide, not its name.
    ///
    /// Memory grows with the bytes that are really there, never with what the header promises.
    pub fn read(path: &Path) -> Result<Self, IdxError> {
        let source = open_unpacked(path).map_err(|source| IdxError::Io { path: path.into(), source })?;
        Self::decode(source, path)
    }

    /// Length of each dimension, slowest first: `[images, height, width]`.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// All elements, `shape().iter().product()` of them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads the unpacked form; `path` is only for the errors.
    fn decode(mut source: impl Read, path: &Path) -> Result<Self, IdxError> {
        let shape = read_shape(&mut source, path)?;
        let expected = element_count(&shape, path)?;

        let mut bytes = Vec::new();
        // One byte beyond the end is asked for: it must not be there, and gzip checks its own sum only at the end.
        let outcome = source.take(expected + 1).read_to_end(&mut bytes);
        let found = bytes.len() as u64;
        match outcome {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                Err(IdxError::Io { path: path.into(), source: error })
            }
            // A gzip stream that was cut off ends in an error, a plain file just ends.
            _ if found < expected => Err(IdxError::Short { path: path.into(), shape, expected, found }),
            Ok(_) if found > expected => Err(IdxError::Trailing { path: path.into(), shape, expected }),
            Err(source) => Err(IdxError::Io { path: path.into(), source }),
            Ok(_) => Ok(Self { shape: shape.into_iter().map(|length| length as usize).collect(), bytes }),
        }
    }
}

/// The header: 00 00, the element type, the number of dimensions; then each dimension, most significant byte first.
fn read_shape(source: &mut impl Read, path: &Path) -> Result<Vec<u32>, IdxError> {
    let [zero, null, element_type, dimensions] = word(source, path)?;
    if [zero, null] != [0, 0] {
        return Err(IdxError::Foreign { path: path.into(), found: [zero, null, element_type, dimensions] });
    }
    if element_type != UNSIGNED_BYTE {
        return Err(IdxError::ElementType { path: path.into(), found: element_type });
    }
    if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
        return Err(IdxError::Dimensions { path: path.into(), found: dimensions });
    }
    (0..dimensions).map(|_| word(source, path).map(u32::from_be_bytes)).collect()
}

fn word(source: &mut impl Read, path: &Path) -> Result<[u8; 4], IdxError> {
    let mut bytes = [0; 4];
    source.read_exact(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => IdxError::NoHeader { path: path.into() },
        _ => IdxError::Io { path: path.into(), source: error },
    })?;
    Ok(bytes)
}

fn element_count(shape: &[u32], path: &Path) -> Result<u64, IdxError> {
    if shape.contains(&0) {
        return Err(IdxError::Empty { path: path.into(), shape: shape.into() });
    }
    shape
        .iter()
        .try_fold(1_u64, |product, &length| product.checked_mul(u64::from(length)))
        .filter(|&bytes| bytes <= MOST_BYTES)
        .ok_or_else(|| IdxError::TooLarge { path: path.into(), shape: shape.into(), limit: MOST_BYTES })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// Two images of 2 x 3 pixels.
    const TWO_IMAGES: [u8; 28] =
        [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, 10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25];

    fn read(content: &[u8]) -> Result<Idx, IdxError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images");
        std::fs::write(&path, content).unwrap();
        Idx::read(&path)
    }

    /// The refusal's text, with the file's folder cut off.
    fn refusal(content: &[u8]) -> String {
        let text = read(content).unwrap_err().to_string();
        text[text.find("images").unwrap()..].to_owned()
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(content).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn plain_and_gzipped_files_hold_the_same_images() {
        let images = read(&TWO_IMAGES).unwrap();
        assert_eq!(images.shape(), [2, 2, 3]);
        assert_eq!(images.bytes()[6..], [20, 21, 22, 23, 24, 25]);
        assert_eq!(read(&gzip(&TWO_IMAGES)).unwrap(), images);
    }

    #[test]
    fn the_shipped_test_set_has_two_hundred_images_of_each_class() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/fashion-mnist");
        let images = Idx::read(&folder.join("test-images-idx3-ubyte.gz")).unwrap();
        let labels = Idx::read(&folder.join("test-labels-idx1-ubyte.gz")).unwrap();
        assert_eq!(images.shape(), [2000, 28, 28]);
        assert_eq!(labels.shape(), [2000]);
        for class in 0..10 {
            assert_eq!(labels.bytes().iter().filter(|&&label| label == class).count(), 200);
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Idx::read(Path::new("no/such/file.gz")).unwrap_err();
        assert_eq!(error.to_string(), "no/such/file.gz cannot be read");
    }

    #[test]
    fn a_file_that_ends_early_says_what_it_had() {
        let short = "images has the shape [2, 2, 3], which takes 12 bytes, but ends after 11; get it again";
        assert_eq!(refusal(&TWO_IMAGES[..27]), short);
        assert_eq!(refusal(&gzip(&TWO_IMAGES[..27])), short);
        let no_header = "images ends within its header: an IDX file starts with 4 bytes and 4 more for each dimension";
        assert_eq!(refusal(&TWO_IMAGES[..15]), no_header);
        assert_eq!(refusal(b""), no_header);
    }

    #[test]
    fn every_cut_of_a_gzip_stream_is_refused() {
        let packed = gzip(&TWO_IMAGES);
        for end in 0..packed.len() {
            assert!(read(&packed[..end]).is_err(), "cut after {end} of {} bytes", packed.len());
        }
    }

    #[test]
    fn bytes_after_the_last_image_are_refused() {
        let longer = [TWO_IMAGES.as_slice(), &[0]].concat();
        let trailing = "images has the shape [2, 2, 3], which takes 12 bytes, but goes on after them";
        assert_eq!(refusal(&longer), trailing);
        assert_eq!(refusal(&gzip(&longer)), trailing);
        assert!(read(&[gzip(&TWO_IMAGES).as_slice(), b"more"].concat()).is_err());
    }

    #[test]
    fn a_foreign_file_says_how_it_starts() {
        assert_eq!(
            refusal(b"\x89PNG and more"),
            "images is no IDX file: it starts with the bytes [89, 50, 4e, 47], an IDX file of unsigned bytes (plain or \
             gzipped) with 00 00 08 and the number of dimensions"
        );
        assert_eq!(
            refusal(&[0, 0, 0x0d, 1, 0, 0, 0, 1, 0, 0, 0, 0]),
            "images holds elements of type 0x0d; only unsigned bytes, type 0x08, are read"
        );
        assert_eq!(refusal(&[0, 0, 8, 9]), "images has 9 dimensions; 1 to 4 are read");
        assert_eq!(refusal(&[0, 0, 8, 1, 0, 0, 0, 0]), "images has the shape [0], which holds no element");
    }

    #[test]
    fn a_header_that_promises_too_much_is_refused_before_anything_is_read() {
        let four_dimensions = [[0, 0, 8, 4], [255; 4], [255; 4], [255; 4], [255; 4]].concat();
        assert_eq!(
            refusal(&four_dimensions),
            "images has the shape [4294967295, 4294967295, 4294967295, 4294967295], more than 268435456 bytes: more than \
             any data set of this kind needs"
        );
    }

    #[test]
    fn a_changed_byte_in_a_gzip_stream_is_noticed() {
        let mut packed = gzip(&TWO_IMAGES);
        let checksum = packed.len() - 8;
        packed[checksum] ^= 1;
        assert!(matches!(read(&packed), Err(IdxError::Io { .. })));
    }
}
