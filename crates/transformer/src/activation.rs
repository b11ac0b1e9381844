use burn::tensor::{
    Tensor,
    activation::{gelu_approximate, relu, silu},
};
use serde::Deserialize;

use crate::gelu::gelu;

/// The function between the two products of a feed-forward part, by the names that Hugging Face's `config.json` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Activation {
    /// `x Phi(x)`, with the error function (Hendrycks & Gimpel 2016, arXiv 1606.08415).
    #[serde(rename = "gelu")]
    Gelu,
    /// The same with a hyperbolic tangent in place of the error function.
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluTanh,
    #[serde(rename = "relu")]
    Relu,
    /// `x / (1 + exp(-x))`, also called swish.
    #[serde(rename = "silu", alias = "swish")]
    Silu,
}

impl Activation {
    pub(crate) fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => gelu(x),
            Self::GeluTanh => gelu_approximate(x),
            Self::Relu => relu(x),
            Self::Silu => silu(x),
        }
    }
}
