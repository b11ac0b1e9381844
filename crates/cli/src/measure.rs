//! Running attention on the machine at hand and timing it: the only place whose figures are *measured* times.

mod floats;
mod host;
mod placements;
mod precisions;
mod timing;
mod undisturbed;
mod workload;

pub(crate) use floats::Floats;
pub(crate) use host::{Host, Peaks};
pub(crate) use placements::Placements;
pub(crate) use precisions::Precisions;
pub(crate) use timing::{Bench, Inputs, Sampling, Timings};
pub(crate) use undisturbed::undisturbed;
pub(crate) use workload::{Spread, Tensors, Workload};

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    #[error(transparent)]
    Kernel(#[from] maskwright_kernels::KernelError),
    #[error("this machine runs 1 to {limit} threads at once, not {found}")]
    Threads { found: usize, limit: usize },
    #[error(
        "{heads} heads of {tokens} tokens of {head_dim} features are {values} values a tensor, more than the {limit} that are measured"
    )]
    TooLarge { heads: u32, tokens: u32, head_dim: u32, values: u64, limit: u64 },
}
