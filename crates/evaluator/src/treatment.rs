use burn::tensor::Device;
use maskwright_blueprint::{Blueprint, ModuleShape};
use maskwright_transformer::{Attention, CompiledMasks};

/// What is done to a model's attention.
#[derive(Debug, Clone, Copy)]
pub enum Treatment<'a> {
    /// Nothing: every score, in single precision.
    Dense,
    /// As a blueprint says.
    Masked(&'a Blueprint),
    /// A control: each token keeps its own value.
    Identity,
}

/// A treatment made ready for a device.
pub(crate) enum Treated {
    Masked(CompiledMasks),
    Identity,
}

impl Treatment<'_> {
    /// For a model with these attention modules.
    pub(crate) fn on(self, modules: &[ModuleShape], device: &Device) -> Treated {
        match self {
            Self::Dense => Treated::Masked(CompiledMasks::dense(modules, device)),
            Self::Masked(blueprint) => Treated::Masked(CompiledMasks::new(blueprint, device)),
            Self::Identity => Treated::Identity,
        }
    }

    /// Tells treatments apart.
    pub(crate) fn key(self) -> String {
        match self {
            Self::Dense => "dense".into(),
            Self::Masked(blueprint) => blueprint.digest().to_string(),
            Self::Identity => "identity".into(),
        }
    }
}

impl Treated {
    pub(crate) fn attention(&self) -> Attention<'_> {
        match self {
            Self::Masked(masks) => Attention::Masked(masks),
            Self::Identity => Attention::Identity,
        }
    }
}
