use std::path::{Path, PathBuf};

use burn::{
    module::Module,
    store::{ModuleSnapshot, SafetensorsStore},
};
use maskwright_blueprint::Digest;

/// Why weights could not be read into a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    #[error("{} cannot be read", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} holds no weights for this model: {reason}", path.display())]
    Unfit { path: PathBuf, reason: String },
}

/// A module's parameters as a safetensors file.
pub fn weights_to_bytes<M: Module>(module: &M) -> Vec<u8> {
    let mut store = SafetensorsStore::from_bytes(None);
    module.save_into(&mut store).expect("saving into memory has nothing to fail on");
    store.get_bytes().expect("the store was just filled")
}

/// Reads a safetensors file into a module of the same architecture; every tensor must be there and fit.
pub fn load_weights<M: Module>(module: &mut M, path: &Path) -> Result<(), WeightsError> {
    let bytes = std::fs::read(path).map_err(|source| WeightsError::Io { path: path.into(), source })?;
    let unfit = |reason| WeightsError::Unfit { path: path.into(), reason };
    let mut store = SafetensorsStore::from_bytes(Some(bytes));
    let applied = module.load_from(&mut store).map_err(|error| unfit(error.to_string()))?;
    if let Some((name, _)) = applied.missing.first() {
        return Err(unfit(format!("`{name}` and {} more tensors are missing", applied.missing.len() - 1)));
    }
    if let Some(name) = applied.unused.first() {
        return Err(unfit(format!("`{name}` is no tensor of this model")));
    }
    Ok(())
}

/// Digest of a module's parameters by name, shape and value.
pub fn weights_digest<M: Module>(module: &M) -> Digest {
    let mut tensors: Vec<(String, Vec<u8>)> = module
        .collect(None, None, false)
        .into_iter()
        .map(|tensor| {
            let name = format!("{} {:?}", tensor.name, tensor.shape);
            (name, tensor.into_bytes().expect("the parameters lie in memory").to_vec())
        })
        .collect();
    tensors.sort();
    Digest::of(tensors.into_iter().flat_map(|(name, bytes)| [name.into_bytes(), bytes]))
}
