//! The language of maskwright: masks, the blueprint that holds one for each head of a model, and the units of its
//! figures.
//!
//! Everything that leaves or enters a search, a cost model, a kernel or an exporter is said in these types. Wrong
//! values cannot exist behind them: a row without blocks, a block size of 24 and a mask for another shape are refused
//! where they are made or read.

mod attention_shape;
mod block_mask;
mod block_size;
mod blueprint;
mod blueprint_file;
mod digest;
mod head_mask;
mod mask_library;
mod model_shape;
mod precision;
mod provenance;
mod ron_file;
mod row_promotion;
mod safetensors_file;
mod tensor_file;
mod units;
mod whole_file;

pub use attention_shape::{AttentionKind, AttentionShape, HeadId};
pub use block_mask::{BlockMask, MaskError};
pub use block_size::BlockSize;
pub use blueprint::{Blueprint, BlueprintError};
pub use digest::{Digest, DigestError};
pub use head_mask::HeadMask;
pub use mask_library::MaskLibrary;
pub use model_shape::{Linear, ModelShape, ModuleShape};
pub use precision::Precision;
pub use provenance::{
    Accuracy, AccuracyDrop, Measured, Predicted, Provenance, SecondAccuracy, SecondMetric, TranslationAccuracy,
    TranslationQuality,
};
pub use ron_file::{RonError, nearest, parse_ron, read_ron, to_ron};
pub use row_promotion::RowPromotion;
pub use safetensors_file::SafetensorsError;
pub use units::{Bytes, BytesPerSecond, Joules, Seconds, Watts};
pub use whole_file::{PART, check_writable, read_whole, read_whole_text, write_whole};
