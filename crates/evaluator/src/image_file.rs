//! JPEG and PNG files as red, green and blue bytes.

use std::{io, path::Path, sync::Mutex};

use maskwright_blueprint::read_whole;
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;
use zune_png::PngDecoder;

use crate::resize::RgbImage;

/// Longer files are refused; photographs have some megabytes.
const MOST_FILE_BYTES: u64 = 64 << 20;

/// More pixels are refused: ImageNet's largest image has 9331 x 6530 of them, 61 million.
const MOST_PIXELS: usize = 1 << 26;

/// Images of more pixels than this are decoded one at a time. A decoder takes up to 20 bytes a pixel, so that a folder of
/// the largest images takes 1.3 GB and not as much for each thread.
const LARGE_PIXELS: usize = 1 << 23;

static LARGE_IMAGE: Mutex<()> = Mutex::new(());

const JPEG_START: [u8; 2] = [0xff, 0xd8];
const PNG_START: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// What of a PNG file makes its picture. The rest is left out: text and profiles may unpack to gigabytes.
const PICTURE_CHUNKS: [&[u8; 4]; 5] = [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"];

/// What is wrong with an image file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageFault {
    #[error("cannot be read: {0}")]
    Io(io::Error),
    #[error("has more than {MOST_FILE_BYTES} bytes")]
    LongFile,
    #[error("has {width} x {height} pixels, more than {MOST_PIXELS} in all")]
    TooLarge { width: usize, height: usize },
    #[error("is neither JPEG nor PNG: it starts with the bytes {found:02x?}")]
    Foreign { found: Vec<u8> },
    #[error("does not decode: {reason}")]
    Broken { reason: String },
}

/// A file's bytes.
pub(crate) fn read_content(path: &Path) -> Result<Vec<u8>, ImageFault> {
    read_whole(path, MOST_FILE_BYTES).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => ImageFault::LongFile,
        _ => ImageFault::Io(error),
    })
}

/// The picture of a file's bytes, JPEG or PNG as the first of them say.
///
/// As Pillow's `convert("RGB")` has it: grey becomes three equal channels, opacity is left out, and so is a camera's
/// orientation. Of 16 bits the upper 8 are kept.
pub(crate) fn decode(content: &[u8]) -> Result<RgbImage, ImageFault> {
    match Form::of(content)? {
        Form::Jpeg => {
            let Opened { mut decoder, size: Size { width, height } } = open_jpeg(content)?;
            let bytes = in_turn(width, height, || decoder.decode().map_err(broken))?;
            rgb(width, height, bytes, ColorSpace::RGB)
        }
        Form::Png => {
            let picture = picture_chunks(content)?;
            let Opened { mut decoder, size: Size { width, height } } = open_png(&picture)?;
            let colours = decoder.colorspace().ok_or_else(no_size)?;
            let bytes = in_turn(width, height, || decoder.decode_raw().map_err(broken))?;
            rgb(width, height, bytes, colours)
        }
    }
}

/// Refuses what is seen to be no picture without decoding it: another form, no size or too large a one, an end that is
/// cut off.
pub(crate) fn check(content: &[u8]) -> Result<(), ImageFault> {
    match Form::of(content)? {
        Form::Jpeg => open_jpeg(content).map(drop),
        Form::Png => open_png(&picture_chunks(content)?).map(drop),
    }
}

enum Form {
    Jpeg,
    Png,
}

/// A decoder behind the headers of a picture that is not too large.
struct Opened<D> {
    decoder: D,
    size: Size,
}

struct Size {
    width: usize,
    height: usize,
}

impl Form {
    fn of(content: &[u8]) -> Result<Self, ImageFault> {
        if content.starts_with(&JPEG_START) {
            Ok(Self::Jpeg)
        } else if content.starts_with(&PNG_START) {
            Ok(Self::Png)
        } else {
            Err(ImageFault::Foreign { found: content.iter().take(4).copied().collect() })
        }
    }
}

