use burn::tensor::{
    Tensor,
    activation::{gelu_approximate, relu, silu},
};

use crate::gelu::gelu;

/// The function between the two products of a feed-forward part, by the names that Hugging Face's `config.json` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x Phi(x)`, with the error function (Hendrycks & Gimpel 2016, arXiv 1606.08415).
    Gelu,
    /// The same with a hyperbolic tangent in place of the error function.
    GeluTanh,
    Relu,
    /// `x / (1 + exp(-x))`, also called swish.
    Silu,
}

impl Activation {
    pub(crate) const NAMES: [&str; 7] = ["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu", "swish"];

    /// By its name in `config.json`, one of [`Activation::NAMES`].
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "gelu" => Some(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Some(Self::GeluTanh),
            "relu" => Some(Self::Relu),
            "silu" | "swish" => Some(Self::Silu),
            _ => None,
        }
    }

    pub(crate) fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => gelu(x),
            Self::GeluTanh => gelu_approximate(x),
            Self::Relu => relu(x),
            Self::Silu => silu(x),
        }
    }
}
