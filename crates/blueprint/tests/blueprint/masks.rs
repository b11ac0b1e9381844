//! What a mask and a blueprint are, and each refusal with its words.

use std::error::Error;

use maskwright_blueprint::{
    AttentionKind::{CausalSelfAttention, CrossAttention, SelfAttention},
    BlockMask, BlockSize, Blueprint, Digest, HeadId, HeadMask, Linear, MaskError, ModelShape, Precision, Provenance,
};

use crate::models::{mask, model, shape, two_heads};

fn refused(picture: &str) -> String {
    picture.parse::<BlockMask>().unwrap_err().to_string()
}

fn refused_blueprint(model: ModelShape, masks: Vec<Vec<HeadMask>>) -> String {
    let error = Blueprint::new(model, masks, Provenance::default()).unwrap_err();
    assert!(error.source().is_none(), "what is wrong is told once");
    error.to_string()
}

#[test]
fn a_picture_is_read_row_by_row() {
    let mask: BlockMask = "4.1\n.2.".parse().unwrap();
    assert_eq!((mask.rows(), mask.columns()), (2, 3));
    assert_eq!(mask.row(0), [Some(Precision::Single), None, Some(Precision::Int8)]);
    assert_eq!(mask.get(1, 1), Some(Precision::Half));
    let active: Vec<_> = mask.active().collect();
    assert_eq!(active, [(0, 0, Precision::Single), (0, 2, Precision::Int8), (1, 1, Precision::Half)]);
    assert_eq!(mask.density(), 0.5);
}

#[test]
fn a_mask_shows_itself_as_it_is_written() {
    let mask: BlockMask = "4..1\n24.1\n.24.".parse().unwrap();
    assert_eq!(format!("{mask:?}"), "\n4..1\n24.1\n.24.\n");
}

#[test]
fn a_mask_that_breaks_a_rule_is_refused_with_the_rule() {
    assert_eq!(
        refused("4.\n.."),
        "query block 1 attends to no key block: its softmax has no terms; keep at least one block a row"
    );
    assert_eq!(
        refused("4.\n13"),
        "`3` in row 1 is no precision: use 1, 2 or 4 (bytes per element), or `.` for a skipped block"
    );
    assert_eq!(refused("4.\n1"), "row 1 has 1 blocks, the rows before it have 2");
    assert_eq!(refused(""), "a mask has at least one row and one column");
    let three_cells = vec![Some(Precision::Half); 3];
    assert_eq!(BlockMask::new(2, three_cells), Err(MaskError::Cells { found: 3, columns: 2 }));
    assert_eq!(BlockMask::new(0, vec![]), Err(MaskError::NoBlocks));
    assert_eq!(BlockSize::try_from(24).unwrap_err().to_string(), "block size is 8, 16 or 32 tokens, not 24");
    assert_eq!(Precision::try_from(3).unwrap_err().to_string(), "precision is 1, 2 or 4 bytes per element, not 3");
}

#[test]
fn self_attention_needs_a_block_at_or_left_of_the_diagonal_and_cross_attention_does_not() {
    let ahead = mask(BlockSize::B16, ".1\n1.");
    for kind in [SelfAttention, CausalSelfAttention] {
        assert_eq!(
            ahead.check(&shape(kind, 1, 32, 32)).unwrap_err().to_string(),
            "query block 0 attends to no key block at or left of the diagonal: under a causal mask or right padding its \
             softmax has no terms"
        );
    }
    assert_eq!(ahead.check(&shape(CrossAttention, 1, 32, 32)), Ok(()));
}

#[test]
fn the_last_block_of_197_tokens_holds_5() {
    let shape = shape(SelfAttention, 1, 197, 197);
    let dense = HeadMask::dense(&shape, BlockSize::B16, Precision::Int8);
    assert_eq!((dense.blocks.rows(), dense.blocks.columns()), (13, 13));
    assert_eq!(dense.active_scores(&shape), 197 * 197);
    assert_eq!(BlockSize::B16.extent(12, 197), 5);
    assert_eq!(BlockSize::B16.extent(13, 197), 0);
}

#[test]
fn a_grid_that_does_not_cover_the_tokens_is_refused() {
    let model = model([shape(CrossAttention, 1, 40, 20)]);
    assert_eq!(
        refused_blueprint(model, vec![vec![mask(BlockSize::B16, "1.\n41")]]),
        "the mask of module 0 head 0 does not fit: 2 x 2 blocks of 16 tokens do not cover 40 x 20 tokens: that takes 3 x \
         2"
    );
}

