use burn::tensor::Device;
use maskwright_blueprint::Blueprint;
use maskwright_transformer::{Attention, CompiledMasks};

/// What is done to a model's attention.
#[derive(Debug, Clone, Copy)]
pub enum Treatment<'a> {
    /// Nothing: every score, in f32.
    Dense,
    /// As a blueprint says.
    Masked(&'a Blueprint),
    /// A control: each token keeps its own value.
    Identity,
}

/// A treatment made ready for a device.
pub(crate) enum Treated {
    Dense,
    Masked(CompiledMasks),
    Identity,
}

impl Treatment<'_> {
    pub(crate) fn on(self, device: &Device) -> Treated {
        match self {
            Self::Dense => Treated::Dense,
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
            Self::Dense => Attention::Dense,
            Self::Masked(masks) => Attention::Masked(masks),
            Self::Identity => Attention::Identity,
        }
    }
}
