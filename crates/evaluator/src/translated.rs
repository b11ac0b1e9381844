use maskwright_blueprint::{ModelShape, TranslationQuality};
use maskwright_transformer::{CompiledMasks, Decoding, Inputs, Marian, Tokeniser};
use rayon::prelude::*;

use crate::{Bleu, Examples, SentencePair, chrf, class_scores::batches};

/// Sentences that are decoded side by side: bounds memory, and changes the result no more than another order of sums.
const SENTENCES: usize = 64;

/// What a model made of some sentences.
#[derive(Debug, Clone, PartialEq)]
pub struct Translated {
    /// In the order of the examples.
    pub texts: Vec<String>,
    pub quality: TranslationQuality,
}

impl Translated {
    /// The examples' sentences, each decoded greedily up to the length that the model's masks are made for; none where
    /// the examples are no sentences to translate.
    pub(crate) fn by(
        translator: &Marian,
        tokeniser: &Tokeniser,
        shape: &ModelShape,
        examples: &Examples,
        masks: &CompiledMasks,
    ) -> Option<Self> {
        let pairs = examples.pairs()?;
        let longest = translator.config().lengths.1 as usize;
        let decoding = Decoding { beams: 1, longest, length_penalty: 0.0 };
        let batches = batches(examples, shape);
        let batches: Vec<&[usize]> = batches.iter().flat_map(|batch| batch.chunks(SENTENCES)).collect();
        let decode = |batch: &&[usize]| {
            let inputs =
                examples.batch(batch, masks.device()).expect("only images are decoded when they are asked for");
            let Inputs::Translation(inputs) = inputs else { unreachable!("examples with pairs are sentences") };
            translator.translate(inputs.source, &inputs.real, Some(masks), &decoding)
        };
        let found: Vec<Vec<Vec<u32>>> = batches.par_iter().map(decode).collect();
        let mut texts = vec![String::new(); examples.len()];
        for (at, tokens) in batches.iter().copied().flatten().zip(found.into_iter().flatten()) {
            texts[*at] = tokeniser.decode(&tokens).trim().to_owned();
        }
        Some(Self { quality: quality(&texts, pairs), texts })
    }
}

/// Of translations, each with its reference.
fn quality(texts: &[String], pairs: &[SentencePair]) -> TranslationQuality {
    let referenced = || texts.iter().zip(pairs).map(|(text, pair)| (&text[..], [&pair.target[..]]));
    TranslationQuality { bleu: Bleu::of(referenced()).score, chrf: chrf(referenced()) }
}
