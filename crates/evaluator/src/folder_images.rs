use std::{borrow::Cow, iter, path::Path, sync::Arc};

use maskwright_blueprint::Digest;
use rayon::prelude::*;

use crate::{
    ImageFault, ImageFolder, ImageFolderError,
    image_file::{check, decode, read_content},
    resize::resize_and_crop,
};

/// Goes into the digest of images: raised when the same files would give other pixels.
const VERSION: &str = "images 1";

/// Images of a folder in some order, each as it is or mirrored.
///
/// Always true: the pixels are the same whether they are kept or decoded anew for each batch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FolderImages {
    preparation: Arc<ImageFolder>,
    images: Vec<ShownImage>,
}

#[derive(Debug, Clone, PartialEq)]
struct ShownImage {
    image: Arc<StoredImage>,
    mirrored: bool,
}

/// An image of a folder, of which the pixels are kept or not.
#[derive(Debug, PartialEq)]
pub(crate) struct StoredImage {
    path: Box<Path>,
    /// Of the file's bytes when the folder was read: it must have no others later on.
    digest: Digest,
    /// `[side, side, 3]`, resized and cut.
    pixels: Option<Vec<u8>>,
}

/// Whether the pixels of images stay in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Pixels,
    /// Files are decoded anew whenever their pixels are asked for.
    Path,
}

impl FolderImages {
    pub(crate) fn new(preparation: &ImageFolder, images: impl IntoIterator<Item = StoredImage>) -> Self {
        let shown = |image| ShownImage { image: Arc::new(image), mirrored: false };
        Self { preparation: Arc::new(preparation.clone()), images: images.into_iter().map(shown).collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.images.len()
    }

    /// Pixels of each side.
    pub(crate) fn side(&self) -> usize {
        self.preparation.side as usize
    }

    /// Of the images at `indices`, normalised: `[indices, 3, side, side]`. On all threads of the current pool; of several
    /// files that do not decode the first is named.
    pub(crate) fn pixels(&self, indices: &[usize]) -> Result<Vec<f32>, ImageFolderError> {
        let side = self.side();
        let stride = 3 * side * side;
        let levels = self.preparation.levels();
        let fill = |(into, at): (&mut [f32], &usize)| {
            let ShownImage { image, mirrored } = &self.images[*at];
            let bytes = match image.pixels(&self.preparation) {
                Ok(bytes) => bytes,
                Err(fault) => return Some(fault),
            };
            normalise(&bytes, &levels, into);
            if *mirrored {
                into.chunks_exact_mut(side).for_each(<[f32]>::reverse);
            }
            None
        };
        let mut pixels = vec![0.0; indices.len() * stride];
        match pixels.par_chunks_exact_mut(stride).zip(indices).find_map_first(fill) {
            Some(fault) => Err(fault),
            None => Ok(pixels),
        }
    }

    /// The images at `indices`, in that order.
    pub(crate) fn select(&self, indices: &[usize]) -> Self {
        let images = indices.iter().map(|at| self.images[*at].clone()).collect();
        Self { preparation: self.preparation.clone(), images }
    }

    /// These images, then others that are prepared alike.
    pub(crate) fn followed_by(&self, others: &Self) -> Self {
        let images = [&self.images[..], &others.images].concat();
        Self { preparation: self.preparation.clone(), images }
    }

    /// These images, then their mirror images.
    pub(crate) fn with_mirrored(&self) -> Self {
        let mirror = |shown: &ShownImage| ShownImage { mirrored: !shown.mirrored, ..shown.clone() };
        let images = self.images.iter().map(mirror).collect();
        self.followed_by(&Self { preparation: self.preparation.clone(), images })
    }

    /// Everything that decides the pixels.
    pub(crate) fn identity(&self) -> impl Iterator<Item = String> {
        let ImageFolder { shorter, side, mean, deviation, .. } = &*self.preparation;
        let of = |ShownImage { image, mirrored }: &ShownImage| format!("{} {mirrored}", image.digest);
        iter::once(format!("{VERSION} {shorter} {side} {mean:?} {deviation:?}")).chain(self.images.iter().map(of))
    }
}

impl StoredImage {
    /// Reads a file once: what cannot be read, is no image or is cut off is refused now, and what else does not decode
    /// when its pixels are first asked for, now if they are kept.
    pub(crate) fn read(path: &Path, preparation: &ImageFolder, keep: Keep) -> Result<Self, ImageFolderError> {
        let fault = |fault| ImageFolderError::Image { path: path.into(), fault };
        let content = read_content(path).map_err(fault)?;
        let pixels = match keep {
            Keep::Pixels => Some(prepared(&content, preparation).map_err(fault)?),
            Keep::Path => {
                check(&content).map_err(fault)?;
                None
            }
        };
        Ok(Self { path: path.into(), digest: Digest::of([&content]), pixels })
    }

    /// `[side, side, 3]`, resized and cut.
    fn pixels(&self, preparation: &ImageFolder) -> Result<Cow<'_, [u8]>, ImageFolderError> {
        if let Some(pixels) = &self.pixels {
            return Ok(Cow::Borrowed(pixels));
        }
        let fault = |fault| ImageFolderError::Image { path: self.path.to_path_buf(), fault };
        let content = read_content(&self.path).map_err(fault)?;
        if Digest::of([&content]) != self.digest {
            return Err(ImageFolderError::Changed { path: self.path.to_path_buf() });
        }
        prepared(&content, preparation).map(Cow::Owned).map_err(fault)
    }
}

fn prepared(content: &[u8], preparation: &ImageFolder) -> Result<Vec<u8>, ImageFault> {
    let image = decode(content)?;
    Ok(resize_and_crop(&image, preparation.shorter as usize, preparation.side as usize).bytes)
}

/// `[side, side, 3]` bytes to `[3, side, side]` numbers.
fn normalise(bytes: &[u8], levels: &[[f32; 256]; 3], into: &mut [f32]) {
    for ((channel, plane), levels) in into.chunks_exact_mut(bytes.len() / 3).enumerate().zip(levels) {
        for (pixel, value) in plane.iter_mut().zip(bytes.iter().skip(channel).step_by(3)) {
            *pixel = levels[usize::from(*value)];
        }
    }
}
