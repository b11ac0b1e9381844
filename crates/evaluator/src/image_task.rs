//! Tasks about images in folders.

use std::path::Path;

use rand::{SeedableRng, rngs::ChaCha12Rng, seq::SliceRandom};

use crate::{
    Examples, ImageFolder, ImageFolderError, ImagePart, SecondMeasure, TaskData, TaskError,
    splits::{ORDER_SEED, part_off},
};

/// The splits of a set of images; the examples of each in an order drawn once and for all. Where there is no test part, as
/// in ImageNet, the validation part tests and a tenth of each class of the training images validates. Top-5 accuracy is
/// reported of sets with more than five classes.
pub(crate) fn read(folder: &Path, preparation: &ImageFolder) -> Result<TaskData, TaskError> {
    let mut other_files = 0;
    let mut read = |part| -> Result<Examples, ImageFolderError> {
        let images = preparation.read(folder, part)?;
        other_files += images.others;
        Ok(in_drawn_order(images.examples))
    };
    let validates = ImagePart::Validation.is_in(folder);
    // The labels of ImageNet's own test images are not public: figures are those of its validation images.
    let tests_on_validation = validates && !ImagePart::Test.is_in(folder);
    let train = read(ImagePart::Train)?;
    let test = read(if tests_on_validation { ImagePart::Validation } else { ImagePart::Test })?;
    let data = if validates && !tests_on_validation {
        TaskData::new(train, read(ImagePart::Validation)?, test)
    } else {
        let fold = part_off(train.labels())?;
        TaskData::new(train.select(&fold.train), train.select(&fold.held_out), test)
    };
    let second = (preparation.classes(folder)?.len() > 5).then_some(SecondMeasure::Top5);
    Ok(TaskData { second, other_files, mirrors: true, ..data })
}

fn in_drawn_order(examples: Examples) -> Examples {
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.shuffle(&mut ChaCha12Rng::seed_from_u64(ORDER_SEED));
    examples.select(&order)
}
