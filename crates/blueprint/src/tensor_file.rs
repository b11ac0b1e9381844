//! The safetensors container: a JSON header that names strings and tensors, then the tensors' bytes.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use safetensors::{Dtype, SafeTensors, tensor::Metadata};
use serde::{Serialize, de::DeserializeOwned};

use crate::{SafetensorsError, parse_ron};

/// Larger files are refused unread: BERT-Large at 4,096 tokens in blocks of 8 takes 96 MiB.
pub(crate) const MOST_BYTES: u64 = 256 << 20;

/// Larger headers are refused unread: they grow to several times their size when parsed. Ours take 100 bytes a module
/// and the model's description.
const MOST_HEADER_BYTES: u64 = 8 << 20;

/// A file whose header was checked against its length.
pub(crate) struct TensorFile<'a> {
    header: Metadata,
    strings: HashMap<String, String>,
    data: &'a [u8],
}

impl<'a> TensorFile<'a> {
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, SafetensorsError> {
        if bytes.len() as u64 > MOST_BYTES {
            return Err(SafetensorsError::TooLarge { limit: MOST_BYTES });
        }
        if let Some(length) = bytes.first_chunk() {
            let found = u64::from_le_bytes(*length);
            if found > MOST_HEADER_BYTES {
                return Err(SafetensorsError::Header { found, limit: MOST_HEADER_BYTES });
            }
        }
        let (header_bytes, header) = SafeTensors::read_metadata(bytes)?;
        let strings = header.metadata().clone().unwrap_or_default();
        Ok(Self { header, strings, data: &bytes[8 + header_bytes..] })
    }

    pub(crate) fn string(&self, key: &'static str) -> Result<&str, SafetensorsError> {
        self.strings.get(key).map(String::as_str).ok_or(SafetensorsError::NoMetadata { key })
    }

    pub(crate) fn ron<T: DeserializeOwned>(&self, key: &'static str) -> Result<T, SafetensorsError> {
        parse_ron(self.string(key)?, Path::new(key))
            .map_err(|source| SafetensorsError::Ron { key, source: Box::new(source) })
    }

    /// How many tensors there are.
    pub(crate) fn tensors(&self) -> usize {
        self.header.tensors().len()
    }

    /// One tensor's bytes, if it has this type and shape.
    pub(crate) fn tensor(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&'a [u8], SafetensorsError> {
        let info = self.header.info(name).ok_or_else(|| SafetensorsError::NoTensor { name: name.into() })?;
        if info.dtype == dtype && info.shape == shape {
            return Ok(&self.data[info.data_offsets.0..info.data_offsets.1]);
        }
        Err(SafetensorsError::Tensor {
            name: name.into(),
            found: format!("{} {:?}", info.dtype, info.shape.iter().take(8).collect::<Vec<_>>()),
            expected: format!("{dtype} {shape:?}"),
        })
    }
}

/// The tensors of a file in the order of their bytes. safetensors' own writer would put the metadata in a new order at
/// every run.
#[derive(Default)]
pub(crate) struct Tensors {
    infos: BTreeMap<String, TensorInfo>,
    data: Vec<u8>,
}

#[derive(Serialize)]
struct TensorInfo {
    dtype: &'static str,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

#[derive(Serialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, TensorInfo>,
}

impl Tensors {
    pub(crate) fn push(&mut self, name: &str, dtype: &'static str, shape: Vec<usize>, bytes: impl Iterator<Item = u8>) {
        let start = self.data.len();
        self.data.extend(bytes);
        self.infos.insert(name.into(), TensorInfo { dtype, shape, data_offsets: [start, self.data.len()] });
    }

    /// Length of the header, header, data; the header is filled with blanks to a multiple of 8 bytes.
    pub(crate) fn into_file(self, metadata: BTreeMap<&'static str, String>) -> Vec<u8> {
        let header = Header { metadata, tensors: self.infos };
        let mut header = serde_json::to_vec(&header).expect("strings and numbers always make JSON");
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.append(&mut header);
        file.extend(self.data);
        file
    }
}
