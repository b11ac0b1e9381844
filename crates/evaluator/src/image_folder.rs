use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    image_file::{ImageFault, read_rgb},
    resize::resize_and_crop,
};

/// Names end in one of these, in whatever case.
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];

/// More resized pixels are not kept at once unless the configuration says so.
pub(crate) const MOST_BYTES: u64 = 4 << 30;

/// How images become a model's inputs, and how many are kept.
///
/// A set is a folder as ImageNet is laid out, `{train,val,test}/CLASS/*.{jpg,jpeg,png}`, or with `validation` for `val`;
/// one of `val` and `test` is enough.
/// Each image is resized (bicubic, antialiased, as torchvision does it through Pillow) until its shorter side has
/// `shorter` pixels, cut down to the `side` x `side` in its middle, scaled to [0, 1] and normalised. The default is what
/// most models of ImageNet were trained with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImageFolder {
    /// Pixels of the shorter side after resizing.
    pub shorter: u32,
    /// Pixels of each side of what is cut out of the middle.
    pub side: u32,
    /// Of red, green and blue over the training images, in [0, 1].
    pub mean: [f32; 3],
    /// Standard deviation of the same.
    pub deviation: [f32; 3],
    /// Only the first so many images of each class, by name; all of them if left out.
    pub most_of_each_class: Option<u32>,
    /// More memory than this is not taken for the pixels of one part.
    pub most_bytes: u64,
}

/// The parts of a set of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImagePart {
    Train,
    Validation,
    Test,
}

/// Labelled images, ready for a model.
///
/// Always true: for each label there are `3 * side * side` pixels, and every label names a class. The order is that of the
/// classes and, within a class, of the files' names; so are the bytes, on every machine.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledImages {
    /// Pixels of each side.
    pub side: usize,
    /// `[images, 3, side, side]`, normalised.
    pub pixels: Vec<f32>,
    /// Place of each image's class in `classes`.
    pub labels: Vec<u32>,
    /// Names of the folders in `train`, sorted.
    pub classes: Vec<String>,
    /// Files of the part whose names end in something else than jpg, jpeg or png; they were passed over.
    pub others: usize,
}

/// Why a folder of images could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageFolderError {
    #[error("{} cannot be read", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "no {} in {}: a folder of images holds train and, to test on, test or else val (or validation), in each of them one \
         folder a class, in those the images",
        names.join(" or "), folder.display()
    )]
    Part { folder: PathBuf, names: Vec<&'static str> },
    #[error("{} holds no folders: one is needed for each class, named as the class", folder.display())]
    NoClasses { folder: PathBuf },
    #[error("the name {} is not UTF-8: rename it, so that its class has a name", path.display())]
    Name { path: PathBuf },
    #[error("{} holds no image: put some there whose names end in jpg, jpeg or png, or remove the folder", folder.display())]
    EmptyClass { folder: PathBuf },
    #[error("{} is no class of the training images; those have {}", folder.display(), crate::text_table::quoted(classes))]
    OtherClass { folder: PathBuf, classes: Vec<String> },
    #[error("{} {fault}; save it anew in another program, or take it out of the folder", path.display())]
    Image { path: PathBuf, fault: ImageFault },
    #[error(
        "{} holds {images} images, which take {needed} bytes as {side} x {side} pixels, more than {limit}: take fewer \
         (`most_of_each_class`), make them smaller (`side`), or allow more (`most_bytes`)",
        folder.display()
    )]
    TooLarge { folder: PathBuf, images: u64, side: u32, needed: u64, limit: u64 },
    #[error("{what} is {found}; {allowed}")]
    Setting { what: &'static str, found: String, allowed: &'static str },
}

/// The images of one part, before any of them was opened.
struct Listing {
    /// With the class that each shows.
    files: Vec<(PathBuf, u32)>,
    others: usize,
}

impl Default for ImageFolder {
    fn default() -> Self {
        Self {
            shorter: 256,
            side: 224,
            mean: [0.485, 0.456, 0.406],
            deviation: [0.229, 0.224, 0.225],
            most_of_each_class: None,
            most_bytes: MOST_BYTES,
        }
    }
}

impl ImageFolder {
    /// Reads a part of a set, on all threads of the current pool.
    ///
    /// The folders' names and sizes decide before the first image is opened whether there is room; an image that does not
    /// decode is an error that names it, the first by order if there are several.
    pub fn read(&self, folder: &Path, part: ImagePart) -> Result<LabelledImages, ImageFolderError> {
        self.check()?;
        let classes = self.classes(folder)?;
        let part_folder = part_folder(folder, part)?;
        let listing = self.list(&part_folder, part, &classes)?;

        let stride = 3 * self.side as usize * self.side as usize;
        let images = listing.files.len() as u64;
        let needed = images.saturating_mul((stride * size_of::<f32>()) as u64);
        if needed > self.most_bytes {
            let (side, limit) = (self.side, self.most_bytes);
            return Err(ImageFolderError::TooLarge { folder: part_folder, images, side, needed, limit });
        }
        let mut pixels = vec![0.0; listing.files.len() * stride];
        let load = |(into, (path, _)): (&mut [f32], &(PathBuf, u32))| {
            let fault = |fault| ImageFolderError::Image { path: path.clone(), fault };
            read_rgb(path)
                .map(|image| {
                    self.normalise(&resize_and_crop(&image, self.shorter as usize, self.side as usize).bytes, into)
                })
                .map_err(fault)
                .err()
        };
        match pixels.par_chunks_exact_mut(stride).zip(&listing.files).find_map_first(load) {
            Some(error) => Err(error),
            None => {
                let labels = listing.files.into_iter().map(|(_, class)| class).collect();
                Ok(LabelledImages { side: self.side as usize, pixels, labels, classes, others: listing.others })
            }
        }
    }

