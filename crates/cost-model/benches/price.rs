//! How long pricing takes: a BERT-Base blueprint from scratch, and one head that changed.

use criterion::{Criterion, criterion_group, criterion_main};
use maskwright_blueprint::{
    AttentionKind, AttentionShape, BlockMask, BlockSize, Blueprint, Digest, HeadMask, ModelShape, ModuleShape,
    Precision, Provenance,
};
use maskwright_cost_model::{CostModel, Dataflow, DeviceProfile, Softmax, Work};

const SHAPE: AttentionShape =
    AttentionShape { kind: AttentionKind::SelfAttention, heads: 12, queries: 512, keys: 512, head_dim: 64, windows: 1 };

/// A mask at a third of the blocks, with all precisions, different for every head.
fn mask(head: usize) -> HeadMask {
    let rows = BlockSize::B16.cover(SHAPE.queries) as usize;
    let cell = |at: usize| match (at * 7 + head) % 9 {
        _ if at.is_multiple_of(rows + 1) => Some(Precision::Single),
        0 => Some(Precision::Int8),
        1 => Some(Precision::Half),
        2 => Some(Precision::Single),
        _ => None,
    };
    let blocks = BlockMask::new(rows, (0..rows * rows).map(cell).collect()).expect("the diagonal is active");
    HeadMask { block_size: BlockSize::B16, blocks }
}

fn bert_base() -> Blueprint {
    let modules = (0..12).map(|layer| ModuleShape { name: format!("block.{layer}.attention"), shape: SHAPE }).collect();
    let digest = Digest::of(["bert-base"]);
    let model = ModelShape { name: "bert-base".into(), digest, modules, linears: vec![], elementwise: 0 };
    let masks = (0..12).map(|layer| (0..12).map(|head| mask(12 * layer + head)).collect()).collect();
    Blueprint::new(model, masks, Provenance::default()).expect("the masks fit the model")
}

fn price(criterion: &mut Criterion) {
    let profile = DeviceProfile::named("cpu-avx512").expect("a baked-in profile");
    let (blueprint, head) = (bert_base(), mask(7));
    for dataflow in [Dataflow::Flash, Dataflow::LayerWise, Dataflow::Flat, Dataflow::Mas] {
        let model = CostModel::new(&profile, dataflow, 1).expect("a batch of one");
        criterion.bench_function(&format!("bert-base, 144 heads, 512 tokens, b = 16, {dataflow}"), |bencher| {
            bencher.iter(|| model.attention(&Work::of(&blueprint)));
        });
        criterion.bench_function(&format!("one head of them, {dataflow}"), |bencher| {
            bencher.iter(|| model.head(&head, &SHAPE, Softmax::Float));
        });
    }
}

criterion_group!(benches, price);
criterion_main!(benches);
