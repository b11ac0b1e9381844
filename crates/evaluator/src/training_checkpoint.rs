//! The state of a training as files, so that a stopped training goes on as if it had not been.

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::{module::Module, optim::ModuleOptimizer, tensor::Bytes};
use maskwright_blueprint::{Digest, read_whole, write_whole};
use maskwright_transformer::{Model, load_weights, weights_to_bytes};
use serde::{Deserialize, Serialize};

/// Of `place.json`, which takes some 200.
const MOST_PLACE_BYTES: u64 = 1 << 16;

/// Of an optimiser's state: what frames it, and for each weight. AdamW keeps two moments in f32, 8 bytes a weight.
const MOST_STATE_BYTES: (u64, u64) = (16 << 20, 16);

/// What a training has reached.
pub(crate) struct Reached {
    pub model: Model,
    pub optimiser: ModuleOptimizer,
    pub place: Place,
    pub best: Option<Best>,
}

/// The weights of the best epoch so far.
pub(crate) struct Best {
    pub model: Model,
    pub accuracy: f64,
}

/// How far a training has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub steps: u64,
    /// Epochs since the best one.
    pub without_gain: u32,
    /// Whether `patience` is used up.
    pub stopped: bool,
}

/// Why a checkpoint was neither written nor read.
pub(crate) struct CheckpointFault(pub String);

/// `place.json`, which names the other files: whoever finds it finds them whole.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    training: String,
    place: Place,
    best: Option<f64>,
}

fn fault(error: impl std::fmt::Display) -> CheckpointFault {
    CheckpointFault(error.to_string())
}

/// Files of step `steps`: they are written beside those of an earlier step, and those are removed afterwards.
fn files(folder: &Path, steps: u64) -> [PathBuf; 3] {
    ["weights.safetensors", "optimiser.bpk", "best.safetensors"].map(|name| folder.join(format!("{steps}-{name}")))
}

pub(crate) fn write(folder: &Path, training: Digest, reached: &Reached) -> Result<(), CheckpointFault> {
    fs::create_dir_all(folder).map_err(fault)?;
    let [weights, optimiser, best] = files(folder, reached.place.steps);
    write_whole(&weights, &weights_to_bytes(&reached.model)).map_err(fault)?;
    write_whole(&optimiser, &reached.optimiser.into_bytes().map_err(fault)?).map_err(fault)?;
    if let Some(of) = &reached.best {
        write_whole(&best, &weights_to_bytes(&of.model)).map_err(fault)?;
    }
    let contents = Contents {
        training: training.to_string(),
        place: reached.place,
        best: reached.best.as_ref().map(|best| best.accuracy),
    };
    let json = serde_json::to_vec(&contents).map_err(fault)?;
    write_whole(&folder.join("place.json"), &json).map_err(fault)?;
    let current = files(folder, reached.place.steps);
    for file in fs::read_dir(folder).map_err(fault)?.flatten() {
        let path = file.path();
        if !current.contains(&path) && !path.ends_with("place.json") {
            let _ = fs::remove_file(path); // an old file does no harm
        }
    }
    Ok(())
}

/// `fresh` where `folder` holds no checkpoint of this training; else what it holds.
pub(crate) fn read(folder: &Path, training: Digest, fresh: Reached) -> Result<Reached, CheckpointFault> {
    let Ok(json) = read_whole(&folder.join("place.json"), MOST_PLACE_BYTES) else { return Ok(fresh) };
    let Ok(contents) = serde_json::from_slice::<Contents>(&json) else { return Ok(fresh) };
    if contents.training != training.to_string() {
        return Ok(fresh);
    }
    let [weights, optimiser, best] = files(folder, contents.place.steps);
    let load = |path: &Path| {
        let mut model = fresh.model.clone();
        load_weights(&mut model, path).map_err(fault)?;
        Ok(model)
    };
    let best = contents.best.map(|accuracy| Ok(Best { model: load(&best)?, accuracy })).transpose()?;
    let (frame, of_a_weight) = MOST_STATE_BYTES;
    let limit = frame + of_a_weight * fresh.model.num_params() as u64;
    let state = read_whole(&optimiser, limit).map_err(|why| fault(format!("{}: {why}", optimiser.display())))?;
    Ok(Reached {
        model: load(&weights)?,
        optimiser: fresh.optimiser.from_bytes(Bytes::from_bytes_vec(state)).map_err(fault)?,
        place: contents.place,
        best,
    })
}

/// The training came to its end.
pub(crate) fn remove(folder: &Path) {
    let _ = fs::remove_dir_all(folder); // what is left is overwritten by the next training that uses the folder
}
