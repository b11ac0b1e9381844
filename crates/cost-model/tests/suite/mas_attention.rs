use maskwright_blueprint::Precision;
use maskwright_cost_model::{Dataflow, Softmax};

use crate::{Misses, dense, number, rows, self_attention};

const TABLE: &str = include_str!("../golden/mas-attention.csv");

/// Heads, tokens, width: likely readings of the paper's networks, whose own list was not at hand.
const NETWORKS: [(u32, u32, u32); 12] = [
    (12, 512, 64),  // BERT-Base
    (16, 512, 64),  // BERT-Large
    (8, 512, 64),   // BERT-Small
    (8, 512, 32),   // T5-Mini
    (32, 512, 128), // Llama3-8B
    (8, 512, 128),  // XLM
    (12, 196, 64),  // ViT-B, L, H with and without rounding up to 256 tokens
    (16, 196, 64),
    (16, 196, 80),
    (12, 256, 64),
    (16, 256, 64),
    (16, 256, 80),
];

/// Times as slow as MAS on the simulated device.
fn slower(dataflow: Dataflow, (heads, tokens, dim): (u32, u32, u32)) -> f64 {
    let seconds = |dataflow| {
        let shape = self_attention(heads, tokens, dim);
        dense("mas-edge", dataflow, 1, &shape, Precision::Half, Softmax::Float).seconds
    };
    seconds(dataflow) / seconds(Dataflow::Mas)
}

fn published(baseline: &str) -> Vec<&'static str> {
    rows(TABLE).find(|row| row[0] == baseline).unwrap()
}

#[test]
fn mas_gains_most_over_unfused_dataflows_where_the_paper_says() {
    let t5_mini = (8, 512, 32);
    let mut misses = Misses::default();
    for (dataflow, baseline) in [(Dataflow::LayerWise, "layer-wise"), (Dataflow::SoftPipe, "soft-pipe")] {
        let most = NETWORKS.into_iter().map(|network| slower(dataflow, network)).fold(0.0, f64::max);
        assert_eq!(most, slower(dataflow, t5_mini), "{dataflow}");
        misses.compare(baseline, most, number(published(baseline)[2]), 0.01);
    }
    misses.none();
}

#[test]
fn mean_gains_of_mas_are_the_published_ones_within_a_fifth() {
    let mut misses = Misses::default();
    for (dataflow, baseline) in [
        (Dataflow::LayerWise, "layer-wise"),
        (Dataflow::SoftPipe, "soft-pipe"),
        (Dataflow::Flat, "flat"),
        (Dataflow::TileFlow, "tileflow"),
        (Dataflow::FuseMax, "fusemax"),
    ] {
        let logs: f64 = NETWORKS.into_iter().map(|network| slower(dataflow, network).ln()).sum();
        let mean = (logs / NETWORKS.len() as f64).exp();
        misses.compare(baseline, mean, number(published(baseline)[1]), 0.2);
    }
    misses.none();
}

#[test]
fn mas_is_never_slower_than_the_dataflows_it_was_made_against() {
    for network in NETWORKS {
        for dataflow in [Dataflow::LayerWise, Dataflow::SoftPipe, Dataflow::Flat, Dataflow::TileFlow, Dataflow::FuseMax]
        {
            assert!(slower(dataflow, network) >= 1.0, "{dataflow} on {network:?}");
        }
    }
}
