use std::{env, fmt, str::FromStr};

#[cfg(target_arch = "x86_64")]
use crate::lanes::{Avx2, Avx512};
use crate::{
    KernelError,
    lanes::{Lanes, OnLanes, Portable},
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
    /// x86-64 with AVX2 and FMA; 16-bit and 8-bit products are put together from wider ones.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI: dot products of four bytes in one instruction; 16-bit products are put
    /// together from f32 ones.
    Avx512Vnni,
    /// The same with BF16: dot products of bf16 pairs in one instruction, too.
    Avx512,
    /// The same with AMX, whose unit for matrices multiplies 8- and 16-bit blocks of 16 and 32 tokens, if the head's dimension is a multiple of 32.
    /// Other heads are computed as [`Kernel::Avx512Vnni`] does.
    Amx,
}

impl Kernel {
    /// Every kernel, slowest first.
    const ALL: [Self; 5] = [Self::Portable, Self::Avx2, Self::Avx512Vnni, Self::Avx512, Self::Amx];

    /// The kernels that this CPU can run, slowest first. On Linux, the first look for [`Kernel::Amx`] asks the system for its registers, for the whole
    /// process, where the CPU has them. Never empty: [`Kernel::Portable`] runs everywhere.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kernel| kernel.detect().is_some())
    }

    /// What the environment variable `MASKWRIGHT_KERNEL` names, or the fastest available one when it is unset or
    /// empty.
    pub fn from_environment() -> Result<Self, KernelError> {
        match env::var_os("MASKWRIGHT_KERNEL").filter(|name| !name.is_empty()) {
            Some(name) => name.to_string_lossy().parse(),
            None => Ok(Self::fastest()),
        }
    }

    /// The fastest that this CPU can run. On CPUs of Intel's that is never [`Kernel::Avx512`]: the one that was measured (Emerald Rapids) begins
    /// `vdpbf16ps` every second cycle.
    pub fn fastest() -> Self {
        Self::fastest_of(Self::available(), is_intel())
    }

    fn fastest_of(available: impl Iterator<Item = Self>, intel: bool) -> Self {
        available.filter(|kernel| *kernel != Self::Avx512 || !intel).last().unwrap_or(Self::Portable)
    }

    /// The name that `MASKWRIGHT_KERNEL` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }

    /// Queries of one block row that are computed at once, or all of them where a row has fewer.
    pub const fn tile_queries(self) -> u32 {
        self.vector_words()
    }

    /// 32-bit words of one vector.
    pub const fn vector_words(self) -> u32 {
        match self {
            Self::Portable => 4,
            Self::Avx2 => 8,
            Self::Avx512Vnni | Self::Avx512 | Self::Amx => 16,
        }
    }

    /// Which heads a unit for matrices multiplies, where the kernel has one: those of blocks of so many tokens or more, and of a dimension that is a multiple of the
    /// second number. Others are computed by [`of_head`](Self::of_head) of them.
    pub const fn matrix_heads(self) -> Option<[u32; 2]> {
        match self {
            Self::Amx => Some([16, 32]),
            _ => None,
        }
    }

    /// What computes a head of blocks of `block_size` tokens and of dimension `head_dim`, if some of its blocks are of 8 or 16 bit.
    pub const fn of_head(self, block_size: u32, head_dim: u32) -> Self {
        match self.matrix_heads() {
            Some([least, multiple]) if block_size < least || !head_dim.is_multiple_of(multiple) => Self::Avx512Vnni,
            _ => self,
        }
    }

    /// The instructions themselves; refused when this CPU lacks them.
    pub(crate) fn instructions(self) -> Result<Instructions, KernelError> {
        self.detect()
            .ok_or_else(|| KernelError::Unsupported { kernel: self.name(), available: list(Self::available()) })
    }

    #[cfg(target_arch = "x86_64")]
    fn detect(self) -> Option<Instructions> {
        match self {
            Self::Portable => Some(Instructions::Portable),
            Self::Avx2 => Avx2::detect().map(Instructions::Avx2),
            Self::Avx512Vnni => Avx512::detect().map(Instructions::Avx512Vnni),
            Self::Avx512 => Avx512::detect().map(Instructions::Avx512),
            Self::Amx => Avx512::detect().map(Instructions::Amx),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detect(self) -> Option<Instructions> {
        (self == Self::Portable).then_some(Instructions::Portable)
    }
}

impl FromStr for Kernel {
    type Err = KernelError;

    /// Refuses unknown names and kernels that this CPU cannot run. `avx512` is [`Kernel::Avx512Vnni`] where the CPU has
    /// no BF16.
    fn from_str(name: &str) -> Result<Self, KernelError> {
        let kernel = Self::ALL
            .into_iter()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| KernelError::UnknownKernel { given: name.into(), known: list(Self::ALL.into_iter()) })?;
        let available = |kernel: &Self| kernel.detect().is_some();
        match kernel {
            Self::Avx512 if !available(&kernel) && available(&Self::Avx512Vnni) => Ok(Self::Avx512Vnni),
            _ => kernel.instructions().map(|_| kernel),
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_intel() -> bool {
    false
}

fn list(kernels: impl Iterator<Item = Kernel>) -> String {
    kernels.map(Kernel::name).collect::<Vec<_>>().join(", ")
}

/// A kernel that is known to run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instructions {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512<false>),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512<true>),
    #[cfg(target_arch = "x86_64")]
    Amx(Avx512<true, true>),
}

impl Instructions {
    /// Those of [`Kernel::of_head`]; a head of `single` precision alone has nothing for a unit for matrices.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn of_head(self, block_size: usize, head_dim: usize, single: bool) -> Self {
        match self {
            Self::Amx(proof) if single || Kernel::Amx.of_head(block_size as u32, head_dim as u32) != Kernel::Amx => {
                Self::Avx512Vnni(proof.without_bf16())
            }
            _ => self,
        }
    }

    /// The same: no other CPU has a unit for matrices.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn of_head(self, _block_size: usize, _head_dim: usize, _single: bool) -> Self {
        self
    }

    /// Does `task` with them.
    pub(crate) fn run<T: OnLanes>(self, task: T) -> T::Output {
        match self {
            Self::Portable => Portable.run(task),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(proof) => proof.run(task),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(proof) => proof.run(task),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(proof) => proof.run(task),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(proof) => proof.run(task),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vdpbf16ps_is_not_taken_unasked_where_it_is_slow() {
        use Kernel::{Amx, Avx2, Avx512, Avx512Vnni, Portable};
        let fastest = |kernels: &[Kernel], intel| Kernel::fastest_of(kernels.iter().copied(), intel);
        let without_amx = [Portable, Avx2, Avx512Vnni, Avx512];
        assert_eq!([fastest(&without_amx, false), fastest(&without_amx, true)], [Avx512, Avx512Vnni]);
        assert_eq!(fastest(&Kernel::ALL, true), Amx);
        assert!(Kernel::available().any(|kernel| kernel == Kernel::fastest()));
    }

    #[test]
    fn small_blocks_and_odd_dimensions_are_left_to_vectors() {
        let of = |block_size, head_dim| Kernel::Amx.of_head(block_size, head_dim);
        assert_eq!([of(16, 64), of(32, 32), of(16, 96)], [Kernel::Amx; 3]);
        assert_eq!([of(8, 64), of(16, 80), of(32, 16)], [Kernel::Avx512Vnni; 3]);
        assert_eq!(Kernel::Avx512.of_head(8, 80), Kernel::Avx512);
    }
}