    /// The names of a set's classes: of the folders in `train`, sorted.
    pub fn classes(&self, folder: &Path) -> Result<Vec<String>, ImageFolderError> {
        class_names(&part_folder(folder, ImagePart::Train)?)
    }

    fn check(&self) -> Result<(), ImageFolderError> {
        /// More than any published model's; a resized image then takes 200 MB.
        const LONGEST: u32 = 4096;
        let setting = |what, found: String, allowed| Err(ImageFolderError::Setting { what, found, allowed });
        if !(1..=LONGEST).contains(&self.side) {
            return setting("side", self.side.to_string(), "1 to 4096 pixels");
        }
        if !(self.side..=LONGEST).contains(&self.shorter) {
            return setting(
                "shorter",
                self.shorter.to_string(),
                "at least `side`, from which it is cut, and at most 4096 pixels",
            );
        }
        check_normalisation(&self.mean, &self.deviation)
    }

    /// The images of a part in their order: by class, then by name.
    fn list(&self, folder: &Path, part: ImagePart, classes: &[String]) -> Result<Listing, ImageFolderError> {
        let mut listing = Listing { files: Vec::new(), others: 0 };
        for name in class_names(folder)? {
            let class_folder = folder.join(&name);
            let Ok(class) = classes.binary_search(&name) else {
                return Err(ImageFolderError::OtherClass { folder: class_folder, classes: classes.into() });
            };
            let (mut images, others) = images_in(&class_folder)?;
            if images.is_empty() && part == ImagePart::Train {
                return Err(ImageFolderError::EmptyClass { folder: class_folder });
            }
            images.truncate(self.most_of_each_class.map_or(usize::MAX, |most| most as usize));
            listing.files.extend(images.into_iter().map(|path| (path, class as u32)));
            listing.others += others;
        }
        Ok(listing)
    }

    /// `[side, side, 3]` bytes to `[3, side, side]` numbers.
    fn normalise(&self, bytes: &[u8], into: &mut [f32]) {
        for (channel, plane) in into.chunks_exact_mut(bytes.len() / 3).enumerate() {
            for (pixel, value) in plane.iter_mut().zip(bytes.iter().skip(channel).step_by(3)) {
                *pixel = (f32::from(*value) / 255.0 - self.mean[channel]) / self.deviation[channel];
            }
        }
    }
}

impl ImagePart {
    /// Whether a set has it.
    pub(crate) fn is_in(self, folder: &Path) -> bool {
        part_folder(folder, self).is_ok()
    }

    /// What its folder may be called.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Train => &["train"],
            Self::Validation => &["validation", "val"],
            Self::Test => &["test"],
        }
    }
}

/// Refuses what pixels cannot be normalised by, one of each for a channel.
pub(crate) fn check_normalisation(mean: &[f32], deviation: &[f32]) -> Result<(), ImageFolderError> {
    let setting = |what, found: &f32, allowed| {
        let found = found.to_string();
        Err(ImageFolderError::Setting { what, found, allowed })
    };
    if let Some(mean) = mean.iter().find(|mean| !mean.is_finite()) {
        return setting("mean", mean, "a number, of pixels in [0, 1]");
    }
    match deviation.iter().find(|deviation| !(deviation.is_finite() && **deviation > 0.0)) {
        Some(deviation) => setting("deviation", deviation, "a number above 0, which pixels are divided by"),
        None => Ok(()),
    }
}

fn part_folder(folder: &Path, part: ImagePart) -> Result<PathBuf, ImageFolderError> {
    let found = part.names().iter().map(|name| folder.join(name)).find(|path| path.is_dir());
    found.ok_or_else(|| ImageFolderError::Part { folder: folder.into(), names: part.names().into() })
}

/// Names of the folders in a part's folder, sorted.
fn class_names(folder: &Path) -> Result<Vec<String>, ImageFolderError> {
    let mut names = Vec::new();
    for path in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        let name = path.file_name().and_then(|name| name.to_str());
        names.push(name.ok_or_else(|| ImageFolderError::Name { path: path.clone() })?.to_owned());
    }
    names.sort_unstable();
    match names.is_empty() {
        true => Err(ImageFolderError::NoClasses { folder: folder.into() }),
        false => Ok(names),
    }
}

/// The images in a class's folder, sorted by name, and how many other files there are.
fn images_in(folder: &Path) -> Result<(Vec<PathBuf>, usize), ImageFolderError> {
    let is_image = |path: &PathBuf| {
        let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
        ending.is_some_and(|ending| ENDINGS.iter().any(|wanted| ending == *wanted))
    };
    let (mut images, others): (Vec<_>, Vec<_>) = entries(folder)?.into_iter().partition(is_image);
    images.sort_unstable();
    Ok((images, others.len()))
}

/// What a folder holds, hidden files left out, in no order.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, ImageFolderError> {
    let io_error = |source| ImageFolderError::Io { path: folder.into(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            found.push(entry.path());
        }
    }
    Ok(found)
}
