use std::{
    io,
    path::{Path, PathBuf},
};

use burn::{
    module::Module,
    store::{ModuleSnapshot, SafetensorsStore},
};
use maskwright_blueprint::{Digest, read_whole};

use crate::tensor_files::MOST_HEADER_BYTES;

/// Of one weight in a file: F64 is the widest type there is.
const MOST_WEIGHT_BYTES: u64 = 8;

/// Why weights could not be read into a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    #[error("{} cannot be read", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no weights for this model: {reason}; the weights must come from the same configuration, whole", path.display())]
    Unfit { path: PathBuf, reason: String },
}

/// A module's parameters as a safetensors file; the same parameters give the same bytes.
pub fn weights_to_bytes<M: Module>(module: &M) -> Vec<u8> {
    // The store's own metadata come in the order of a hash table, another one each time.
    let mut store = SafetensorsStore::from_bytes(None).clear_metadata().skip_enum_variants(true);
    module.save_into(&mut store).expect("saving into memory has nothing to fail on");
    store.get_bytes().expect("the store was just filled")
}

/// Reads a safetensors file into a module of the same architecture; every tensor must be there and fit, and no other.
///
/// A module that the file does not fit keeps the weights that it has. No more is read than those would take.
pub fn load_weights<M: Module>(module: &mut M, path: &Path) -> Result<(), WeightsError> {
    let unfit = |reason| WeightsError::Unfit { path: path.into(), reason };
    let limit = MOST_HEADER_BYTES + MOST_WEIGHT_BYTES * module.num_params() as u64;
    let bytes = read_whole(path, limit).map_err(|source| match source.kind() {
        io::ErrorKind::FileTooLarge => unfit(source.to_string()),
        _ => WeightsError::Io { path: path.into(), source },
    })?;
    // What does not fit is told below, in one line.
    let mut store =
        SafetensorsStore::from_bytes(Some(bytes)).skip_enum_variants(true).allow_partial(true).validate(false);
    // The store maps what fits before it tells what does not.
    let mut loaded = module.clone();
    let applied = loaded.load_from(&mut store).map_err(|error| unfit(error.to_string()))?;
    if let Some(error) = applied.errors.first() {
        return Err(unfit(error.to_string()));
    }
    if let Some((name, _)) = applied.missing.first() {
        return Err(unfit(format!("`{name}` and {} more tensors are missing", applied.missing.len() - 1)));
    }
    if let Some(name) = applied.unused.first() {
        return Err(unfit(format!("`{name}` is no tensor of this model")));
    }
    *module = loaded;
    Ok(())
}

/// Digest of a module's parameters by name, shape and value.
pub fn weights_digest<M: Module>(module: &M) -> Digest {
    let mut tensors: Vec<(String, Vec<u8>)> = module
        .collect(None, None, true)
        .into_iter()
        .map(|tensor| {
            let name = format!("{} {:?}", tensor.name, tensor.shape);
            (name, tensor.into_bytes().expect("the parameters lie in memory").to_vec())
        })
        .collect();
    tensors.sort();
    Digest::of(tensors.into_iter().flat_map(|(name, bytes)| [name.into_bytes(), bytes]))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{Encoder, EncoderConfig, EncoderInput};

    fn model(layers: u32, seed: u64) -> Encoder {
        let input = EncoderInput::Tokens { length: 8, vocabulary: 5 };
        EncoderConfig { input, width: 8, layers, heads: 2, mlp: 16, classes: 3 }.init(seed, &Device::flex())
    }

    #[test]
    fn weights_come_back_as_they_were_and_always_in_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let written = model(1, 1);
        std::fs::write(&path, weights_to_bytes(&written)).unwrap();
        let mut read = model(1, 2);
        assert_ne!(weights_digest(&read), weights_digest(&written));
        load_weights(&mut read, &path).unwrap();
        assert_eq!(weights_digest(&read), weights_digest(&written));
        assert!((0..8).all(|_| weights_to_bytes(&written) == weights_to_bytes(&read)));
    }

    #[test]
    fn a_truncated_file_and_another_architecture_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let bytes = weights_to_bytes(&model(1, 1));
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(load_weights(&mut model(1, 1), &path).is_err());
        std::fs::write(&path, &bytes).unwrap();
        let error = load_weights(&mut model(2, 1), &path).unwrap_err().to_string();
        assert!(error.contains("holds no weights for this model"), "{error}");
    }

    #[test]
    fn a_file_that_does_not_fit_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        // Every tensor of one layer, drawn from another seed, and those of a second layer.
        std::fs::write(&path, weights_to_bytes(&model(2, 2))).unwrap();
        let mut kept = model(1, 1);
        let error = load_weights(&mut kept, &path).unwrap_err().to_string();
        assert!(error.contains("is no tensor of this model"), "{error}");
        assert_eq!(weights_digest(&kept), weights_digest(&model(1, 1)));
    }

    #[test]
    fn a_file_larger_than_the_model_is_refused_unread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap(); // sparse: takes no room
        let error = load_weights(&mut model(1, 1), &path).unwrap_err().to_string();
        assert!(error.contains("holds no weights for this model: it holds more than "), "{error}");
    }
}
