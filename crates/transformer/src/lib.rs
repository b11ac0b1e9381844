//! Transformers in burn whose attention obeys a blueprint: skipped blocks are left out of the softmax, active blocks
//! are computed in their own precision (fake quantisation with straight-through gradients).
//!
//! [`Model::load`] reads a pretrained model from a folder; [`EncoderConfig::init`] makes a small one from nothing:
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use maskwright_transformer::{Attention, EncoderConfig, EncoderInput, Inputs};
//!
//! let input = EncoderInput::Image { side: 8, patch: 4, channels: 1, overlap: 0 };
//! let config = EncoderConfig { input, width: 8, layers: 1, heads: 2, mlp: 16, classes: 3 };
//! let device = Device::flex();
//! let model = config.init(7, &device);
//! let images = Inputs::Images(Tensor::zeros([2, 1, 8, 8], &device));
//! assert_eq!(model.forward(images, Attention::Dense).dims(), [2, 3]); // [batch, classes]
//! ```

mod activation;
mod adamw;
mod attention;
mod backend;
mod bert;
mod block_attention;
mod checkpoint;
mod composed_attention;
mod cross_entropy;
mod encoder;
mod fake_quantise;
mod gelu;
mod initialise;
mod layer_norm;
mod marian;
mod masked_attention;
mod memory;
mod model;
mod model_shape;
mod parameters;
mod patches;
mod projection;
mod swin;
mod tensor_files;
mod tokeniser;
mod vectorised;
mod vit;
mod weights;

pub use activation::Activation;
pub use adamw::adamw;
pub use attention::{Attention, Probe, SeenAttention};
pub use backend::{Backend, BackendError};
pub use bert::{Bert, BertConfig, BertVariant};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use cross_entropy::{Targets, cross_entropy};
pub use encoder::{Encoder, EncoderConfig, EncoderInput, Inputs};
pub use fake_quantise::fake_quantise;
pub use initialise::initialise;
pub use marian::{Decoding, Marian, MarianConfig, StackSize, TranslationBatch, TranslatorConfig};
pub use masked_attention::CompiledMasks;
pub use model::{Loaded, Loading, Midway, Model, Pooling, Reads};
pub use swin::{Swin, SwinConfig};
pub use tokeniser::{Text, TextBatch, TokenisedTexts, Tokeniser};
pub use vit::{Vit, VitConfig, VitVariant};
pub use weights::{WeightsError, load_weights, weights_digest, weights_to_bytes};
