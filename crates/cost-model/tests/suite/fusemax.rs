use maskwright_blueprint::Precision;
use maskwright_cost_model::{Cost, Dataflow, Softmax};

use crate::{Misses, dense, number, rows, self_attention};

const TABLE: &str = include_str!("../golden/fusemax.csv");

/// The tables' batch.
const BATCH: u32 = 64;

fn heads(model: &str) -> u32 {
    match model {
        "BERT" => 12,
        "TrXL" => 16,
        other => panic!("{other} is no network of the table"),
    }
}

fn on_flat_cloud(dataflow: Dataflow, model: &str, tokens: &str) -> Cost {
    let shape = self_attention(heads(model), tokens.parse().unwrap(), 64);
    dense("flat-cloud", dataflow, BATCH, &shape, Precision::Half, Softmax::Float)
}

#[test]
fn every_row_of_the_fusemax_table_comes_out_of_the_device_file_and_the_dataflow() {
    let mut misses = Misses::default();
    for row in rows(TABLE) {
        let (model, tokens) = (row[0], row[1]);
        let beyond_64k = tokens.parse::<u32>().unwrap() > 65_536;
        let published: Vec<f64> = row[2..].iter().map(|cell| number(cell)).collect();
        let unfused = on_flat_cloud(Dataflow::LayerWise, model, tokens);
        let flat = on_flat_cloud(Dataflow::Flat, model, tokens);
        let fused = on_flat_cloud(Dataflow::FuseMax, model, tokens);
        let mut check = |name: &str, predicted: f64, published: f64, tolerance: f64| {
            misses.compare(&format!("{model} {tokens} {name}"), predicted, published, tolerance);
        };
        check("unfused seconds", unfused.seconds.0, published[0], 0.005);
        check("unfused bytes", unfused.dram_bytes.0, published[1], 0.01);
        check("FLAT seconds", flat.seconds.0, published[2], if beyond_64k { 0.05 } else { 0.005 });
        check("FLAT bytes", flat.dram_bytes.0, published[3], 0.01);
        check("FuseMax seconds", fused.seconds.0, published[4], 0.005);
        check("FuseMax bytes", fused.dram_bytes.0, published[5], 0.01);
        check("FuseMax joules", fused.joules.value.0, published[6], 0.1);
    }
    misses.none();
}

/// Rows of the same public artifact that are not in the table: XLM with 16 heads of width 128. No number was fitted to them,
/// but they are no independent check of FLAT: its mapping rule was derived from the artifact that holds them.
#[test]
fn rows_of_another_network_come_out_too() {
    let shape = |tokens| self_attention(16, tokens, 128);
    let price =
        |dataflow, tokens| dense("flat-cloud", dataflow, BATCH, &shape(tokens), Precision::Half, Softmax::Float);
    let mut misses = Misses::default();
    for (tokens, seconds, bytes) in [
        (1024, 0.0178481, 2.68435e9),
        (4096, 0.28557, 5.42376e10),
        (16_384, 4.56911, 6.67974e11),
        (65_536, 73.1058, 9.84512e12),
        (262_144, 1392.96, 5.98272e14),
    ] {
        let flat = price(Dataflow::Flat, tokens);
        misses.compare(&format!("FLAT {tokens} seconds"), flat.seconds.0, seconds, 0.005);
        misses.compare(&format!("FLAT {tokens} bytes"), flat.dram_bytes.0, bytes, 0.01);
    }
    for (tokens, seconds, bytes, joules) in
        [(1024, 0.00519408, 1.07374e9, 5.0702), (65_536, 19.0261, 1.71799e11, 20_493.0)]
    {
        let fused = price(Dataflow::FuseMax, tokens);
        misses.compare(&format!("FuseMax {tokens} seconds"), fused.seconds.0, seconds, 0.005);
        misses.compare(&format!("FuseMax {tokens} bytes"), fused.dram_bytes.0, bytes, 0.01);
        misses.compare(&format!("FuseMax {tokens} joules"), fused.joules.value.0, joules, 0.1);
    }
    misses.none();
}

/// The closed form of the unfused baseline, at sizes that are in no table.
#[test]
fn a_dense_layer_wise_run_is_its_closed_form() {
    let (batch, heads, tokens, dim) = (3.0, 7.0, 2048.0, 96.0);
    let shape = self_attention(7, 2048, 96);
    let cost = dense("flat-cloud", Dataflow::LayerWise, 3, &shape, Precision::Half, Softmax::Float);
    let (clock, bandwidth, array) = (9.4e8, 400.0 * 1024.0 * 1024.0 * 1024.0, 65_536.0);
    let scores = batch * heads * tokens * tokens;
    let operand = 2.0 * batch * heads * tokens * dim;
    let product = f64::max((2.0 * operand + 2.0 * scores) / bandwidth, scores * dim / array / clock);
    let softmax = f64::max(4.0 * scores / bandwidth, 4.0 * scores / 256.0 / clock);
    let mut misses = Misses::default();
    misses.compare("seconds", cost.seconds.0, 2.0 * product + softmax, 0.001);
    misses.compare("bytes", cost.dram_bytes.0, 4.0 * operand + 8.0 * scores, 1e-9);
    misses.none();
}
