use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use burn::tensor::{DType, TensorData};
use serde::Deserialize;
use serde_json::Value;

use crate::{CheckpointError, checkpoint::read_in};

/// The safetensors library's own limit is 100 MB; BERT-Large's header takes 50 KB.
pub(crate) const MOST_HEADER_BYTES: u64 = 16 << 20;
const MOST_INDEX_BYTES: u64 = 16 << 20;

/// The tensors of one safetensors file or several, by name; read one by one when they are asked for.
#[derive(Debug)]
pub(crate) struct TensorFiles {
    paths: Vec<PathBuf>,
    tensors: BTreeMap<String, Place>,
}

/// Where a tensor lies. Its bytes are in the file, and there are as many as its shape and type take.
#[derive(Debug)]
struct Place {
    file: usize,
    dtype: DType,
    shape: Vec<usize>,
    start: u64,
}

/// As the header of a safetensors file has it.
#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl TensorFiles {
    /// `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let whole = folder.join("model.safetensors");
        let paths = if whole.exists() { vec![whole] } else { shards(folder)? };
        let mut files = Self { paths, tensors: BTreeMap::new() };
        for file in 0..files.paths.len() {
            let path = &files.paths[file];
            let refuse = |reason| CheckpointError::Tensors { path: path.clone(), reason };
            let (header, start, length) = header(path)?;
            for (name, info) in header {
                if name == "__metadata__" {
                    continue;
                }
                let info = serde_json::from_value(info).map_err(|error| refuse(format!("`{name}`: {error}")))?;
                if let Some(place) =
                    place(file, info, start, length).map_err(|why| refuse(format!("`{name}` {why}")))?
                {
                    files.tensors.insert(modern(name), place);
                }
            }
        }
        Ok(files)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor's shape, if there is such a tensor of floating-point numbers.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|place| &place.shape[..])
    }

    /// A tensor's values in f32, in row order.
    ///
    /// # Panics
    /// When there is no such tensor.
    pub fn values(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let place = &self.tensors[name];
        let path = &self.paths[place.file];
        let count: usize = place.shape.iter().product();
        let mut bytes = vec![0; count * place.dtype.size()];
        let mut read = || -> io::Result<()> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(place.start))?;
            file.read_exact(&mut bytes)
        };
        read().map_err(|source| CheckpointError::Io { path: path.clone(), source })?;
        let data = TensorData::from_bytes_vec(bytes, [count], place.dtype).convert::<f32>();
        Ok(data.try_to_vec().expect("just converted to f32"))
    }
}

/// The shards' paths, each once.
fn shards(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    const INDEX: &str = "model.safetensors.index.json";
    let bytes = match read_in(folder, INDEX, MOST_INDEX_BYTES) {
        Err(CheckpointError::MissingFile { .. }) => {
            return Err(CheckpointError::MissingFile { folder: folder.into(), file: "model.safetensors" });
        }
        bytes => bytes?,
    };
    let path = folder.join(INDEX);
    let index: Index =
        serde_json::from_slice(&bytes).map_err(|source| CheckpointError::Json { path: path.clone(), source })?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    let shard = |name: String| match Path::new(&name).file_name() {
        Some(plain) if plain == name.as_str() && !folder.join(plain).exists() => Err(CheckpointError::MissingShard {
            folder: folder.into(),
            shard: name.escape_debug().to_string(),
            index: INDEX,
        }),
        Some(plain) if plain == name.as_str() => Ok(folder.join(name)),
        _ => {
            let reason = format!("`{}` is no file name", name.escape_debug());
            Err(CheckpointError::Tensors { path: path.clone(), reason })
        }
    };
    names.into_iter().map(shard).collect()
}

/// A file's header, where its data start, and the file's length.
fn header(path: &Path) -> Result<(BTreeMap<String, Value>, u64, u64), CheckpointError> {
    let io_error = |source| CheckpointError::Io { path: path.into(), source };
    let refuse = |reason: String| CheckpointError::Tensors { path: path.into(), reason };
    let mut file = File::open(path).map_err(io_error)?;
    let length = file.metadata().map_err(io_error)?.len();
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(io_error)?;
    let size = u64::from_le_bytes(size);
    if size > MOST_HEADER_BYTES.min(length.saturating_sub(8)) {
        return Err(refuse(format!("a header of {size} bytes in a file of {length}")));
    }
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes).map_err(io_error)?;
    let header = serde_json::from_slice(&bytes).map_err(|error| refuse(format!("its header is no JSON: {error}")))?;
    Ok((header, 8 + size, length))
}

/// Checks one entry of a header; none for whole numbers, which no model here keeps as weights.
fn place(file: usize, info: Info, start: u64, length: u64) -> Result<Option<Place>, String> {
    let dtype = match &info.dtype[..] {
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "F64" => DType::F64,
        "BOOL" | "U8" | "I8" | "U16" | "I16" | "U32" | "I32" | "U64" | "I64" => return Ok(None),
        other => {
            return Err(format!("has type `{}`: weights are F16, BF16, F32 or F64", other.escape_debug()));
        }
    };
    let bytes = info.shape.iter().try_fold(dtype.size() as u64, |product, &dim| product.checked_mul(dim as u64));
    let (from, to) = info.data_offsets;
    let fits =
        bytes.is_some() && to.checked_sub(from) == bytes && start.checked_add(to).is_some_and(|end| end <= length);
    match fits {
        true => Ok(Some(Place { file, dtype, shape: info.shape, start: start + from })),
        false => Err(format!("lies at bytes {from} to {to}, which does not fit its shape or the file")),
    }
}

/// Checkpoints that were converted from TensorFlow call the scale and shift of a normalisation gamma and beta.
fn modern(name: String) -> String {
    match (name.strip_suffix(".gamma"), name.strip_suffix(".beta")) {
        (Some(module), _) => format!("{module}.weight"),
        (_, Some(module)) => format!("{module}.bias"),
        _ => name,
    }
}
