use crate::idx_folder::IdxFolder;

/// 28 x 28 pixels, with two rows and columns of background on each edge; mean and standard deviation are those of the
/// whole set of 60,000 training images.
pub(crate) const FASHION_MNIST: IdxFolder =
    IdxFolder { sides: 28..=28, padded: 32, mean: 0.2860, deviation: 0.3530, classes: 10 };

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/fashion-mnist")
    }

    #[test]
    fn the_shipped_set_has_its_8000_images_in_balance_to_the_bit() {
        let data = FASHION_MNIST.load(&shipped()).unwrap();
        for (examples, of_each) in [(&data.train, 500), (&data.validation, 100), (&data.test, 200)] {
            for class in 0..10 {
                assert_eq!(examples.labels().iter().filter(|label| **label == class).count(), of_each);
            }
        }
        // Runs that are resumed and weights that were kept go by it.
        let digest = "sha256:5730436b5ab40673591480a3d151d5169060c334c009a4d5534e07a12cdbf253";
        assert_eq!(data.digest().to_string(), digest);
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = FASHION_MNIST.load(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("no `train-images-idx3-ubyte` in "), "{error}");
    }

    #[test]
    fn labels_for_other_images_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["train-images-idx3-ubyte.gz", "test-labels-idx1-ubyte.gz"] {
            let target = folder.path().join(name.replace("test", "train"));
            std::fs::copy(shipped().join(name), target).unwrap();
        }
        let error = FASHION_MNIST.load(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("holds an array of shape [2000], expected 5000 labels"), "{error}");
    }
}