impl Size {
    fn checked(dimensions: Option<(usize, usize)>) -> Result<Self, ImageFault> {
        let (width, height) = dimensions.ok_or_else(no_size)?;
        match width.saturating_mul(height) {
            0 => Err(ImageFault::Broken { reason: "it has no pixels".into() }),
            pixels if pixels > MOST_PIXELS => Err(ImageFault::TooLarge { width, height }),
            _ => Ok(Self { width, height }),
        }
    }
}

/// Strict: what is broken off or damaged is refused and not filled with grey.
fn options() -> DecoderOptions {
    DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(MOST_PIXELS)
        .set_max_height(MOST_PIXELS)
        .png_set_confirm_crc(true)
        .inflate_set_confirm_adler(true)
}

fn open_jpeg(content: &[u8]) -> Result<Opened<JpegDecoder<ZCursor<&[u8]>>>, ImageFault> {
    if !ends_behind_last_scan(content) {
        return Err(ImageFault::Broken { reason: "it is cut off: no end is marked behind its last scan".into() });
    }
    let options = options().jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(content), options);
    decoder.decode_headers().map_err(broken)?;
    let size = Size::checked(decoder.dimensions())?;
    Ok(Opened { decoder, size })
}

/// Of a PNG file's [`picture_chunks`], whose checksums are looked at already.
fn open_png(picture: &[u8]) -> Result<Opened<PngDecoder<ZCursor<&[u8]>>>, ImageFault> {
    let mut decoder = PngDecoder::new_with_options(ZCursor::new(picture), options().png_set_strip_to_8bit(true));
    decoder.decode_headers().map_err(broken)?;
    let size = Size::checked(decoder.dimensions())?;
    Ok(Opened { decoder, size })
}

/// Whether a JPEG file marks its end behind the start of its last scan. The decoder fills up the last pixels when some
/// bytes are missing; within a scan the end mark does not occur by chance.
fn ends_behind_last_scan(content: &[u8]) -> bool {
    const SCAN: [u8; 2] = [0xff, 0xda];
    const END: [u8; 2] = [0xff, 0xd9];
    let scan = content.windows(2).rposition(|pair| pair == SCAN);
    scan.is_some_and(|scan| content[scan..].windows(2).any(|pair| pair == END))
}

/// Decodes an image, alone if it is large.
fn in_turn<T>(width: usize, height: usize, decode: impl FnOnce() -> T) -> T {
    let is_large = width * height > LARGE_PIXELS;
    let _turn = is_large.then(|| LARGE_IMAGE.lock().unwrap_or_else(|poison| poison.into_inner()));
    decode()
}

/// Three bytes a pixel, of one to four.
fn rgb(width: usize, height: usize, bytes: Vec<u8>, colours: ColorSpace) -> Result<RgbImage, ImageFault> {
    let bytes = match colours {
        ColorSpace::RGB => bytes,
        ColorSpace::RGBA => bytes.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        ColorSpace::Luma => bytes.into_iter().flat_map(|grey| [grey; 3]).collect(),
        ColorSpace::LumaA => bytes.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        other => return Err(ImageFault::Broken { reason: format!("its colours are {other:?}") }),
    };
    match bytes.len() == width * height * 3 {
        true => Ok(RgbImage { width, height, bytes }),
        false => Err(ImageFault::Broken { reason: "its pixels are not all there".into() }),
    }
}

/// A PNG file without the chunks that do not make its picture, nor anything behind its end.
fn picture_chunks(content: &[u8]) -> Result<Vec<u8>, ImageFault> {
    let cut_off = || ImageFault::Broken { reason: "it ends within a chunk".into() };
    let mut picture = PNG_START.to_vec();
    let mut rest = &content[PNG_START.len()..];
    loop {
        // A chunk is its length, its name, so many bytes, and a checksum.
        let (length, _) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
        let bytes = (u32::from_be_bytes(*length) as usize).saturating_add(12);
        let (chunk, others) = rest.split_at_checked(bytes).ok_or_else(cut_off)?;
        let name = &chunk[4..8];
        if PICTURE_CHUNKS.iter().any(|wanted| *wanted == name) {
            picture.extend_from_slice(chunk);
        }
        if name == b"IEND" {
            return Ok(picture);
        }
        rest = others;
    }
}

