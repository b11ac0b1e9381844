use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Int, Tensor},
};
use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, Blueprint, HeadMask, Precision, Provenance};
use maskwright_transformer::{
    Attention, CompiledMasks, Decoding, Inputs, Loading, Marian, Model, Pooling, TranslationBatch,
};

use crate::reference::{Reference, assert_close, assert_equal, band, full, load};

/// The references have 18 source tokens and 12 target tokens; up to 15 are generated.
const LENGTHS: Loading =
    Loading { length: Some(18), target_length: Some(16), classes: None, pooling: Pooling::FirstToken, seed: 0 };

fn marian() -> Marian {
    match load("marian", &LENGTHS).model {
        Model::Marian(marian) => marian,
        other => panic!("{other:?}"),
    }
}

fn batch() -> TranslationBatch {
    let reference = Reference::of("marian");
    let text = reference.text();
    TranslationBatch {
        source: text.tokens,
        real: text.real,
        target: reference.ints("decoder_input_ids"),
        lengths: None,
    }
}

/// `[batch, target tokens, vocabulary]`
fn scores(model: &Marian, batch: TranslationBatch, attention: &mut Attention<'_>) -> Tensor<3> {
    let encoded = model.encode(batch.source, &batch.real, attention);
    model.decode(batch.target, encoded, &batch.real, attention)
}

/// Rows of generated tokens without start, end and padding.
fn sentences(tokens: Tensor<2, Int>) -> Vec<Vec<u32>> {
    let width = tokens.dims()[1];
    let values: Vec<i32> = tokens.into_data().convert::<i32>().try_to_vec().unwrap();
    let sentence = |row: &[i32]| row[1..].iter().take_while(|token| **token != 0).map(|token| *token as u32).collect();
    values.chunks(width).map(sentence).collect()
}

#[test]
fn encoder_and_scores_are_those_of_the_transformers_library() {
    let (model, reference, batch) = (marian(), Reference::of("marian"), batch());
    let real = batch.real.clone().unsqueeze_dim::<3>(2);
    let encoded = model.encode(batch.source.clone(), &batch.real, &mut Attention::Dense);
    assert_close(encoded * real.clone(), reference.floats::<3>("encoder_hidden") * real);
    assert_close(scores(&model, batch, &mut Attention::Dense), reference.floats("logits"));
}

#[test]
fn greedy_and_beam_decoding_find_what_the_transformers_library_finds() {
    let (model, reference, batch) = (marian(), Reference::of("marian"), batch());
    for (name, beams) in [("greedy", 1), ("beam", 4)] {
        let decoding = Decoding { beams, longest: 15, length_penalty: 1.0 };
        let found = model.translate(batch.source.clone(), &batch.real, None, &decoding);
        assert_eq!(found, sentences(reference.ints(name)), "{name}");
    }
}

#[test]
fn a_full_single_precision_mask_gives_what_the_dense_model_gives() {
    let (model, batch) = (marian(), batch());
    let masks = full(model.shape("marian"), Precision::Single);
    let masked = model.forward(batch.clone(), &mut Attention::Masked(&masks));
    assert_close(masked, model.forward(batch.clone(), &mut Attention::Dense));
    let decoding = Decoding { beams: 2, longest: 15, length_penalty: 1.0 };
    let translate = |masks| model.translate(batch.source.clone(), &batch.real, masks, &decoding);
    assert_eq!(translate(Some(&masks)), translate(None));
}

#[test]
fn no_score_depends_on_a_later_target_token_or_on_padding() {
    let (model, batch) = (marian(), batch());
    for precision in Precision::ALL {
        let masks = CompiledMasks::new(&band(model.shape("marian"), precision), &Device::flex());
        let scores = |batch: TranslationBatch| scores(&model, batch, &mut Attention::Masked(&masks));
        let before = scores(batch.clone());
        let other_padding = batch.source.clone().slice_fill([1..2, 12..18], 5);
        assert_equal(scores(TranslationBatch { source: other_padding, ..batch.clone() }), before.clone());
        if precision == Precision::Int8 {
            continue; // one scale for all tokens of a head: a later token may set it
        }
        let other_target = batch.target.clone().slice_fill([0..2, 7..12], 5);
        let after = scores(TranslationBatch { target: other_target, ..batch.clone() });
        assert_equal(after.slice_dim(1, 0..7), before.slice_dim(1, 0..7));
    }
}

#[test]
fn padding_of_a_target_changes_no_score_in_any_precision() {
    let (model, batch) = (marian(), batch());
    let shape = model.shape("marian");
    let device = Device::flex();
    for precision in Precision::ALL {
        let blueprint = band(shape.clone(), precision);
        for masks in [CompiledMasks::new(&blueprint, &device), CompiledMasks::composed(&blueprint, &device)] {
            let scores = |target| {
                let batch = TranslationBatch { target, lengths: Some(vec![12, 5]), ..batch.clone() };
                model.forward(batch, &mut Attention::Masked(&masks))
            };
            let before = scores(batch.target.clone());
            assert_eq!(before.dims(), [12 + 5, 60]);
            assert_equal(scores(batch.target.clone().slice_fill([1..2, 5..12], 7)), before);
        }
    }
}

