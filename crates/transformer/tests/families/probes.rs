//! What calibration sees of a model's attention.

use std::ops::Range;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use maskwright_transformer::{Attention, Inputs, Loading, Model, Probe, TextBatch};

use crate::reference::{Reference, assert_equal, load};

/// Each family's model, its reference inputs, and how many examples of a batch attend side by side in each module.
fn families() -> Vec<(Model, Inputs, Vec<usize>)> {
    let text = Loading { length: Some(18), target_length: Some(12), ..Loading::default() };
    let bert = (load("bert", &text).model, Inputs::Text(Reference::of("bert").text()), vec![2; 2]);
    let images = |name: &str| Inputs::Images(Reference::of(name).floats("pixels"));
    let vit = (load("vit", &Loading::default()).model, images("vit"), vec![2; 2]);
    let swin = (load("swin", &Loading::default()).model, images("swin"), vec![8, 8, 2, 2]); // 2 images of 4 or 1 windows
    vec![bert, vit, swin]
}

#[test]
fn a_probe_sees_every_module_in_order_and_changes_nothing() {
    for (model, inputs, examples) in families() {
        let mut probe = Probe::default();
        let watched = model.forward(inputs.clone(), Attention::Probed(&mut probe));
        assert_equal(watched, model.forward(inputs, Attention::Dense));
        let seen: Vec<[usize; 4]> = probe.seen.iter().map(|seen| seen.scores.dims()).collect();
        let modules = model.shape("any").modules;
        let expected: Vec<[usize; 4]> = modules
            .iter()
            .zip(examples)
            .map(|(of, examples)| {
                [examples, of.shape.heads as usize, of.shape.queries as usize, of.shape.keys as usize]
            })
            .collect();
        assert_eq!(seen, expected);
    }
}

/// BERT and its reference texts, where gradients can be had.
fn trainable_bert() -> (Model, Inputs, Device) {
    let device = Device::flex().autodiff();
    let loading = Loading { length: Some(18), ..Loading::default() };
    let model = load("bert", &loading).model.train();
    let text = Reference::of("bert").text();
    let text = TextBatch {
        tokens: text.tokens.to_device(&device),
        token_types: text.token_types.to_device(&device),
        real: Tensor::from_inner(text.real),
    };
    (model, Inputs::Text(text), device)
}

#[test]
fn a_score_of_padding_has_no_influence() {
    let (model, inputs, device) = trainable_bert();
    let offset = || Tensor::<4>::zeros([2, 4, 18, 18], &device).require_grad();
    let mut probe = Probe { offsets: vec![offset(), offset()], ..Probe::default() };
    let scores = model.forward(inputs, Attention::Probed(&mut probe));
    let gradients = scores.powi_scalar(2).sum().backward();
    for offset in &probe.offsets {
        let gradient = offset.grad(&gradients).unwrap();
        // The second text has twelve real tokens.
        let of = |keys: Range<usize>| -> f32 {
            gradient.clone().slice_dim(0, 1..2).slice_dim(3, keys).abs().max().into_scalar()
        };
        assert!(of(0..12) > 0.0);
        assert_eq!(of(12..18), 0.0);
    }
}

#[test]
fn the_gradient_by_a_gain_is_what_a_larger_output_does() {
    let (model, inputs, device) = trainable_bert();
    let loss = |gains: Vec<Tensor<4>>| {
        let mut probe = Probe { gains, ..Probe::default() };
        model.forward(inputs.clone(), Attention::Probed(&mut probe)).powi_scalar(2).sum()
    };
    let zeros = || Tensor::<4>::zeros([2, 4, 18, 1], &device);
    let gains = vec![zeros().require_grad(), zeros().require_grad()];
    let gradients = loss(gains.clone()).backward();
    for (module, example, head, query) in [(0, 0, 0, 0), (0, 1, 3, 2), (1, 0, 2, 0), (1, 1, 1, 0)] {
        let place = [example..example + 1, head..head + 1, query..query + 1, 0..1];
        let with = |gain: f32| -> f32 {
            let mut gains = vec![zeros(), zeros()];
            gains[module] = zeros().slice_fill(place.clone(), gain);
            loss(gains).into_scalar()
        };
        let slope = (with(0.05) - with(-0.05)) / 0.1;
        let found: f32 = gains[module].grad(&gradients).unwrap().slice(place.clone()).into_scalar();
        assert!(slope.abs() > 1e-4 && (found - slope).abs() < 0.02 * slope.abs(), "{found}, not {slope}");
    }
}
