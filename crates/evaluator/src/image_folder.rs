use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Examples,
    folder_images::{FolderImages, Keep, StoredImage},
    image_file::ImageFault,
};

/// Names end in one of these, in whatever case.
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];

/// More resized pixels are not kept unless the configuration says so: 7,133 images of 224 x 224.
const MOST_BYTES: u64 = 1 << 30;

/// How images become a model's inputs, and whether they are kept in memory.
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
    /// The pixels of a part stay in memory if they take no more than this, three bytes each; files of a larger part are
    /// decoded anew for each batch. The pixels are the same.
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
/// Always true: every label names a class. The order is that of the classes and, within a class, of the files' names; the
/// bytes are the same on every machine.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledImages {
    /// Labels are places of classes in `classes`.
    pub examples: Examples,
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
    #[error("{} has changed since this command began, which read other bytes there: run it again", path.display())]
    Changed { path: PathBuf },
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
    /// Every file is read once. One that is no image or is cut off is an error that names it, the first by order if there
    /// are several; so is one that does not decode, of a part whose pixels are kept. Of others that shows in the batch
    /// that asks for it.
    pub fn read(&self, folder: &Path, part: ImagePart) -> Result<LabelledImages, ImageFolderError> {
        self.check()?;
        let classes = self.classes(folder)?;
        let part_folder = part_folder(folder, part)?;
        let Listing { files, others } = self.list(&part_folder, part, &classes)?;

        let needed = (files.len() as u64).saturating_mul(3 * u64::from(self.side) * u64::from(self.side));
        let keep = if needed <= self.most_bytes { Keep::Pixels } else { Keep::Path };
        let mut images: Vec<Option<StoredImage>> = files.iter().map(|_| None).collect();
        let load = |(into, (path, _)): (&mut Option<StoredImage>, &(PathBuf, u32))| {
            StoredImage::read(path, self, keep).map(|image| *into = Some(image)).err()
        };
        match images.par_iter_mut().zip(&files).find_map_first(load) {
            Some(fault) => Err(fault),
            None => {
                let labels = files.into_iter().map(|(_, class)| class).collect();
                let images = FolderImages::new(self, images.into_iter().flatten());
                Ok(LabelledImages { examples: Examples::folder_images(images, labels), classes, others })
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

    /// What each byte of red, green and blue becomes.
    pub(crate) fn levels(&self) -> [[f32; 256]; 3] {
        let level =
            |channel: usize, value: usize| (value as f32 / 255.0 - self.mean[channel]) / self.deviation[channel];
        [0, 1, 2].map(|channel| std::array::from_fn(|value| level(channel, value)))
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
