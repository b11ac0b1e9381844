//! Models and blueprints that the tests share.

use maskwright_blueprint::{
    AttentionKind, AttentionShape, BlockMask, BlockSize, Blueprint, Digest, HeadMask, Linear, ModelShape, ModuleShape,
    Precision, Provenance,
};
use proptest::{collection::vec, option, prelude::*};

pub fn shape(kind: AttentionKind, heads: u32, queries: u32, keys: u32) -> AttentionShape {
    AttentionShape { kind, heads, queries, keys, head_dim: 8, windows: 1 }
}

pub fn model(shapes: impl IntoIterator<Item = AttentionShape>) -> ModelShape {
    let modules = shapes
        .into_iter()
        .enumerate()
        .map(|(at, shape)| ModuleShape { name: format!("block.{at}.attention"), shape })
        .collect();
    let linears = vec![Linear { rows: 20, inputs: 16, outputs: 48, count: 1 }];
    ModelShape { name: "tiny".into(), digest: Digest::of(["tiny"]), modules, linears, elementwise: 640 }
}

pub fn mask(block_size: BlockSize, picture: &str) -> HeadMask {
    HeadMask { block_size, blocks: picture.parse().unwrap() }
}

/// One module, two heads over 20 tokens: 2 x 2 blocks of 16, and 3 x 3 blocks of 8.
pub fn two_heads() -> Blueprint {
    let masks = vec![mask(BlockSize::B16, "1.\n41"), mask(BlockSize::B8, "2..\n.2.\n4.1")];
    let shape = shape(AttentionKind::SelfAttention, 2, 20, 20);
    let provenance = Provenance { origin: "hand".into(), seed: Some(7), ..Provenance::default() };
    Blueprint::new(model([shape]), vec![masks], provenance).unwrap()
}

pub fn any_precision() -> impl Strategy<Value = Precision> {
    prop::sample::select(Precision::ALL.to_vec())
}

/// A mask of this many blocks in which each row keeps its first block.
pub fn any_mask(rows: usize, columns: usize) -> impl Strategy<Value = BlockMask> {
    let rest = vec(option::of(any_precision()), rows * columns);
    (rest, vec(any_precision(), rows)).prop_map(move |(mut cells, first)| {
        for (row, precision) in first.into_iter().enumerate() {
            cells[row * columns] = Some(precision);
        }
        BlockMask::new(columns, cells).unwrap()
    })
}

fn any_head(shape: AttentionShape) -> impl Strategy<Value = HeadMask> {
    prop::sample::select(BlockSize::ALL.to_vec()).prop_flat_map(move |block_size| {
        let (rows, columns) = (block_size.cover(shape.queries), block_size.cover(shape.keys));
        any_mask(rows as usize, columns as usize).prop_map(move |blocks| HeadMask { block_size, blocks })
    })
}

fn any_shape() -> impl Strategy<Value = AttentionShape> {
    (0..3, 1..4_u32, 1..80_u32, 1..80_u32).prop_map(|(kind, heads, queries, keys)| match kind {
        0 => shape(AttentionKind::SelfAttention, heads, queries, queries),
        1 => shape(AttentionKind::CausalSelfAttention, heads, queries, queries),
        _ => shape(AttentionKind::CrossAttention, heads, queries, keys),
    })
}

/// One to three modules of any kind; block sizes differ within a module.
pub fn any_blueprint() -> impl Strategy<Value = Blueprint> {
    (vec(any_shape(), 1..4), "\\PC{0,20}", option::of(any::<u64>())).prop_flat_map(|(shapes, origin, seed)| {
        let heads: Vec<_> = shapes.iter().map(|&shape| vec(any_head(shape), shape.heads as usize)).collect();
        let provenance = Provenance { origin, seed, ..Provenance::default() };
        heads.prop_map(move |masks| Blueprint::new(model(shapes.clone()), masks, provenance.clone()).unwrap())
    })
}
