use std::{env, fmt, str::FromStr};

use crate::{
    KernelError,
    lanes::{Lanes, Portable},
    packed::PackedHead,
    tile::{Job, attend_row},
    workspace::Scratch,
};

/// Which instructions a plan computes with.
///
/// All of them give the same attention within their precision's rounding; they differ in speed. 16-bit blocks are bf16
/// on every one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kernel {
    /// Plain Rust, for every CPU.
    Portable,
}

impl Kernel {
    /// Every kernel of this build, slowest first.
    const ALL: &'static [Self] = &[Self::Portable];

    /// The kernels that this CPU can run, slowest first. Never empty: [`Kernel::Portable`] runs everywhere.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|kernel| kernel.runs_here())
    }

    /// What the environment variable `MASKWRIGHT_KERNEL` names, or the fastest available one when it is unset or
    /// empty.
    pub fn from_environment() -> Result<Self, KernelError> {
        match env::var_os("MASKWRIGHT_KERNEL").filter(|name| !name.is_empty()) {
            Some(name) => name.to_string_lossy().parse(),
            None => Ok(Self::available().last().unwrap_or(Self::Portable)),
        }
    }

    /// The name that `MASKWRIGHT_KERNEL` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
        }
    }

    /// Refuses a kernel whose instructions this CPU lacks.
    pub(crate) fn check(self) -> Result<(), KernelError> {
        match self.runs_here() {
            true => Ok(()),
            false => Err(KernelError::Unsupported { kernel: self.name(), available: list(Self::available()) }),
        }
    }

    /// Queries that one tile holds.
    pub(crate) fn lanes(self) -> usize {
        match self {
            Self::Portable => Portable::WIDTH,
        }
    }

    /// Packs one head; see [`PackedHead::fill`].
    pub(crate) fn pack(self, packed: &mut PackedHead, q: &[f32], k: &[f32], v: &[f32], head_dim: usize) {
        match self {
            Self::Portable => packed.fill(q, k, v, head_dim),
        }
    }

    /// Computes one block row; see [`attend_row`].
    pub(crate) fn attend_row(self, job: &Job<'_>, out: &mut [f32], scratch: &mut Scratch) {
        match self {
            Self::Portable => attend_row(Portable, job, out, scratch),
        }
    }

    fn runs_here(self) -> bool {
        match self {
            Self::Portable => true,
        }
    }
}

impl FromStr for Kernel {
    type Err = KernelError;

    /// Refuses unknown names and kernels that this CPU cannot run.
    fn from_str(name: &str) -> Result<Self, KernelError> {
        let kernel =
            Self::ALL.iter().copied().find(|kernel| kernel.name() == name).ok_or_else(|| {
                KernelError::UnknownKernel { given: name.into(), known: list(Self::ALL.iter().copied()) }
            })?;
        kernel.check()?;
        Ok(kernel)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn list(kernels: impl Iterator<Item = Kernel>) -> String {
    kernels.map(Kernel::name).collect::<Vec<_>>().join(", ")
}