#[test]
fn a_cross_attention_row_that_sees_only_padding_adds_nothing() {
    let (model, batch) = (marian(), batch());
    let shape = model.shape("marian");
    let mask = |of: &AttentionShape| match of.kind {
        AttentionKind::CrossAttention => {
            HeadMask { block_size: BlockSize::B8, blocks: "..4\n..4".parse().unwrap() } // source tokens 16 and 17 only
        }
        _ => HeadMask::dense(of, BlockSize::B8, Precision::Single),
    };
    let masks = shape.modules.iter().map(|of| vec![mask(&of.shape); of.shape.heads as usize]).collect();
    let masks = CompiledMasks::new(&Blueprint::new(shape, masks, Provenance::default()).unwrap(), &Device::flex());
    // The second source has twelve real tokens, so its cross-attention sees none: its scores no longer depend on it.
    let scores = |source: Tensor<2, Int>| {
        let batch = TranslationBatch { source, ..batch.clone() };
        scores(&model, batch, &mut Attention::Masked(&masks)).slice_dim(0, 1..2)
    };
    let before = scores(batch.source.clone());
    assert!(before.clone().is_finite().all().into_scalar::<bool>());
    assert_equal(scores(batch.source.clone().slice_fill([1..2, 0..18], 7)), before);
}

#[test]
fn modules_come_in_the_order_in_which_they_are_computed() {
    let shape = marian().shape("tiny");
    let names: Vec<&str> = shape.modules.iter().map(|module| &module.name[..]).collect();
    let encoder = ["encoder.0.attention", "encoder.1.attention"];
    let decoder =
        ["decoder.0.attention", "decoder.0.cross_attention", "decoder.1.attention", "decoder.1.cross_attention"];
    assert_eq!(names, [&encoder[..], &decoder[..]].concat());
    let cross = &shape.modules[3].shape;
    assert_eq!((cross.kind, cross.queries, cross.keys), (AttentionKind::CrossAttention, 16, 18));
}

#[test]
fn every_weight_of_a_masked_translator_gets_a_gradient() {
    let device = Device::flex().autodiff();
    let model = Model::Marian(marian()).train();
    let masks = CompiledMasks::new(&band(model.shape("marian"), Precision::Int8), &device);
    let batch = batch();
    let batch = TranslationBatch {
        source: batch.source.to_device(&device),
        real: Tensor::from_inner(batch.real),
        target: batch.target.to_device(&device),
        lengths: None,
    };
    let scores = model.forward(Inputs::Translation(batch), Attention::Masked(&masks));
    assert_eq!(scores.dims(), [2 * 12, 60]);
    let gradients = GradientsParams::from_grads(scores.powi_scalar(2).sum().backward(), &model);
    // Words, bias of the scores; ten tensors for each attention, six for each feed-forward part.
    assert_eq!(gradients.len(), 2 + 2 * (10 + 6) + 2 * (2 * 10 + 6));
}

/// Greedy decoding that computes the whole target anew for each of its tokens.
fn without_a_cache(model: &Marian, batch: &TranslationBatch, masks: Option<&CompiledMasks>) -> Vec<Vec<u32>> {
    let attention = || masks.map_or(Attention::Dense, Attention::Masked);
    let encoded = model.encode(batch.source.clone(), &batch.real, &mut attention());
    let padding = model.config().padding as usize; // never generated
    let mut target = batch.target.clone().slice_dim(1, 0..1); // the start
    for length in 1..16 {
        let scores = model.decode(target.clone(), encoded.clone(), &batch.real, &mut attention());
        let next = scores.slice_dim(1, length - 1..length).squeeze_dim::<2>(1);
        let next = next.slice_fill([0..2, padding..padding + 1], f32::MIN).argmax(1);
        target = Tensor::cat(vec![target, next], 1);
    }
    let end = model.config().end;
    let until_end = |row: Vec<u32>| row.into_iter().take_while(|token| *token != end).collect();
    let rows: Vec<i32> = target.into_data().convert::<i32>().try_to_vec().unwrap();
    rows.chunks(16).map(|row| until_end(row[1..15].iter().map(|token| *token as u32).collect())).collect()
}

#[test]
fn decoding_with_kept_keys_and_values_finds_what_decoding_without_them_finds() {
    let (model, batch) = (marian(), batch());
    let decoding = Decoding { beams: 1, longest: 15, length_penalty: 1.0 };
    let device = Device::flex();
    let mut all = vec![None];
    for precision in Precision::ALL {
        all.push(Some(CompiledMasks::new(&band(model.shape("marian"), precision), &device)));
        all.push(Some(CompiledMasks::composed(&band(model.shape("marian"), precision), &device)));
    }
    for (at, masks) in all.iter().enumerate() {
        let found = model.translate(batch.source.clone(), &batch.real, masks.as_ref(), &decoding);
        assert_eq!(found, without_a_cache(&model, &batch, masks.as_ref()), "masks {at}");
        assert!(found.iter().any(|row| row.len() > 8), "{found:?}: long enough to reach a second row of blocks");
    }
}
