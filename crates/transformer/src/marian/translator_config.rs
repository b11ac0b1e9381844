use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Marian, MarianConfig, StackSize};
use crate::{Activation, Tokeniser, model::MOST_TOKENS};

/// Size of a small encoder-decoder that starts from nothing, vocabulary included: Marian's layout, with the activation of
/// Vaswani et al. (2017, arXiv 1706.03762).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TranslatorConfig {
    /// Sub-words of both languages together, learnt from the training examples; 258 to 65,536.
    pub vocabulary: u32,
    /// Width of a token; a multiple of `heads`, and even.
    pub width: u32,
    pub encoder_layers: u32,
    pub decoder_layers: u32,
    pub heads: u32,
    /// Width inside the feed-forward parts.
    pub mlp: u32,
    /// Tokens that a sentence is cut to, its end included; at least 4.
    pub source_length: u32,
    /// Tokens that a translation is cut to, its end included; at least 4.
    pub target_length: u32,
}

const MOST_WORDS: u32 = 65_536;

impl TranslatorConfig {
    /// Why no such model can be built, if so.
    pub fn check(&self) -> Result<(), String> {
        if !(Tokeniser::LEAST..=MOST_WORDS).contains(&self.vocabulary) {
            return Err(format!(
                "a vocabulary of {}; one that is learnt has {} to {MOST_WORDS} tokens, the first 256 for single bytes",
                self.vocabulary,
                Tokeniser::LEAST
            ));
        }
        let lengths = [self.source_length, self.target_length];
        if let Some(length) = lengths.into_iter().find(|length| !(4..=MOST_TOKENS).contains(length)) {
            return Err(format!(
                "sentences of {length} tokens; source_length and target_length are 4 to {MOST_TOKENS}"
            ));
        }
        self.marian().check()
    }

    /// The model with weights drawn from `seed`.
    pub fn init(&self, seed: u64, device: &Device) -> Marian {
        self.marian().init(seed, device)
    }

    fn marian(&self) -> MarianConfig {
        let stack = |layers| StackSize { layers, heads: self.heads, mlp: self.mlp };
        MarianConfig {
            vocabulary: self.vocabulary,
            width: self.width,
            encoder: stack(self.encoder_layers),
            decoder: stack(self.decoder_layers),
            positions: self.source_length.max(self.target_length),
            activation: Activation::Relu,
            scaled_embedding: true,
            padding: Tokeniser::PADDING,
            end: Tokeniser::END,
            start: Tokeniser::PADDING, // as Marian has it: padding is never generated
            lengths: (self.source_length, self.target_length),
        }
    }
}
