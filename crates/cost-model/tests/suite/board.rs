use maskwright_blueprint::Precision;
use maskwright_cost_model::{Cost, Dataflow, Softmax};

use crate::{Misses, dense, number, rows, self_attention};

const TABLE: &str = include_str!("../golden/intattention-rk3588s2.csv");

/// The table's columns: milliseconds and millijoules of each.
const PIPELINES: [(&str, Precision, Softmax); 4] = [
    ("fp32", Precision::Single, Softmax::Float),
    ("fp16", Precision::Half, Softmax::Float),
    ("quantise only", Precision::Int8, Softmax::Float),
    ("integer softmax", Precision::Int8, Softmax::Integer),
];

fn on_the_board(dataflow: Dataflow, tokens: u32, precision: Precision, softmax: Softmax) -> Cost {
    dense("rk3588s2", dataflow, 1, &self_attention(1, tokens, 128), precision, softmax)
}

fn softmax_share(cost: &Cost) -> f64 {
    let softmax = cost.terms.iter().find(|term| term.name == "softmax").unwrap();
    softmax.seconds / cost.seconds
}

#[test]
fn four_pipelines_on_the_board_are_met_within_15_percent() {
    let mut misses = Misses::default();
    for row in rows(TABLE) {
        let tokens = row[0].parse().unwrap();
        for (at, (name, precision, softmax)) in PIPELINES.into_iter().enumerate() {
            // FuseMax's matrix unit is none that the board has.
            for dataflow in Dataflow::ALL.into_iter().filter(|dataflow| *dataflow != Dataflow::FuseMax) {
                let cost = on_the_board(dataflow, tokens, precision, softmax);
                let what = format!("{name} {tokens} {dataflow}");
                let (milliseconds, millijoules) = (1e3 * cost.seconds.0, 1e3 * cost.joules.value.0);
                misses.compare(&format!("{what} ms"), milliseconds, number(row[1 + 2 * at]), 0.15);
                misses.compare(&format!("{what} mJ"), millijoules, number(row[2 + 2 * at]), 0.15);
            }
        }
    }
    misses.none();
}

#[test]
fn an_integer_softmax_takes_its_published_share_of_the_time() {
    for tokens in [1024, 2048, 4096] {
        let float = softmax_share(&on_the_board(Dataflow::LayerWise, tokens, Precision::Int8, Softmax::Float));
        let integer = softmax_share(&on_the_board(Dataflow::LayerWise, tokens, Precision::Int8, Softmax::Integer));
        assert!((0.57..=0.65).contains(&float), "float softmax at {tokens}: {float:.3}");
        assert!((0.14..=0.22).contains(&integer), "integer softmax at {tokens}: {integer:.3}");
    }
}

/// Between and beyond the two measured lengths: time grows a little less than with the square, power stays on the board's
/// 8 to 11 watts.
#[test]
fn lengths_that_were_not_measured_are_priced_sensibly() {
    for (name, precision, softmax) in PIPELINES {
        let lengths = [256, 512, 1024, 2048, 4096, 8192];
        let costs = lengths.map(|tokens| on_the_board(Dataflow::Flash, tokens, precision, softmax));
        for pair in costs.windows(2) {
            let growth = pair[1].seconds / pair[0].seconds;
            assert!((3.5..=4.1).contains(&growth), "{name}: {growth:.2} times the time at twice the length");
        }
        for cost in costs {
            let watts = cost.joules.value.0 / cost.seconds.0;
            assert!((7.5..=11.0).contains(&watts), "{name}: {watts:.2} W");
        }
    }
}
