//! A trained model of ordinary size: 6 layers, 384 wide, 12 heads, 22.7 million weights.

use std::{env, path::Path};

use burn::tensor::Tensor;
use maskwright_blueprint::Precision;
use maskwright_transformer::{Attention, Checkpoint, Loading, Model, Pooling, Text};

use crate::reference::{Reference, assert_close, folder, full};

/// As in `make.py`.
const SENTENCES: [&str; 8] = [
    "a masterpiece four years in the making .",
    "the plot is nothing but boilerplate cliches from start to finish",
    "Transformers skip blocks.",
    "I didn't expect much, and that is exactly what I got: very little!",
    "it's a charming and often affecting journey .",
    "An unusually long sentence keeps on going, past commas and clauses, in order to see whether hidden states at later positions agree as well as those at the beginning do.",
    "naïve café déjà-vu 東京 😀",
    "ok",
];

#[test]
#[ignore = "needs MiniLM-L6's weights, 90 MB: docs/models.md says where they are and how this test finds them"]
fn hidden_states_of_eight_sentences_are_those_of_pytorch() {
    let weights = env::var_os("MASKWRIGHT_MINILM").expect("MASKWRIGHT_MINILM names the folder with MiniLM-L6");
    let weights = Path::new(&weights);
    let reference = Reference::read(&folder("minilm.safetensors"));
    let device = burn::tensor::Device::flex();
    let tokeniser = Checkpoint::open(weights).unwrap().tokeniser().unwrap();
    let batch = tokeniser.encode(&SENTENCES.map(Text::One), 64, 0).unwrap().batch(&device);
    let same_tokens = batch.tokens.clone().equal(reference.ints("input_ids")).all().into_scalar::<bool>();
    assert!(same_tokens, "{}", batch.tokens);

    let loading = Loading { length: Some(64), pooling: Pooling::Mean, ..Loading::default() };
    let Model::Bert(model) = Model::load(weights, &loading, &device).unwrap().model else { panic!("MiniLM is a BERT") };
    let hidden = model.hidden(&batch, &mut Attention::Dense);
    // First, middle and last real token of each sentence.
    let at = reference.ints::<2>("positions").unsqueeze_dim::<3>(2).repeat_dim(2, 384);
    assert_close(hidden.clone().gather(1, at), reference.floats("hidden"));
    let real: Tensor<3> = batch.real.clone().unsqueeze_dim(2);
    let mean = (hidden.clone() * real.clone()).sum_dim(1) / real.sum_dim(1);
    assert_close::<2>(mean.squeeze_dim(1), reference.floats("mean"));

    let masks = full(model.shape("minilm"), Precision::Single);
    assert_close(model.hidden(&batch, &mut Attention::Masked(&masks)), hidden);
}
