//! Candidates that are measured together, and what they have in common.

use std::slice::from_ref;

use burn::tensor::Device;
use maskwright_blueprint::{AttentionKind, BlockSize, Blueprint, HeadMask, ModuleShape, Precision, Provenance};
use maskwright_evaluator::{DenseModel, Evaluator, Examples, ParallelText, SentencePair, TaskData};
use maskwright_transformer::{Activation, EncoderConfig, EncoderInput, MarianConfig, Model, StackSize, TokenisedTexts};

/// The loop's examples and those that select are the same ones, so that `select`, which runs whole passes, says what
/// `measure` must.
fn evaluator(model: Model, examples: &Examples) -> Evaluator {
    let data = TaskData::new(examples.clone(), examples.followed_by(examples), examples.clone());
    let shape = model.shape("tiny");
    let dense = DenseModel { shape, model, data, tokeniser: None, cached: false, drawn: Vec::new(), ignored: 0 };
    Evaluator::new(dense, examples.len())
}

/// Four layers over 24 symbols, three blocks of 8 a side; 400 examples, which are two batches.
fn classifier() -> Evaluator {
    let input = EncoderInput::Tokens { length: 24, vocabulary: 5 };
    let config = EncoderConfig { input, width: 16, layers: 4, heads: 2, mlp: 16, classes: 3 };
    let symbols: Vec<u32> = (0..400 * 24_u32).map(|at| (at % 97 * (at % 89) / 7 + at) % 5).collect();
    let sequences: Vec<Vec<u32>> = symbols.chunks(24).map(<[u32]>::to_vec).collect();
    let examples = Examples::sequences(&sequences, (0..400).map(|at| at % 3).collect());
    evaluator(Model::Encoder(config.init(11, &Device::flex())), &examples)
}

/// Two layers and two layers over 16 and 16 tokens, two blocks of 8 a side; some sentences are shorter.
fn translator() -> Evaluator {
    let stack = StackSize { layers: 2, heads: 2, mlp: 16 };
    let config = MarianConfig {
        vocabulary: 11,
        width: 16,
        encoder: stack,
        decoder: stack,
        positions: 16,
        activation: Activation::Relu,
        scaled_embedding: true,
        padding: 0,
        end: 1,
        start: 0,
        lengths: (16, 16),
    };
    let count = 40;
    let lengths: Vec<usize> = (0..count).map(|at| 9 + at % 8).collect();
    let token = |row: usize, at: usize| match (at + 1).cmp(&lengths[row]) {
        std::cmp::Ordering::Less => 2 + ((row * 5 + at * at) % 9) as u32,
        std::cmp::Ordering::Equal => 1,
        std::cmp::Ordering::Greater => 0,
    };
    let tokens = (0..count).flat_map(|row| (0..16).map(move |at| (row, at))).map(|(row, at)| token(row, at)).collect();
    let texts =
        TokenisedTexts { length: 16, tokens, token_types: vec![0; count * 16], lengths: lengths.clone(), truncated: 0 };
    let pair = SentencePair { source: String::new(), target: String::new() };
    let text = ParallelText { pairs: vec![pair; count], empty: 0 };
    let examples = Examples::translations(texts.clone(), &texts, config.start, text);
    evaluator(Model::Marian(config.init(5, &Device::flex())), &examples)
}

/// For each module, the mask of its heads.
fn blueprint(evaluator: &Evaluator, mut text: impl FnMut(usize, &ModuleShape) -> &'static str) -> Blueprint {
    let shape = evaluator.shape().clone();
    let masks = shape.modules.iter().enumerate().map(|(at, module)| {
        let mask = HeadMask { block_size: BlockSize::B8, blocks: text(at, module).parse().unwrap() };
        vec![mask; module.shape.heads as usize]
    });
    let masks = masks.collect();
    Blueprint::new(shape, masks, Provenance::default()).unwrap()
}

const DIAGONAL: &str = "4..\n.4.\n..4";
const FIRST: &str = "4..\n44.\n4.4";
const COARSE: &str = "1..\n.2.\n..4";

#[test]
fn candidates_measured_together_have_the_effects_that_whole_passes_give_each() {
    let evaluator = classifier();
    let of = |layers: [&'static str; 4]| blueprint(&evaluator, |module, _| layers[module]);
    let candidates = [
        of([DIAGONAL, DIAGONAL, DIAGONAL, DIAGONAL]),
        of([DIAGONAL, DIAGONAL, DIAGONAL, COARSE]),
        of([DIAGONAL, FIRST, DIAGONAL, COARSE]),
        of([COARSE, FIRST, DIAGONAL, COARSE]),
    ];
    let whole = candidates.each_ref().map(|candidate| evaluator.select(evaluator.dense(), candidate).unwrap());
    assert!(whole.windows(2).all(|pair| pair[0] != pair[1]), "masks that do nothing would prove nothing: {whole:?}");
    assert_eq!(evaluator.measure(&candidates).unwrap(), whole);
    // Of four times four layers: the second shares three with the first, the third one, the fourth none.
    assert_eq!(evaluator.reused_layers(), 4.0 / 16.0);
    // What came before is remembered: three of the next one's four layers.
    let later = of([COARSE, FIRST, DIAGONAL, FIRST]);
    assert_eq!(evaluator.measure(from_ref(&later)).unwrap(), [evaluator.select(evaluator.dense(), &later).unwrap()]);
    assert_eq!(evaluator.reused_layers(), 7.0 / 20.0);
}

#[test]
fn a_translators_layers_are_told_apart_by_each_of_their_modules() {
    let evaluator = translator();
    // All blocks, but for one module the diagonal alone.
    let without = |module: usize| {
        blueprint(&evaluator, |at, of| match (at == module, of.shape.kind) {
            (true, _) => "4.\n.4",
            (false, AttentionKind::CausalSelfAttention) => "4.\n44",
            (false, _) => "44\n44",
        })
    };
    // Two modules of the encoder, then causal and cross attention of two decoder layers.
    let candidates: Vec<Blueprint> = (0..6).map(without).collect();
    let whole: Vec<_> =
        candidates.iter().map(|candidate| evaluator.select(evaluator.dense(), candidate).unwrap()).collect();
    assert!(whole.windows(2).all(|pair| pair[0] != pair[1]), "{whole:?}");
    assert_eq!(evaluator.measure(&candidates).unwrap(), whole);
    // Of six times four layers: five of six agree on the first, four on the second too, two on the third too.
    assert!((24.0 * evaluator.reused_layers() - 8.0).abs() < 1e-9);
}

#[test]
fn a_full_mask_in_single_precision_moves_nothing() {
    let evaluator = classifier();
    let dense = Blueprint::dense(evaluator.shape().clone(), BlockSize::B32, Precision::Single);
    assert_eq!(evaluator.measure(&[dense]).unwrap()[0].distortion, 0.0);
}
