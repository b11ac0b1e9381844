//! Bicubic resizing as Pillow has it, and with it torchvision for image files: a pixel of a smaller image is a weighted
//! mean of all pixels beneath it (antialiasing), in whole numbers, rounded after the columns and again after the rows.

use std::ops::Range;

/// Weights are multiples of 2^-22: of 32 bits, 8 are the pixel's, and 2 leave room for the sign and for weights whose
/// absolute values sum to more than 1.
const FRACTION_BITS: u32 = 22;

/// How far the cubic reaches on either side, in pixels of the coarser image.
const REACH: f64 = 2.0;

/// An image of red, green and blue bytes, pixel by pixel, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RgbImage {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// `width * height * 3` of them.
    pub(crate) bytes: Vec<u8>,
}

/// The pixels that one resized pixel is a mean of.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Resizes an image until its shorter side has `shorter` pixels and returns the `side` x `side` in its middle.
///
/// Only what is returned is computed, so that an image of one row and a million columns takes no more memory than another.
///
/// # Panics
/// When the image has no pixels, or `side` is 0 or above `shorter`.
pub(crate) fn resize_and_crop(image: &RgbImage, shorter: usize, side: usize) -> RgbImage {
    assert!(image.width > 0 && image.height > 0, "an image has pixels");
    assert!((1..=shorter).contains(&side), "the square to cut out lies within the resized image");
    let least = image.width.min(image.height);
    let taps = |from: usize| {
        // torchvision rounds the longer side down.
        let to = (shorter as u64 * from as u64 / least as u64) as usize;
        taps(from, to, middle(to, side))
    };
    let (columns, rows) = (taps(image.width), taps(image.height));

    let above = rows.iter().map(|taps| taps.first).min().expect("a square has rows");
    let below = rows.iter().map(|taps| taps.first + taps.weights.len()).max().expect("a square has rows");
    let mut narrowed = Vec::with_capacity((below - above) * side * 3); // [rows, side, 3]
    for row in image.bytes.chunks_exact(image.width * 3).take(below).skip(above) {
        for taps in &columns {
            narrowed.extend(taps.mean(|at| &row[at * 3..]));
        }
    }
    let mut bytes = Vec::with_capacity(side * side * 3); // [side, side, 3]
    for taps in &rows {
        for column in 0..side {
            bytes.extend(taps.mean(|at| &narrowed[((at - above) * side + column) * 3..]));
        }
    }
    RgbImage { width: side, height: side, bytes }
}

impl Taps {
    /// The mean of the pixels that start at `pixel(first)`, `pixel(first + 1)`, ...
    fn mean<'a>(&self, pixel: impl Fn(usize) -> &'a [u8]) -> [u8; 3] {
        let mut sums = [1 << (FRACTION_BITS - 1); 3];
        for (offset, weight) in self.weights.iter().enumerate() {
            for (sum, value) in sums.iter_mut().zip(pixel(self.first + offset)) {
                *sum += i32::from(*value) * weight;
            }
        }
        sums.map(|sum: i32| (sum >> FRACTION_BITS).clamp(0, 255) as u8)
    }
}

/// Where the middle `side` of `length` pixels lie; half a pixel goes to the even number, as Python rounds.
fn middle(length: usize, side: usize) -> Range<usize> {
    let start = ((length - side) as f64 / 2.0).round_ties_even() as usize;
    start..start + side
}

/// What the resized pixels `wanted` are means of, when `from` pixels become `to`.
fn taps(from: usize, to: usize, wanted: Range<usize>) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    // Enlarged, the cubic spans pixels of the given image; reduced, of the new one.
    let stretch = scale.max(1.0);
    let taps = |at: usize| {
        let centre = (at as f64 + 0.5) * scale;
        let first = (centre - REACH * stretch + 0.5).max(0.0) as usize;
        let end = ((centre + REACH * stretch + 0.5) as usize).min(from);
        let weights: Vec<f64> =
            (first..end).map(|pixel| cubic((pixel as f64 + 0.5 - centre) * (1.0 / stretch))).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| (weight / sum * f64::from(1 << FRACTION_BITS)).round() as i32;
        Taps { first, weights: weights.into_iter().map(fixed).collect() }
    };
    wanted.map(taps).collect()
}

