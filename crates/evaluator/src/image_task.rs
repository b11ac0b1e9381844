//! Tasks about images in folders.

use std::path::Path;

use rand::{SeedableRng, rngs::ChaCha12Rng, seq::SliceRandom};

use crate::{
    Examples, ImageFolder, ImageFolderError, ImagePart, TaskData, TaskError,
    splits::{ORDER_SEED, part_off},
};

/// The splits of a set of images; the examples of each in an order drawn once and for all.
pub(crate) fn read(folder: &Path, preparation: &ImageFolder) -> Result<TaskData, TaskError> {
    let train = examples(folder, preparation, ImagePart::Train)?;
    let test = examples(folder, preparation, ImagePart::Test)?;
    match examples(folder, preparation, ImagePart::Validation) {
        Ok(validation) => Ok(TaskData { train, validation, test }),
        Err(ImageFolderError::Part { .. }) => {
            let fold = part_off(train.labels())?;
            Ok(TaskData { validation: train.select(&fold.held_out), train: train.select(&fold.train), test })
        }
        Err(error) => Err(error.into()),
    }
}

fn examples(folder: &Path, preparation: &ImageFolder, part: ImagePart) -> Result<Examples, ImageFolderError> {
    let images = preparation.read(folder, part)?;
    let mut order: Vec<usize> = (0..images.labels.len()).collect();
    order.shuffle(&mut ChaCha12Rng::seed_from_u64(ORDER_SEED));
    Ok(Examples::images(images.side, 3, images.pixels, images.labels).select(&order))
}