fn broken(error: impl std::fmt::Debug) -> ImageFault {
    ImageFault::Broken { reason: format!("{error:?}") }
}

fn no_size() -> ImageFault {
    ImageFault::Broken { reason: "it says no size".into() }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references/images")
    }

    /// Name and content of each picture, in order.
    fn pictures() -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap());
        let mut pictures: Vec<_> = entries
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
            .collect();
        pictures.sort();
        pictures
    }

    #[test]
    fn pixels_are_those_that_pillow_reads() {
        let references = std::fs::read(folder().with_file_name("images.json")).unwrap();
        let references: Value = serde_json::from_slice(&references).unwrap();
        let number = |value: &Value| value.as_u64().unwrap() as usize;
        for (name, _) in pictures() {
            let image = decode(&read_content(&folder().join(&name)).unwrap()).unwrap();
            assert_eq!((image.width, image.height), (number(&references["width"]), number(&references["height"])));
            let expected = references["bytes"][&name].as_array().unwrap();
            assert_eq!(image.bytes.len(), expected.len());
            // JPEG leaves the rounding of its cosines, and how coarse colours are spread, to the decoder.
            let allowed = match name.as_str() {
                "subsampled.jpg" => 12,
                name if name.ends_with(".jpg") => 2,
                _ => 0,
            };
            let most = image
                .bytes
                .iter()
                .zip(expected)
                .map(|(value, expected)| number(expected).abs_diff((*value).into()))
                .max();
            assert!(most <= Some(allowed), "{name} differs by up to {most:?}");
        }
    }

    #[test]
    fn a_file_that_is_cut_off_anywhere_is_refused() {
        for (name, content) in pictures() {
            let read: Vec<_> = (0..content.len()).filter(|&end| decode(&content[..end]).is_ok()).collect();
            assert!(read.is_empty(), "{name} of {} bytes is read when cut after {read:?}", content.len());
            let passed: Vec<_> = (0..content.len()).filter(|&end| check(&content[..end]).is_ok()).collect();
            assert!(
                passed.is_empty(),
                "{name} of {} bytes is not decoded, and passes when cut after {passed:?}",
                content.len()
            );
            assert!(check(&content).is_ok(), "{name}");
        }
    }

    #[test]
    fn whatever_a_byte_is_changed_to_decoding_ends() {
        for (_, content) in pictures() {
            for at in 0..content.len() {
                for change in [1, 0x80, 0xff] {
                    let mut changed = content.clone();
                    changed[at] ^= change;
                    // Whether it is refused depends on the byte; what counts is that neither panics nor runs away.
                    if let Ok(image) = decode(&changed) {
                        assert_eq!(image.bytes.len(), image.width * image.height * 3);
                    }
                }
            }
        }
    }

    #[test]
    fn a_changed_byte_of_a_png_picture_is_noticed() {
        let (name, mut content) = pictures().into_iter().find(|(name, _)| name == "colour.png").unwrap();
        let middle = content.windows(4).position(|name| name == b"IDAT").unwrap() + 20;
        content[middle] ^= 1;
        assert!(decode(&content).is_err(), "{name}");
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_unpacked() {
        let (_, mut content) = pictures().into_iter().find(|(name, _)| name == "colour.png").unwrap();
        // Width and height stand behind the signature and the first chunk's length and name; its checksum behind them.
        content[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
        let mut checksum = flate2::Crc::new();
        checksum.update(&content[12..29]);
        content[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
        for error in [decode(&content).unwrap_err(), check(&content).unwrap_err()] {
            assert_eq!(error.to_string(), "has 16384 x 16384 pixels, more than 67108864 in all");
        }
    }

    #[test]
    fn text_in_a_png_file_is_not_unpacked() {
        let (_, content) = pictures().into_iter().find(|(name, _)| name == "colour.png").unwrap();
        let text = [b"\0\0\0\x04zTXt".as_slice(), b"text", &[0; 4]].concat();
        let with_text = [&content[..33], &text, &content[33..]].concat();
        assert_eq!(picture_chunks(&with_text).unwrap(), content);
    }
}
