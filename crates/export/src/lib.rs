//! Blueprints in the forms that deployment builds read.
//!
//! A [`Target`] is one such form. Its [`Capability`] says what it can express and whether whoever reads it skips work;
//! a blueprint that it cannot express is refused with the reason and the way out. The same blueprint gives the same
//! bytes: no dates, no machine names.
//!
//! ```
//! # use maskwright_blueprint::*;
//! # let shape = AttentionShape { kind: AttentionKind::SelfAttention, heads: 1, queries: 20, keys: 20, head_dim: 8, windows: 1 };
//! # let modules = vec![ModuleShape { name: "block.0.attention".into(), shape }];
//! # let model = ModelShape { name: "tiny-vit".into(), digest: Digest::of(["tiny"]), modules, linears: vec![], elementwise: 0 };
//! # let blueprint = Blueprint::dense(model, BlockSize::B16, Precision::Int8);
//! use maskwright_export::Target;
//!
//! let target: Target = "c-header".parse()?;
//! let header = target.export(&blueprint)?;
//! assert_eq!(header.file_name, "mask_tiny_vit.h");
//! # Ok::<(), maskwright_export::ExportError>(())
//! ```

mod c_header;
mod capability;
mod comment;
mod error;
mod identifier;
mod rust_table;
mod tables;
mod target;

pub use capability::{Capability, SkipsWork};
pub use error::ExportError;
pub use target::{Exported, Target};
