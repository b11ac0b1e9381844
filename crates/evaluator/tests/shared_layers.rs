//! Candidates that are measured together, and what they have in common.

use burn::tensor::Device;
use maskwright_blueprint::{BlockSize, Blueprint, HeadMask, Precision, Provenance};
use maskwright_evaluator::{DenseModel, Effect, Evaluator, Examples, TaskData};
use maskwright_transformer::{EncoderConfig, EncoderInput, Model};

/// Four layers over 24 symbols: three blocks of 8 a side.
fn evaluator() -> Evaluator {
    let input = EncoderInput::Tokens { length: 24, vocabulary: 5 };
    let config = EncoderConfig { input, width: 16, layers: 4, heads: 2, mlp: 16, classes: 3 };
    let model = Model::Encoder(config.init(11, &Device::flex()));
    let symbols = (0..40 * 24_u32).map(|at| (at * at / 7 + at) % 5).collect();
    let examples = Examples::symbols(24, symbols, (0..40).map(|at| at % 3).collect());
    let data = TaskData { train: examples.clone(), validation: examples.clone(), test: examples };
    Evaluator::new(DenseModel { shape: model.shape("tiny"), model, data, tokeniser: None, cached: false }, 30)
}

/// For each layer, the mask of both its heads.
fn blueprint(evaluator: &Evaluator, layers: [&str; 4]) -> Blueprint {
    let mask = |text: &str| HeadMask { block_size: BlockSize::B8, blocks: text.parse().unwrap() };
    let masks = layers.iter().map(|text| vec![mask(text); 2]).collect();
    Blueprint::new(evaluator.shape().clone(), masks, Provenance::default()).unwrap()
}

const DIAGONAL: &str = "4..\n.4.\n..4";
const FIRST: &str = "4..\n44.\n4.4";
const COARSE: &str = "1..\n.2.\n..4";

#[test]
fn candidates_measured_together_have_the_effects_that_each_has_alone() {
    let together = evaluator();
    let candidates = [
        [DIAGONAL, DIAGONAL, DIAGONAL, DIAGONAL],
        [DIAGONAL, DIAGONAL, DIAGONAL, COARSE],
        [DIAGONAL, FIRST, DIAGONAL, COARSE],
        [COARSE, FIRST, DIAGONAL, COARSE],
    ]
    .map(|layers| blueprint(&together, layers));
    let alone: Vec<Effect> =
        candidates.iter().map(|candidate| evaluator().measure(std::slice::from_ref(candidate))[0]).collect();
    assert_eq!(together.measure(&candidates), alone);
    // Of four times four layers: the second shares three with the first, the third one, the fourth none.
    assert_eq!(together.reused_layers(), 4.0 / 16.0);
    // What came before is remembered: three of the next one's four layers.
    let later = blueprint(&together, [COARSE, FIRST, DIAGONAL, FIRST]);
    assert_eq!(together.measure(std::slice::from_ref(&later)), evaluator().measure(&[later]));
    assert_eq!(together.reused_layers(), 7.0 / 20.0);
    assert!(alone.windows(2).all(|pair| pair[0] != pair[1]), "masks that do nothing would prove nothing: {alone:?}");
}

#[test]
fn a_full_mask_in_single_precision_moves_nothing() {
    let evaluator = evaluator();
    let dense = Blueprint::dense(evaluator.shape().clone(), BlockSize::B32, Precision::Single);
    assert_eq!(evaluator.measure(&[dense])[0].distortion, 0.0);
}
