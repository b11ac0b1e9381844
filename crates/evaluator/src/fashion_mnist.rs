use std::path::{Path, PathBuf};

use crate::{Examples, Idx, SecondMeasure, TaskData, TaskError};

/// Side of the images as they ship, and with two rows and columns of background on each edge.
const SIDE: usize = 28;
const PADDED: usize = 32;

/// Mean and standard deviation of the training pixels in [0, 1], of the whole set of 60,000 images.
const MEAN: f32 = 0.2860;
const DEVIATION: f32 = 0.3530;

/// Training images of the whole set that are kept for validation.
const VALIDATION: usize = 5000;

/// Reads the three splits of a Fashion-MNIST folder, as it ships or as its authors published it.
pub(crate) fn load(folder: &Path) -> Result<TaskData, TaskError> {
    let split = |name| load_split(folder, name);
    let data = match find(folder, &images("t10k")) {
        None => TaskData::new(split("train")?, split("validation")?, split("test")?),
        Some(_) => {
            let whole = split("train")?;
            let (train, validation) = whole.split_at(whole.len().saturating_sub(VALIDATION));
            TaskData::new(train, validation, split("t10k")?)
        }
    };
    Ok(TaskData { second: Some(SecondMeasure::Top5), ..data })
}

fn load_split(folder: &Path, split: &str) -> Result<Examples, TaskError> {
    let (image_path, images) = read(folder, &images(split))?;
    let (label_path, labels) = read(folder, &format!("{split}-labels-idx1-ubyte"))?;
    let content = |path: PathBuf, expected: String, found: String| Err(TaskError::Content { path, expected, found });
    let &[count, SIDE, SIDE] = images.shape() else {
        let found = format!("an array of shape {:?}", images.shape());
        return content(image_path, format!("images of {SIDE} x {SIDE}"), found);
    };
    if labels.shape() != [count] {
        return content(label_path, format!("{count} labels"), format!("an array of shape {:?}", labels.shape()));
    }
    if let Some(label) = labels.bytes().iter().find(|label| **label > 9) {
        return content(label_path, "labels 0 to 9".into(), format!("a label {label}"));
    }
    let pixels = images.bytes().chunks(SIDE * SIDE).flat_map(pad).collect();
    Ok(Examples::images(PADDED, 1, pixels, labels.bytes().iter().map(|label| u32::from(*label)).collect()))
}

fn images(split: &str) -> String {
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

/// One image with background around it, normalised.
fn pad(image: &[u8]) -> Vec<f32> {
    let normalised = |value: u8| (f32::from(value) / 255.0 - MEAN) / DEVIATION;
    let mut padded = vec![normalised(0); PADDED * PADDED];
    let edge = (PADDED - SIDE) / 2;
    for (y, row) in image.chunks(SIDE).enumerate() {
        for (x, value) in row.iter().enumerate() {
            padded[(y + edge) * PADDED + x + edge] = normalised(*value);
        }
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/fashion-mnist")
    }

    #[test]
    fn the_shipped_set_has_its_8000_images_in_balance() {
        let data = load(&shipped()).unwrap();
        for (examples, of_each) in [(&data.train, 500), (&data.validation, 100), (&data.test, 200)] {
            for class in 0..10 {
                assert_eq!(examples.labels().iter().filter(|label| **label == class).count(), of_each);
            }
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("no `train-images-idx3-ubyte` in "), "{error}");
    }

    #[test]
    fn labels_for_other_images_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["train-images-idx3-ubyte.gz", "test-labels-idx1-ubyte.gz"] {
            let target = folder.path().join(name.replace("test", "train"));
            std::fs::copy(shipped().join(name), target).unwrap();
        }
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("holds an array of shape [2000], expected 5000 labels"), "{error}");
    }
}
