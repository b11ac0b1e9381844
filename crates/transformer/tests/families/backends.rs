//! Every family on every backend that was built and finds a device, against flex.

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Gradients, Tensor},
};
use maskwright_blueprint::Precision;
use maskwright_transformer::{
    Attention, Backend, BackendError, CompiledMasks, Inputs, Loading, Model, TextBatch, TranslationBatch,
};

use crate::reference::{Reference, band, folder};

const FAMILIES: [&str; 4] = ["bert", "vit", "swin", "marian"];

/// Class scores under masks, and the gradients of the sum of their squares by every weight.
fn scores_and_gradients(family: &str, precision: Precision, device: &Device) -> [Vec<f32>; 2] {
    let loading = Loading { length: Some(18), target_length: Some(12), ..Loading::default() };
    let loading = if matches!(family, "vit" | "swin") { Loading::default() } else { loading };
    let model = Model::load(&folder(family), &loading, device).unwrap().model.train();
    let device = device.clone().autodiff();
    let masks = CompiledMasks::new(&band(model.shape(family), precision), &device);
    let scores = model.forward(inputs(family, &device), Attention::Masked(&masks));
    let gradients = scores.clone().powi_scalar(2).sum().backward();
    let mut found = Found { gradients, values: Vec::new() };
    model.visit(&mut found);
    [scores.into_data().try_to_vec().unwrap(), found.values]
}

fn inputs(family: &str, device: &Device) -> Inputs {
    let reference = Reference::of(family);
    let floats = |name| Tensor::from_data(reference.floats::<4>(name).into_data(), device);
    let mask = |tensor: Tensor<2>| Tensor::<2>::from_data(tensor.into_data(), device);
    match family {
        "bert" => {
            let TextBatch { tokens, token_types, real } = reference.text();
            Inputs::Text(TextBatch {
                tokens: tokens.to_device(device),
                token_types: token_types.to_device(device),
                real: mask(real),
            })
        }
        "marian" => Inputs::Translation(TranslationBatch {
            source: reference.ints("input_ids").to_device(device),
            real: mask(reference.ints::<2>("attention_mask").float()),
            target: reference.ints("decoder_input_ids").to_device(device),
            lengths: None,
        }),
        _ => Inputs::Images(floats("pixels")),
    }
}

struct Found {
    gradients: Gradients,
    values: Vec<f32>,
}

impl ModuleVisitor for Found {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(&self.gradients) {
            self.values.extend(gradient.into_data().try_to_vec::<f32>().unwrap());
        }
    }
}

/// The root mean square of the difference, over that of `expected`.
fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let difference: f32 = found.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum();
    (difference / expected.iter().map(|b| b.powi(2)).sum::<f32>()).sqrt()
}

/// Those besides flex that were built and found a device; a GPU may be missing.
fn devices() -> Vec<(Backend, Device)> {
    let others = Backend::ALL.into_iter().filter(|backend| *backend != Backend::Flex);
    let found = others.filter_map(|backend| match backend.device() {
        Ok(device) => Some((backend, device)),
        Err(BackendError::NotBuilt { .. } | BackendError::NoDevice { .. }) => None,
        Err(error) => panic!("{backend}: {error}"),
    });
    found.collect()
}

#[test]
fn masked_scores_and_gradients_are_those_of_flex() {
    let mut compared = 0;
    let devices = devices();
    for (backend, device) in &devices {
        for family in FAMILIES {
            for precision in Precision::ALL {
                let [expected, slopes] = scores_and_gradients(family, precision, &Device::flex());
                let [scores, gradients] = scores_and_gradients(family, precision, device);
                let errors = [relative_error(&scores, &expected), relative_error(&gradients, &slopes)];
                println!("{backend} {family} {precision} {errors:?}");
                assert!(errors.iter().all(|error| *error < 1e-4), "{backend}, {family} in {precision}: {errors:?}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, devices.len() * FAMILIES.len() * Precision::ALL.len());
    let with_libtorch = devices.iter().any(|(backend, _)| *backend == Backend::LibTorch);
    assert_eq!(with_libtorch, cfg!(feature = "libtorch"), "libtorch computes on the CPU, which is always there");
}