/// Keys's cubic convolution kernel (1981) with a = -1/2.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < REACH => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pixel (x, y) of channel c is `x^2 * 37 + y * 91 + c * 53 + x * y`, modulo 256.
    fn image(width: usize, height: usize) -> RgbImage {
        let pixel = |x: usize, y: usize| [0, 1, 2].map(|c| (x * x * 37 + y * 91 + c * 53 + x * y) as u8);
        let bytes = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
        RgbImage { width, height, bytes }
    }

    // The numbers of the next two tests are those of Pillow 13.0.0 for the same images:
    //
    //     w, h = image.size
    //     resized = image.resize((shorter * w // min(w, h), shorter * h // min(w, h)), Image.BICUBIC)
    //     left, top = round((resized.width - side) / 2), round((resized.height - side) / 2)
    //     bytes = resized.crop((left, top, left + side, top + side)).tobytes()

    #[test]
    fn small_images_are_resized_as_pillow_resizes_them() {
        assert_eq!(
            resize_and_crop(&image(11, 8), 4, 3).bytes,
            [
                136, 149, 128, 149, 143, 115, 96, 134, 145, 99, 132, 123, 137, 139, 132, 132, 100, 130, 109, 138, 132,
                109, 128, 134, 143, 124, 103
            ]
        );
        assert_eq!(
            resize_and_crop(&image(5, 7), 9, 4).bytes,
            [
                214, 28, 63, 161, 63, 120, 79, 144, 174, 32, 104, 154, 88, 72, 129, 128, 139, 93, 155, 216, 58, 108,
                168, 135, 59, 138, 201, 98, 168, 120, 134, 187, 29, 140, 196, 102, 138, 204, 255, 78, 140, 194, 18, 71,
                101, 113, 182, 67
            ]
        );
    }

    #[test]
    fn large_and_narrow_images_are_resized_as_pillow_resizes_them() {
        let sums = |width, height, shorter, side| {
            let bytes = resize_and_crop(&image(width, height), shorter, side).bytes;
            let weighted: u64 = bytes.iter().zip(1..).map(|(value, at): (_, u64)| at * u64::from(*value)).sum();
            (bytes.iter().map(|value| u64::from(*value)).sum::<u64>(), weighted)
        };
        assert_eq!(sums(300, 200, 64, 56), (1197522, 5633527116));
        assert_eq!(sums(97, 131, 150, 149), (8503222, 283357918911));
        assert_eq!(sums(1, 40, 7, 7), (18095, 1169560));
        assert_eq!(sums(40, 1, 7, 7), (13552, 999649));
    }

    #[test]
    fn an_image_of_the_right_size_stays_as_it_is() {
        assert_eq!(resize_and_crop(&image(6, 6), 6, 6), image(6, 6));
        // Four rows and columns are cut off, two on each side: the first pixel left is (2, 2).
        assert_eq!(resize_and_crop(&image(6, 6), 6, 2).bytes[..3], image(6, 6).bytes[14 * 3..15 * 3]);
    }

    #[test]
    fn half_a_pixel_goes_to_the_even_number() {
        assert_eq!([middle(5, 2), middle(7, 2), middle(8, 2)], [2..4, 2..4, 3..5]);
    }

    #[test]
    fn a_strip_of_a_million_columns_takes_no_more_memory_than_its_middle() {
        let strip = RgbImage { width: 1 << 20, height: 1, bytes: vec![77; 3 << 20] };
        let middle = resize_and_crop(&strip, 224, 224);
        assert_eq!(middle.bytes, vec![77; 224 * 224 * 3]);
    }
}
