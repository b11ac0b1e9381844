use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use maskwright_blueprint::Precision;
use maskwright_transformer::{
    Attention, Bert, CompiledMasks, Inputs, Loading, Model, Pooling, TextBatch, load_weights, weights_digest,
    weights_to_bytes,
};

use crate::reference::{Reference, assert_close, band, full, load};

const VARIANTS: [&str; 3] = ["bert", "distilbert", "roberta"];

/// The references have 18 tokens: three blocks of 8, the last one ragged.
const EIGHTEEN: Loading =
    Loading { length: Some(18), target_length: None, classes: None, pooling: Pooling::FirstToken, seed: 0 };

fn bert(variant: &str) -> Bert {
    match load(variant, &EIGHTEEN).model {
        Model::Bert(bert) => bert,
        other => panic!("{variant} gave {other:?}"),
    }
}

/// Outputs for real tokens; those for padding are arbitrary.
fn real(hidden: Tensor<3>, batch: &TextBatch) -> Tensor<3> {
    hidden * batch.real.clone().unsqueeze_dim(2)
}

#[test]
fn hidden_states_and_class_scores_are_those_of_the_transformers_library() {
    for variant in VARIANTS {
        let (model, reference) = (bert(variant), Reference::of(variant));
        let batch = reference.text();
        let hidden = model.hidden(&batch, &mut Attention::Dense);
        assert_close(real(hidden, &batch), real(reference.floats("hidden"), &batch));
        assert_close(model.forward(&batch, &mut Attention::Dense), reference.floats("logits"));
    }
}

#[test]
fn a_full_single_precision_mask_gives_what_the_dense_model_gives() {
    for variant in VARIANTS {
        let (model, batch) = (bert(variant), Reference::of(variant).text());
        let masks = full(model.shape(variant), Precision::Single);
        let masked = model.forward(&batch, &mut Attention::Masked(&masks));
        assert_close(masked, model.forward(&batch, &mut Attention::Dense));
    }
}

#[test]
fn padding_changes_nothing_in_any_precision() {
    let (model, batch) = (bert("bert"), Reference::of("bert").text());
    // The second sequence has twelve real tokens; alone and without padding it must give the same scores.
    let alone = TextBatch {
        tokens: batch.tokens.clone().slice([1..2, 0..12]),
        token_types: batch.token_types.clone().slice([1..2, 0..12]),
        real: batch.real.clone().slice([1..2, 0..12]),
    };
    for precision in Precision::ALL {
        let masks = CompiledMasks::new(&band(model.shape("bert"), precision), &Device::flex());
        let together = model.forward(&batch, &mut Attention::Masked(&masks)).slice_dim(0, 1..2);
        assert_close(model.forward(&alone, &mut Attention::Masked(&masks)), together);
    }
}

#[test]
fn a_mask_changes_the_answer() {
    let (model, batch) = (bert("bert"), Reference::of("bert").text());
    let masks = CompiledMasks::new(&band(model.shape("bert"), Precision::Single), &Device::flex());
    let masked = model.forward(&batch, &mut Attention::Masked(&masks));
    let moved: f32 = (masked - model.forward(&batch, &mut Attention::Dense)).abs().max().into_scalar();
    assert!(moved > 1e-3, "{moved}");
}

#[test]
fn every_weight_of_a_masked_model_gets_a_gradient() {
    let reference = Reference::of("bert");
    let model = bert("bert").train();
    let device = Device::flex().autodiff();
    let masks = CompiledMasks::new(&band(model.shape("bert"), Precision::Int8), &device);
    let batch = reference.text();
    let batch = TextBatch {
        tokens: batch.tokens.to_device(&device),
        token_types: batch.token_types.to_device(&device),
        real: Tensor::from_inner(batch.real),
    };
    let loss = model.forward(&batch, &mut Attention::Masked(&masks)).powi_scalar(2).sum();
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    // Three tables, 16 tensors in each of two layers, three normalisations' and layers' pairs: all but none.
    assert_eq!(gradients.len(), 3 + 2 * 16 + 2 + 4);
}

#[test]
fn mean_pooling_leaves_the_pooler_out_and_new_classes_draw_a_new_classifier() {
    let loading = Loading { classes: Some(5), pooling: Pooling::Mean, ..EIGHTEEN };
    let loaded = load("bert", &loading);
    assert_eq!(loaded.drawn, ["classifier.weight", "classifier.bias"]);
    assert_eq!(
        loaded.ignored,
        ["bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier.bias", "classifier.weight"]
    );
    assert!(load("bert", &EIGHTEEN).ignored.is_empty(), "the first token goes through the pooler");
    let batch = Reference::of("bert").text();
    assert_eq!(loaded.model.forward(Inputs::Text(batch), Attention::Dense).dims(), [2, 5]);
    let again = |seed| weights_digest(&load("bert", &Loading { seed, ..loading.clone() }).model);
    assert_eq!(again(1), again(1));
    assert_ne!(again(1), again(2));
}

#[test]
fn a_model_of_any_family_keeps_its_weights_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let with_seed = |seed| load("bert", &Loading { classes: Some(5), seed, ..EIGHTEEN }).model;
    let (written, mut read) = (with_seed(1), with_seed(2));
    std::fs::write(&path, weights_to_bytes(&written)).unwrap();
    load_weights(&mut read, &path).unwrap();
    assert_eq!(read.shape("a").digest, written.shape("b").digest);
}

#[test]
fn a_shape_counts_the_products_of_one_example() {
    let shape = bert("bert").shape("tiny");
    let macs: u64 = shape.linears.iter().map(|linear| linear.macs()).sum();
    // 18 tokens, 2 layers: four products 32 x 32 and two 32 x 48; pooler 32 x 32, classifier 32 x 3.
    assert_eq!(macs, 18 * 2 * (4 * 32 * 32 + 2 * 32 * 48) + 32 * 32 + 32 * 3);
    assert_eq!(shape.modules[1].name, "layer.1.attention");
    assert_eq!(shape.scores(), 2 * 4 * 18 * 18);
}
