//! A masked model against plain dense attention and against attention worked out by hand.

use burn::tensor::{Device, Tensor, Tolerance};
use maskwright_blueprint::{BlockSize, Blueprint, HeadMask, Precision, Provenance};
use maskwright_transformer::{Attention, CompiledMasks, Encoder, EncoderConfig, EncoderInput, Inputs, TokenisedTexts};

const CONFIG: EncoderConfig = EncoderConfig {
    input: EncoderInput::Image { side: 20, patch: 4, channels: 1, overlap: 0 }, // 26 tokens: ragged at every block size
    width: 16,
    layers: 2,
    heads: 2,
    mlp: 32,
    classes: 5,
};

fn model() -> (Encoder, Tensor<4>) {
    let device = Device::flex();
    // The same pixels in every run, which random ones of a device that other tests share would not be.
    let pixels: Vec<f32> = (0..3 * 20 * 20).map(|at| (at as f32 * 1.7).sin()).collect();
    (CONFIG.init(3, &device), Tensor::<1>::from_floats(pixels.as_slice(), &device).reshape([3, 1, 20, 20]))
}

fn masked(model: &Encoder, images: Tensor<4>, blueprint: &Blueprint) -> Tensor<2> {
    let masks = CompiledMasks::new(blueprint, &images.device());
    model.forward(Inputs::Images(images), Attention::Masked(&masks))
}

#[test]
fn a_full_single_precision_mask_gives_what_the_dense_model_gives() {
    let (model, images) = model();
    for size in BlockSize::ALL {
        let full = Blueprint::dense(model.shape("test"), size, Precision::Single);
        let dense = model.forward(Inputs::Images(images.clone()), Attention::Dense);
        let masked = masked(&model, images.clone(), &full).into_data();
        // Numbers of up to 2, summed in another order: some forty roundings of 1.2e-7 of that.
        masked.assert_approx_eq::<f32>(&dense.into_data(), Tolerance::absolute(5e-6));
    }
}

#[test]
fn coarser_precision_moves_the_result_a_little_and_not_at_all_in_shape() {
    let (model, images) = model();
    let dense = model.forward(Inputs::Images(images.clone()), Attention::Dense);
    for (precision, tolerance) in [(Precision::Half, 2e-2), (Precision::Int8, 5e-2)] {
        let full = Blueprint::dense(model.shape("test"), BlockSize::B16, precision);
        let coarse = masked(&model, images.clone(), &full);
        let difference: f32 = (coarse - dense.clone()).abs().max().into_scalar();
        assert!(difference > 0.0 && difference < tolerance, "{precision}: {difference}");
    }
}

#[test]
fn a_skipped_block_carries_no_information() {
    let (model, images) = model();
    // Every query block sees only the first 8 tokens: class token and seven patches. Pixels of later patches do not
    // matter to the class token then.
    let shape = model.shape("test");
    let first_column = HeadMask { block_size: BlockSize::B8, blocks: "4...\n4...\n4...\n4...".parse().unwrap() };
    let blueprint = Blueprint::new(shape, vec![vec![first_column; 2]; 2], Provenance::default()).unwrap();
    let changed = images.clone().slice_fill([0..3, 0..1, 8..20, 0..20], 9.0);
    let before = masked(&model, images.clone(), &blueprint).into_data();
    masked(&model, changed.clone(), &blueprint).into_data().assert_eq(&before, true);
    let dense = |images| model.forward(Inputs::Images(images), Attention::Dense);
    let moved: f32 = (dense(changed) - dense(images)).abs().max().into_scalar();
    assert!(moved > 1e-3, "the dense model does see those pixels: {moved}");
}

#[test]
fn mixed_precision_in_one_row_shares_one_softmax() {
    let (model, images) = model();
    let shape = model.shape("test");
    let mixed = HeadMask { block_size: BlockSize::B16, blocks: "42\n14".parse().unwrap() };
    let blueprint = Blueprint::new(shape, vec![vec![mixed; 2]; 2], Provenance::default()).unwrap();
    let dense = model.forward(Inputs::Images(images.clone()), Attention::Dense);
    masked(&model, images, &blueprint)
        .into_data()
        .assert_approx_eq::<f32>(&dense.into_data(), Tolerance::absolute(5e-2));
}

#[test]
fn padding_of_a_sequence_changes_no_score() {
    let device = Device::flex();
    let input = EncoderInput::Tokens { length: 40, vocabulary: 7 };
    let config = EncoderConfig { input, ..CONFIG };
    let model = config.init(3, &device);
    let sequences: Vec<Vec<u32>> =
        [12, 40, 1].iter().map(|length| (0..*length).map(|at| (at * at + length) % 7).collect()).collect();
    let scores = |sequences: &[Vec<u32>], attention| {
        model.forward(Inputs::Text(TokenisedTexts::of_tokens(sequences).batch(&device)), attention)
    };
    let masks = Precision::ALL.map(|precision| {
        // The first block column and the diagonal: block 0 is of every sequence.
        let glyph = precision.bytes().to_string();
        let row = |row: usize| (0..5).map(|at| if at == 0 || at == row { &glyph } else { "." }).collect::<String>();
        let blocks = (0..5).map(row).collect::<Vec<_>>().join("\n").parse().unwrap();
        let mask = HeadMask { block_size: BlockSize::B8, blocks };
        let blueprint = Blueprint::new(model.shape("test"), vec![vec![mask; 2]; 2], Provenance::default());
        CompiledMasks::new(&blueprint.unwrap(), &device)
    });
    let ways = || masks.iter().map(Attention::Masked).chain([Attention::Dense, Attention::Identity]);
    let together: Vec<Tensor<2>> = ways().map(|attention| scores(&sequences, attention)).collect();
    for (at, sequence) in sequences.iter().enumerate() {
        let alone = ways().map(|attention| scores(std::slice::from_ref(sequence), attention));
        for (together, alone) in together.iter().zip(alone) {
            let together = together.clone().slice_dim(0, at..at + 1).into_data();
            together.assert_approx_eq::<f32>(&alone.into_data(), Tolerance::absolute(2e-6));
        }
    }
}
