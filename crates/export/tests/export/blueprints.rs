//! Blueprints that the tests share.

use maskwright_blueprint::{
    AttentionKind, AttentionShape, BlockSize, Blueprint, Digest, HeadMask, ModelShape, ModuleShape, Precision,
    Provenance,
};

pub fn shape(kind: AttentionKind, heads: u32, queries: u32, keys: u32) -> AttentionShape {
    AttentionShape { kind, heads, queries, keys, head_dim: 8, windows: 1 }
}

pub fn model(name: &str, shapes: &[AttentionShape]) -> ModelShape {
    let modules = shapes
        .iter()
        .enumerate()
        .map(|(at, &shape)| ModuleShape { name: format!("block.{at}.attention"), shape })
        .collect();
    ModelShape { name: name.into(), digest: Digest::of([name]), modules, linears: vec![], elementwise: 0 }
}

pub fn mask(block_size: BlockSize, picture: &str) -> HeadMask {
    HeadMask { block_size, blocks: picture.parse().unwrap() }
}

/// Two modules, the second cross-attention; block sizes differ within the first.
pub fn two_modules(name: &str) -> Blueprint {
    let shapes = [shape(AttentionKind::SelfAttention, 2, 20, 20), shape(AttentionKind::CrossAttention, 1, 20, 40)];
    let masks = vec![
        vec![mask(BlockSize::B16, "1.\n41"), mask(BlockSize::B8, "2..\n.2.\n4.1")],
        vec![mask(BlockSize::B16, "..4\n12.")],
    ];
    let provenance = Provenance { origin: "hand".into(), seed: Some(7), ..Provenance::default() };
    Blueprint::new(model(name, &shapes), masks, provenance).unwrap()
}

/// 24 dense heads over 512 tokens in blocks of 8: 98,304 blocks, so positions need 32 bits.
pub fn large() -> Blueprint {
    let shapes = [shape(AttentionKind::SelfAttention, 12, 512, 512); 2];
    Blueprint::dense(model("large", &shapes), BlockSize::B8, Precision::Half)
}

/// Every active block as `module head size row column width`, one a line.
pub fn listing(blueprint: &Blueprint) -> String {
    let mut text = String::new();
    for (id, _) in blueprint.model().heads() {
        let HeadMask { block_size, blocks } = blueprint.mask(id);
        for (row, column, precision) in blocks.active() {
            let width = precision.bytes();
            text += &format!("{} {} {block_size} {row} {column} {width}\n", id.module, id.head);
        }
    }
    text
}
