use std::fmt;

use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What computes models: burn's backends. All but flex are there only if the program was built with the cargo feature of the
/// same name (`docs/backends.md`). Results differ between them in their last bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// In Rust, on the CPU.
    #[default]
    Flex,
    /// PyTorch's C++ library, on the CPU.
    LibTorch,
    /// The first NVIDIA GPU.
    Cuda,
    /// A GPU through Vulkan, Metal or DirectX.
    Wgpu,
}

/// Why a backend cannot compute here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    #[error(
        "this program was built without the backend {backend}: build it with `cargo build --release --features {backend}`, \
         which needs {}, or leave `--backend` at flex",
        backend.needs()
    )]
    NotBuilt { backend: Backend },
    #[error("the backend {backend} finds no device on this machine: it needs {}; flex runs everywhere", backend.needs())]
    NoDevice { backend: Backend },
}

impl Backend {
    pub const ALL: [Self; 4] = [Self::Flex, Self::LibTorch, Self::Cuda, Self::Wgpu];

    /// As files, arguments and cargo features write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::LibTorch => "libtorch",
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
        }
    }

    /// The device that models are made on.
    pub fn device(self) -> Result<Device, BackendError> {
        match self {
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "libtorch")]
            Self::LibTorch => {
                // Candidates and examples run side by side already, and sums must not depend on the number of cores.
                if std::env::var_os("OMP_NUM_THREADS").is_none() {
                    tch::set_num_threads(1);
                }
                Ok(libtorch())
            }
            #[cfg(feature = "cuda")]
            Self::Cuda => present(burn::tensor::DeviceType::Cuda, self).map(|()| Device::cuda(0)),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => {
                let default = burn::tensor::DeviceKind::DefaultDevice;
                present(burn::tensor::DeviceType::Wgpu, self).map(|()| Device::wgpu(default))
            }
            #[allow(unreachable_patterns, reason = "a program may be built with all of them")]
            backend => Err(BackendError::NotBuilt { backend }),
        }
    }

    const fn needs(self) -> &'static str {
        match self {
            Self::Flex => "nothing",
            Self::LibTorch => "libtorch 2.9.0",
            Self::Cuda => "an NVIDIA GPU with its driver and CUDA 12 or later",
            Self::Wgpu => "a GPU with a driver for Vulkan, Metal or DirectX 12",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether the device's tensors lie in this process's memory, where `maskwright-kernels` can read them.
pub(crate) fn is_in_memory(device: &Device) -> bool {
    #[cfg(feature = "libtorch")]
    if *device == libtorch() {
        return true;
    }
    *device == Device::flex()
}

#[cfg(feature = "libtorch")]
#[allow(deprecated, reason = "burn 0.22 has this backend; docs/backends.md says what it is for")]
fn libtorch() -> Device {
    Device::libtorch()
}

#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn present(devices: burn::tensor::DeviceType, backend: Backend) -> Result<(), BackendError> {
    match Device::enumerate(devices).into_iter().next() {
        Some(_) => Ok(()),
        None => Err(BackendError::NoDevice { backend }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flex_is_always_there_and_what_was_not_built_says_how_to_get_it() {
        assert_eq!(Backend::default().device().unwrap(), Device::flex());
        for backend in Backend::ALL {
            match backend.device() {
                Err(error @ BackendError::NotBuilt { .. }) => {
                    assert!(error.to_string().contains(&format!("--features {backend}`")), "{error}");
                }
                Err(error) => assert!(error.to_string().contains("finds no device"), "{error}"),
                Ok(device) => assert_eq!(is_in_memory(&device), matches!(backend, Backend::Flex | Backend::LibTorch)),
            }
        }
    }
}
