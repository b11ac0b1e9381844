use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use crate::{Examples, Idx, ImageFolderError, SecondMeasure, TaskData, TaskError, image_folder::check_normalisation};

/// More memory than this is not taken for the pixels of one split.
const MOST_BYTES: u64 = 4 << 30;

/// Training images of a whole set that are kept for validation; a tenth of fewer than 50,000.
const VALIDATION: usize = 5000;

/// How the square grey images of a folder of IDX files, named as MNIST's are, become a model's inputs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IdxFolder {
    /// Sides that images may have.
    pub sides: RangeInclusive<usize>,
    /// The side that they get, at least the longest of them, by background on every edge.
    pub padded: usize,
    /// Of the training pixels, in [0, 1].
    pub mean: f32,
    /// Standard deviation of the same.
    pub deviation: f32,
    /// Labels lie below it.
    pub classes: u32,
}

impl IdxFolder {
    /// Reads the three splits; where test files are called `t10k`, as the sets' authors publish them, the last training
    /// images validate.
    pub fn load(&self, folder: &Path) -> Result<TaskData, TaskError> {
        check_normalisation(&[self.mean], &[self.deviation])?;
        if !(1..=256).contains(&self.classes) {
            let (found, allowed) = (self.classes.to_string(), "1 to 256, for a label is one byte");
            return Err(ImageFolderError::Setting { what: "classes", found, allowed }.into());
        }
        let split = |name| self.load_split(folder, name);
        let data = match find(folder, &image_file("t10k")) {
            None => TaskData::new(split("train")?, split("validation")?, split("test")?),
            Some(_) => {
                let whole = split("train")?;
                let (train, validation) = whole.split_at(whole.len() - VALIDATION.min(whole.len() / 10));
                TaskData::new(train, validation, split("t10k")?)
            }
        };
        Ok(TaskData { second: (self.classes > 5).then_some(SecondMeasure::Top5), ..data })
    }

    fn load_split(&self, folder: &Path, split: &str) -> Result<Examples, TaskError> {
        let (image_path, images) = read(folder, &image_file(split))?;
        let (label_path, labels) = read(folder, &format!("{split}-labels-idx1-ubyte"))?;
        let content =
            |path: PathBuf, expected: String, found: String| Err(TaskError::Content { path, expected, found });
        let (count, side) = match images.shape() {
            &[count, height, width] if height == width && self.sides.contains(&height) => (count, height),
            shape => return content(image_path, self.expected(), format!("an array of shape {shape:?}")),
        };
        if labels.shape() != [count] {
            return content(label_path, format!("{count} labels"), format!("an array of shape {:?}", labels.shape()));
        }
        if let Some(label) = labels.bytes().iter().find(|label| u32::from(**label) >= self.classes) {
            return content(label_path, format!("labels 0 to {}", self.classes - 1), format!("a label {label}"));
        }
        let most = MOST_BYTES / (size_of::<f32>() * self.padded * self.padded) as u64;
        if count as u64 > most {
            let expected = format!("at most {most}, which take {MOST_BYTES} bytes with {0} x {0} pixels", self.padded);
            return content(image_path, expected, format!("{count} images"));
        }
        let pixels = images.bytes().chunks(side * side).flat_map(|image| self.pad(image, side)).collect();
        Ok(Examples::images(self.padded, 1, pixels, labels.bytes().iter().map(|label| u32::from(*label)).collect()))
    }

    fn expected(&self) -> String {
        match (self.sides.start(), self.sides.end()) {
            (least, most) if least == most => format!("images of {most} x {most}"),
            (_, most) => format!("square images of at most {most} x {most}, which the model reads"),
        }
    }

    /// One image with background around it, normalised.
    fn pad(&self, image: &[u8], side: usize) -> Vec<f32> {
        let normalised = |value: u8| (f32::from(value) / 255.0 - self.mean) / self.deviation;
        let mut padded = vec![normalised(0); self.padded * self.padded];
        let edge = (self.padded - side) / 2;
        for (y, row) in image.chunks(side).enumerate() {
            for (x, value) in row.iter().enumerate() {
                padded[(y + edge) * self.padded + x + edge] = normalised(*value);
            }
        }
        padded
    }
}

fn image_file(split: &str) -> String {
    format!("{split}-images-idx3-ubyte")
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let candidates = [folder.join(format!("{name}.gz")), folder.join(name)];
    candidates.into_iter().find(|path| path.exists())
}

fn read(folder: &Path, name: &str) -> Result<(PathBuf, Idx), TaskError> {
    let path = find(folder, name).ok_or_else(|| TaskError::MissingFile { folder: folder.into(), name: name.into() })?;
    let idx = Idx::read(&path)?;
    Ok((path, idx))
}
