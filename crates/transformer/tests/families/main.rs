//! Model families against the outputs of the transformers library (`../references/make.py`), and against themselves.

#[cfg(any(feature = "libtorch", feature = "cuda", feature = "wgpu"))]
mod backends;
mod bert;
mod checkpoints;
mod marian;
mod minilm;
mod probes;
mod reference;
mod vision;
