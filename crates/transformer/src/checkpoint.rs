use std::{
    io,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use maskwright_blueprint::read_whole;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Activation, Loading, Tokeniser, parameters::Parameters, tensor_files::TensorFiles};

const MOST_CONFIG_BYTES: u64 = 1 << 20;
/// XLM-RoBERTa's 250,000 pieces take 17 MB.
pub(crate) const MOST_TOKENISER_BYTES: u64 = 128 << 20;

/// A model's folder in Hugging Face's layout: `config.json`, `model.safetensors` (or shards with
/// `model.safetensors.index.json`) and, for text, `tokenizer.json`.
///
/// Nothing in such a folder is trusted: files are read up to a limit, and no memory is taken for a tensor before its
/// shape was found in `config.json` and its bytes in the file.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: Value,
}

/// Why a folder gives no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    #[error("{} cannot be read", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds more than {limit} bytes, too much for such a file", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error(
        "no `{file}` in {}: a model's folder holds config.json, model.safetensors and, for text, tokenizer.json, as \
         `save_pretrained` writes them",
        folder.display()
    )]
    MissingFile { folder: PathBuf, file: &'static str },
    #[error("{} is no JSON of the expected form", path.display())]
    Json {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{found}` in {}/config.json is no architecture that is built here: {known}", folder.display())]
    Architecture { folder: PathBuf, found: String, known: String },
    #[error("{}/config.json names no `model_type`: those that are built here are {known}", folder.display())]
    NoArchitecture { folder: PathBuf, known: String },
    #[error("`{field}` is {asked}, the model in {} has {positions} positions: lower it or leave it out", folder.display())]
    Positions { field: &'static str, asked: u32, positions: u32, folder: PathBuf },
    #[error("no `{shard}` in {}, and `{index}` there names it: get the missing file again", folder.display())]
    MissingShard { folder: PathBuf, shard: String, index: &'static str },
    #[error("{}/config.json asks for what is not built here: {reason}", folder.display())]
    Config { folder: PathBuf, reason: String },
    #[error("{} is no whole safetensors file: {reason}; get it again", path.display())]
    Tensors { path: PathBuf, reason: String },
    /// Every tensor that is missing, misshapen or unknown, one a line.
    #[error("{} holds no weights for this model:{}", folder.display(), list(faults))]
    Weights { folder: PathBuf, faults: Vec<String> },
    #[error("{} is no tokeniser: {reason}", path.display())]
    Tokeniser { path: PathBuf, reason: String },
    #[error(
        "{asked} tokens leave no room for text beside {special} special ones: raise `length` (`source_length` or \
         `target_length` of a translator)"
    )]
    Length { asked: usize, special: usize },
    #[error(
        "{rows} texts of up to {longest} tokens are more than {most} tokens with padding, too much to hold: lower `length` \
         (`source_length` and `target_length` of a translator), or give fewer texts"
    )]
    TooManyTokens { rows: usize, longest: usize, most: usize },
}

/// At most so many faults are spelled out: a file of another model has thousands.
const MOST_FAULTS: usize = 40;

fn list(faults: &[String]) -> String {
    let mut text: String = faults.iter().take(MOST_FAULTS).map(|fault| format!("\n  {fault}")).collect();
    if faults.len() > MOST_FAULTS {
        text += &format!("\n  and {} more", faults.len() - MOST_FAULTS);
    }
    text
}

impl Checkpoint {
    /// Reads `config.json`.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let bytes = read_in(folder, "config.json", MOST_CONFIG_BYTES)?;
        let config = serde_json::from_slice(&bytes)
            .map_err(|source| CheckpointError::Json { path: folder.join("config.json"), source })?;
        Ok(Self { folder: folder.into(), config })
    }

    /// The architecture's name, `model_type` in `config.json`; empty where there is none.
    pub fn architecture(&self) -> &str {
        self.config.get("model_type").and_then(Value::as_str).unwrap_or_default()
    }

    /// `tokenizer.json`; refused if it knows tokens that the model lacks.
    pub fn tokeniser(&self) -> Result<Tokeniser, CheckpointError> {
        const FILE: &str = "tokenizer.json";
        let path = self.folder.join(FILE);
        let tokeniser = Tokeniser::new(&read_in(&self.folder, FILE, MOST_TOKENISER_BYTES)?, &path)?;
        match self.config.get("vocab_size").and_then(Value::as_u64) {
            Some(size) if u64::from(tokeniser.vocabulary()) > size => {
                let reason = format!("it gives tokens up to {}, the model knows {size}", tokeniser.vocabulary() - 1);
                Err(CheckpointError::Tokeniser { path, reason })
            }
            _ => Ok(tokeniser),
        }
    }

    /// `config.json` as a family reads it.
    pub(crate) fn config<T: DeserializeOwned>(&self) -> Result<T, CheckpointError> {
        serde_json::from_value(self.config.clone())
            .map_err(|source| CheckpointError::Json { path: self.folder.join("config.json"), source })
    }

    /// How many labels `config.json` names: `id2label`, else `num_labels`, else two as in the transformers library.
    pub(crate) fn labels(&self) -> u32 {
        let names = self.config.get("id2label").and_then(Value::as_object).map(|names| names.len() as u64);
        let count = names.or_else(|| self.config.get("num_labels").and_then(Value::as_u64));
        count.map_or(2, |count| u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// The weights, none of them read yet.
    pub(crate) fn parameters(&self, loading: &Loading, device: &Device) -> Result<Parameters, CheckpointError> {
        Ok(Parameters::from_files(TensorFiles::open(&self.folder)?, &self.folder, loading, device))
    }

    /// An error about `config.json`.
    pub(crate) fn refuse(&self, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Config { folder: self.folder.clone(), reason: reason.into() }
    }

    /// An error about `model_type`.
    pub(crate) fn unknown(&self, known: &[&str]) -> CheckpointError {
        let (folder, known) = (self.folder.clone(), known.join(", "));
        match self.architecture() {
            "" => CheckpointError::NoArchitecture { folder, known },
            found => CheckpointError::Architecture { folder, found: found.chars().take(80).collect(), known },
        }
    }

    /// Refuses more tokens than the model has positions; by default as many as there are. `field` is what a
    /// configuration calls them.
    pub(crate) fn length(
        &self,
        field: &'static str,
        asked: Option<u32>,
        positions: u32,
    ) -> Result<u32, CheckpointError> {
        match asked.unwrap_or(positions) {
            asked if asked > positions => {
                Err(CheckpointError::Positions { field, asked, positions, folder: self.folder.clone() })
            }
            length => Ok(length),
        }
    }

    /// The activation that `config.json` gives as `field`.
    pub(crate) fn activation(&self, field: &str, name: &str) -> Result<Activation, CheckpointError> {
        Activation::named(name).ok_or_else(|| {
            let name: String = name.escape_debug().take(80).collect();
            self.refuse(format!("`{field}` is `{name}`; activations are {}", Activation::NAMES.join(", ")))
        })
    }
}

/// What an entry of `config.json` is when it is not there.
pub(crate) fn yes() -> bool {
    true
}

/// A file of a model's folder, whole, of at most `limit` bytes.
pub(crate) fn read_in(folder: &Path, file: &'static str, limit: u64) -> Result<Vec<u8>, CheckpointError> {
    match read(&folder.join(file), limit) {
        Err(CheckpointError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(CheckpointError::MissingFile { folder: folder.into(), file })
        }
        read => read,
    }
}

/// A whole file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, CheckpointError> {
    read_whole(path, limit).map_err(|source| match source.kind() {
        io::ErrorKind::FileTooLarge => CheckpointError::TooLarge { path: path.into(), limit },
        _ => CheckpointError::Io { path: path.into(), source },
    })
}
