//! Block-sparse attention on the CPU, each block in 8-bit, 16-bit or single precision.
//!
//! A plan is made once from the masks of a module, and run for every input:
//!
//! ```
//! use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, HeadMask};
//! use maskwright_kernels::{AttentionPlan, Inputs};
//!
//! // Two heads of 40 tokens, in blocks of 16: the last block of each row and column is ragged.
//! let shape = AttentionShape { kind: AttentionKind::SelfAttention, heads: 2, queries: 40, keys: 40, head_dim: 32, windows: 1 };
//! let masks = [
//!     HeadMask { block_size: BlockSize::B16, blocks: "4..\n24.\n.14".parse()? },
//!     HeadMask { block_size: BlockSize::B8, blocks: "4....\n14...\n114..\n1.14.\n1..14".parse()? },
//! ];
//! let plan = AttentionPlan::new(&masks, shape)?;
//! let mut workspace = plan.workspace();
//!
//! let values: Vec<f32> = (0..2 * 40 * 32).map(|at| (at as f32).sin()).collect();
//! let mut out = vec![0.0; values.len()];
//! plan.run(Inputs::new(&values, &values, &values), &mut out, &mut workspace)?;
//! plan.run(Inputs::new(&values, &values, &values).live_keys(33), &mut out, &mut workspace)?; // 7 tokens of padding
//! assert!(out.iter().all(|x| x.abs() <= 1.0)); // weighted means of sines
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`oracle`] computes the same in double precision and as plainly as possible: every kernel is tested against it.
//! [`Kernel`] says which instructions are used; [`IntegerSoftmax`] is the softmax that needs no floating point; [`c_api`]
//! is all of it for C.

pub mod c_api;
mod crew;
mod error;
mod inputs;
mod integer_softmax;
mod kernel;
mod lanes;
pub mod oracle;
mod packed;
pub mod peak;
mod phases;
mod plan;
mod promotion;
mod row;
mod shared_heads;
mod tile;
mod workspace;

pub use error::KernelError;
pub use inputs::Inputs;
pub use integer_softmax::{IntegerSoftmax, Normalisation};
pub use kernel::Kernel;
pub use phases::Phases;
pub use plan::{AttentionPlan, Int8Softmax, MAX_HEAD_DIM, PlanOptions};
pub use promotion::Promotion;
pub use workspace::Workspace;

pub(crate) use plan::check_masks;
