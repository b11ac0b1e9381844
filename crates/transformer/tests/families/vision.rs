//! ViT, DeiT and Swin.

use burn::tensor::{Device, Tensor};
use maskwright_blueprint::Precision;
use maskwright_transformer::{Attention, CompiledMasks, Inputs, Loading, Model};

use crate::reference::{Reference, assert_close, band, full, load};

const MODELS: [&str; 3] = ["vit", "deit", "swin"];

fn model(name: &str) -> Model {
    load(name, &Loading::default()).model
}

fn pixels(name: &str) -> Tensor<4> {
    Reference::of(name).floats("pixels")
}

fn scores(model: &Model, images: Tensor<4>, attention: Attention<'_>) -> Tensor<2> {
    model.forward(Inputs::Images(images), attention)
}

fn largest_difference(a: Tensor<2>, b: Tensor<2>) -> f32 {
    (a - b).abs().max().into_scalar()
}

#[test]
fn hidden_states_and_class_scores_are_those_of_the_transformers_library() {
    for name in MODELS {
        let (model, reference) = (model(name), Reference::of(name));
        let hidden = match &model {
            Model::Vit(vit) => vit.hidden(pixels(name), &mut Attention::Dense),
            Model::Swin(swin) => swin.hidden(pixels(name), &mut Attention::Dense),
            other => panic!("{name} gave {other:?}"),
        };
        assert_close(hidden, reference.floats("hidden"));
        assert_close(scores(&model, pixels(name), Attention::Dense), reference.floats("logits"));
    }
}

#[test]
fn a_full_single_precision_mask_gives_what_the_dense_model_gives() {
    for name in MODELS {
        let model = model(name);
        let masks = full(model.shape(name), Precision::Single);
        let masked = scores(&model, pixels(name), Attention::Masked(&masks));
        assert_close(masked, scores(&model, pixels(name), Attention::Dense));
    }
}

#[test]
fn masks_and_coarser_precision_change_the_answer_a_little() {
    for name in MODELS {
        let model = model(name);
        let dense = scores(&model, pixels(name), Attention::Dense);
        let masked = |precision| {
            let masks = CompiledMasks::new(&band(model.shape(name), precision), &Device::flex());
            scores(&model, pixels(name), Attention::Masked(&masks))
        };
        let by_mask = largest_difference(masked(Precision::Single), dense);
        assert!(by_mask > 1e-3, "{name}: {by_mask}");
        let by_rounding = largest_difference(masked(Precision::Int8), masked(Precision::Single));
        assert!(by_rounding > 1e-6 && by_rounding < 0.5, "{name}: {by_rounding}");
    }
}

#[test]
fn other_classes_draw_both_classifiers_of_a_distilled_deit() {
    let loaded = load("deit", &Loading { classes: Some(7), ..Loading::default() });
    let drawn = ["cls_classifier.weight", "cls_classifier.bias"];
    let drawn: Vec<&str> =
        drawn.into_iter().chain(["distillation_classifier.weight", "distillation_classifier.bias"]).collect();
    assert_eq!(loaded.drawn, drawn);
    assert_eq!(scores(&loaded.model, pixels("deit"), Attention::Dense).dims(), [2, 7]);
}

#[test]
fn swin_has_a_module_for_each_block_of_each_stage() {
    let Model::Swin(swin) = model("swin") else { panic!("not Swin") };
    let shape = swin.shape("tiny");
    let names: Vec<&str> = shape.modules.iter().map(|module| &module.name[..]).collect();
    let expected = ["stage.0.block.0", "stage.0.block.1", "stage.1.block.0", "stage.1.block.1"];
    assert_eq!(names, expected.map(|name| format!("{name}.attention")));
    let heads: Vec<u32> = shape.modules.iter().map(|module| module.shape.heads).collect();
    assert_eq!(heads, [2, 2, 4, 4]);
    assert!(shape.modules.iter().all(|module| (module.shape.queries, module.shape.head_dim) == (49, 8)));
    // 56 / 4 = 14 tokens along a side are four windows; halved to 7, one.
    let windows: Vec<u32> = shape.modules.iter().map(|module| module.shape.windows).collect();
    assert_eq!(windows, [4, 4, 1, 1]);
    let macs: u64 = shape.linears.iter().map(|linear| linear.macs()).sum();
    let block = |tokens: u64, width: u64| tokens * (4 * width * width + 2 * width * 2 * width);
    let stages = 2 * block(196, 16) + 2 * block(49, 32);
    assert_eq!(macs, 196 * 48 * 16 + stages + 49 * 64 * 32 + 32 * 3);
}

#[test]
fn a_swin_whose_windows_do_not_tile_its_grids_is_refused() {
    let Model::Swin(swin) = model("swin") else { panic!("not Swin") };
    let mut config = swin.config().clone();
    config.side = 64;
    assert_eq!(config.check().unwrap_err(), "a grid of 16 x 16 tokens, which windows of 7 x 7 do not tile");
    config.side = 28;
    assert_eq!(config.check().unwrap_err(), "a grid of 7 x 7 tokens, which cannot be halved");
}
