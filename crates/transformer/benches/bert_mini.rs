//! Forward passes and training steps of BERT-mini: 128 tokens, batch 32.

#[path = "bert_mini/steps.rs"]
mod steps;

use burn::tensor::Device;
use criterion::{Criterion, criterion_group, criterion_main};
use steps::{Way, forward, train};

fn bert_mini(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bert-mini");
    group.sample_size(10);
    for way in Way::ALL {
        group.bench_function(format!("forward/{}", way.name()), |bencher| bencher.iter(forward(way, Device::flex())));
        group.bench_function(format!("train/{}", way.name()), |bencher| bencher.iter(train(way, Device::flex())));
    }
}

criterion_group!(benches, bert_mini);
criterion_main!(benches);