#[test]
fn a_missing_mask_is_counted() {
    let one_head = || model([shape(SelfAttention, 2, 16, 16)]);
    assert_eq!(refused_blueprint(one_head(), vec![]), "the model has 1 attention modules, the blueprint masks for 0");
    let masks = vec![vec![mask(BlockSize::B16, "1")]];
    assert_eq!(refused_blueprint(one_head(), masks), "module 0 has 2 heads, the blueprint 1 masks for it");
}

#[test]
fn a_model_that_cannot_be_is_refused() {
    let one_mask = || vec![vec![mask(BlockSize::B16, "1")]];
    assert_eq!(refused_blueprint(model([]), vec![]), "the model has no attention module, so there is nothing to mask");
    assert_eq!(
        refused_blueprint(model([shape(SelfAttention, 1, 16, 8)]), one_mask()),
        "module 0 is self-attention over 16 query and 8 key tokens; there they are the same"
    );
    assert_eq!(
        refused_blueprint(model([shape(SelfAttention, 0, 16, 16)]), vec![vec![]]),
        "module 0 has 0 heads, 16 x 16 tokens, head width 8 and 1 windows; each is at least 1"
    );
}

#[test]
fn counts_that_would_overflow_later_are_refused() {
    let too_much =
        "the model takes more than 2^53 multiply-accumulates or elements an example; so large a count is not exact";
    let fits = || model([shape(SelfAttention, 1, 16, 16)]);
    let one_mask = || vec![vec![mask(BlockSize::B16, "1")]];

    let huge = Linear { rows: 1, inputs: u32::MAX, outputs: u32::MAX, count: u32::MAX };
    assert_eq!(refused_blueprint(ModelShape { linears: vec![huge], ..fits() }, one_mask()), too_much);
    let hidden = Linear { rows: 0, ..huge };
    assert_eq!(refused_blueprint(ModelShape { linears: vec![hidden], ..fits() }, one_mask()), too_much);
    assert_eq!(refused_blueprint(ModelShape { elementwise: u64::MAX, ..fits() }, one_mask()), too_much);
    let mut wide = fits();
    wide.modules[0].shape = maskwright_blueprint::AttentionShape {
        heads: u32::MAX,
        queries: u32::MAX,
        keys: u32::MAX,
        head_dim: u32::MAX,
        ..wide.modules[0].shape
    };
    assert_eq!(refused_blueprint(wide, one_mask()), too_much);
}

#[test]
fn a_blueprint_for_another_model_is_refused() {
    let blueprint = two_heads();
    assert_eq!(blueprint.check_model(blueprint.model()), Ok(()));
    let other = ModelShape { name: "other".into(), digest: Digest::of(["other"]), ..blueprint.model().clone() };
    let error = blueprint.check_model(&other).unwrap_err().to_string();
    assert_eq!(error, "this blueprint is for model `tiny` (227cc5f9), not for `other` (34c5ad62)");
}

#[test]
fn the_digest_is_of_masks_and_model_and_not_of_provenance() {
    let blueprint = two_heads();
    assert_eq!(
        blueprint.digest().to_string(),
        "sha256:f475ccc154fa6a7b6eeb9358b1a87acd8da83078f5e72590d8130673bd6b1237"
    );

    let mut told_otherwise = blueprint.clone();
    told_otherwise.provenance = Provenance::default();
    assert_eq!(told_otherwise.digest(), blueprint.digest());

    let mut masks = blueprint.masks().to_vec();
    masks[0][0] = mask(BlockSize::B16, "1.\n42");
    let changed = Blueprint::new(blueprint.model().clone(), masks, Provenance::default()).unwrap();
    assert_ne!(changed.digest(), blueprint.digest());
}

#[test]
fn density_counts_scores_and_not_blocks() {
    // Head 0: 16x16 + 4x16 + 4x4 scores. Head 1: 8x8 + 8x8 + 4x8 + 4x4. Both out of 20x20.
    assert_eq!(two_heads().density(), (336.0 + 176.0) / 800.0);
    assert_eq!(two_heads().block_sizes(), [BlockSize::B8, BlockSize::B16]);
    assert_eq!(two_heads().mask(HeadId { module: 0, head: 1 }).block_size, BlockSize::B8);
}
