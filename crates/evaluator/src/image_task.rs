//! Tasks about images in folders.

use std::path::Path;

use rand::{SeedableRng, rngs::ChaCha12Rng, seq::SliceRandom};

use crate::{
    Examples, ImageFolder, ImageFolderError, ImagePart, LabelledImages, SecondMeasure, TaskData, TaskError,
    splits::{ORDER_SEED, part_off},
};

/// The splits of a set of images; the examples of each in an order drawn once and for all. Top-5 accuracy is reported of
/// sets with more than five classes.
pub(crate) fn read(folder: &Path, preparation: &ImageFolder) -> Result<TaskData, TaskError> {
    let mut other_files = 0;
    let mut read = |part| -> Result<Examples, ImageFolderError> {
        let images = preparation.read(folder, part)?;
        other_files += images.others;
        Ok(examples(images))
    };
    let (train, test) = (read(ImagePart::Train)?, read(ImagePart::Test)?);
    let data = match read(ImagePart::Validation) {
        Ok(validation) => TaskData::new(train, validation, test),
        Err(ImageFolderError::Part { .. }) => {
            let fold = part_off(train.labels())?;
            TaskData::new(train.select(&fold.train), train.select(&fold.held_out), test)
        }
        Err(error) => return Err(error.into()),
    };
    let second = (preparation.classes(folder)?.len() > 5).then_some(SecondMeasure::Top5);
    Ok(TaskData { second, other_files, mirrors: true, ..data })
}

fn examples(images: LabelledImages) -> Examples {
    let mut order: Vec<usize> = (0..images.labels.len()).collect();
    order.shuffle(&mut ChaCha12Rng::seed_from_u64(ORDER_SEED));
    Examples::images(images.side, 3, images.pixels, images.labels).select(&order)
}
