use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, Precision};
use maskwright_cost_model::{CostModel, Dataflow, DeviceProfile, Timeline, Unit, Work};

use crate::self_attention;

fn drawn(device: &str, dataflow: Dataflow, shape: &AttentionShape) -> (Timeline, f64) {
    let model = CostModel::new(&DeviceProfile::named(device).unwrap(), dataflow, 1).unwrap();
    let work = Work::bare(shape, BlockSize::B16, Precision::Half).unwrap();
    (model.timeline(&work.modules[0]).unwrap(), model.attention(&work).unwrap().seconds.0)
}

/// The formula takes K and V of the first head to have come while something else ran; the schedule shows them coming.
#[test]
fn the_drawn_mas_schedule_takes_as_long_as_the_formula_and_the_first_keys() {
    for (heads, tokens, dim) in [(8, 512, 32), (12, 512, 64), (32, 512, 128), (16, 256, 80)] {
        let (timeline, predicted) = drawn("mas-edge", Dataflow::Mas, &self_attention(heads, tokens, dim));
        assert!(timeline.complete);
        // K and V of one head for each of two cores, 2 bytes an element, at 30 GB/s.
        let first_keys = f64::from(2 * 2 * tokens * dim * 2) / 3e10;
        let what = format!("{heads} heads, {tokens} tokens, width {dim}: {} against {predicted} s", timeline.end.0);
        assert!(timeline.end.0 > 0.99 * predicted, "{what}");
        assert!(timeline.end.0 < 1.01 * predicted + first_keys, "{what}");
    }
}

#[test]
fn mas_keeps_the_vector_unit_busy_while_the_matrix_unit_works() {
    let (timeline, _) = drawn("mas-edge", Dataflow::Mas, &self_attention(4, 128, 64));
    let span = |label: &str| timeline.spans.iter().find(|span| span.label == label).unwrap();
    // P2 runs beside O1 and C3, in that order on the matrix unit.
    let (softmax, output, scores) = (span("P1.2"), span("O1.1"), span("C1.3"));
    assert!(output.end <= scores.start);
    assert!(softmax.start < scores.end && output.start < softmax.end);
    assert!(span("C1.2").end <= softmax.start);
}

/// One core has 2.5 MiB. For 4096 tokens of width 64, K and V (0.5 MiB each), two tiles of 16 rows of scores (0.125 MiB each)
/// and their rows of Q and O fit. For 8192 tokens (1 and 0.25 MiB) a little of K gives way, for 16384 (2 and 0.5 MiB) all of
/// K and some of V. P never does.
#[test]
fn keys_and_values_give_way_to_scores_and_come_again_while_they_are_used() {
    for (tokens, again) in [(4096, &[][..]), (8192, &["K1 again"]), (16_384, &["K1 again", "V1 again"])] {
        let (timeline, predicted) = drawn("mas-edge", Dataflow::Mas, &self_attention(2, tokens, 64));
        let mut labels: Vec<&str> = timeline.spans.iter().map(|span| span.label.as_str()).collect();
        labels.retain(|label| label.ends_with("again"));
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels, again, "{tokens} tokens");
        let off = timeline.end.0 / predicted - 1.0;
        assert!(timeline.complete && (0.0..0.03).contains(&off), "{tokens} tokens: off by {:.1} %", 100.0 * off);
    }
}

#[test]
fn sequential_stages_never_run_at_once() {
    for dataflow in [Dataflow::Flat, Dataflow::TileFlow] {
        let (timeline, _) = drawn("mas-edge", dataflow, &self_attention(2, 64, 64));
        let compute: Vec<_> = timeline.spans.iter().filter(|span| span.unit != Unit::Dram).collect();
        assert!(compute.windows(2).all(|pair| pair[0].end <= pair[1].start), "{dataflow}");
    }
}

#[test]
fn a_unit_does_one_thing_at_a_time_under_every_dataflow() {
    let cross = AttentionShape {
        kind: AttentionKind::CrossAttention,
        heads: 3,
        queries: 197,
        keys: 77,
        head_dim: 64,
        windows: 1,
    };
    for device in ["mas-edge", "flat-cloud", "rk3588s2", "jetson-agx-xavier"] {
        for dataflow in Dataflow::ALL {
            let (timeline, _) = drawn(device, dataflow, &cross);
            for unit in Unit::ALL {
                let spans: Vec<_> = timeline.spans.iter().filter(|span| span.unit == unit).collect();
                assert!(!spans.is_empty());
                assert!(
                    spans.windows(2).all(|pair| pair[0].end <= pair[1].start),
                    "{unit:?} of {device} under {dataflow}"
                );
            }
        }
    }
}

#[test]
fn a_long_schedule_is_cut_off_and_says_so() {
    let (timeline, _) = drawn("mas-edge", Dataflow::Flash, &self_attention(2, 65_536, 64));
    assert!(!timeline.complete);
    let svg = timeline.to_svg();
    assert!(svg.contains("flash on mas-edge, one core, predicted, beginning"));
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    assert!(svg.len() < 1 << 20, "{} bytes", svg.len());
    assert_eq!(svg.matches("matrix unit").count(), 2); // all of it, and its middle magnified
}

/// Everything but the first loads and last stores, which a formula over whole heads leaves out.
#[test]
fn every_drawn_schedule_is_about_as_long_as_its_formula() {
    for device in ["mas-edge", "flat-cloud"] {
        for dataflow in Dataflow::ALL {
            let (timeline, predicted) = drawn(device, dataflow, &self_attention(8, 1024, 64));
            let off = timeline.end.0 / predicted - 1.0;
            assert!(
                timeline.complete && (-0.02..0.12).contains(&off),
                "{dataflow} on {device}: off by {:.1} %",
                100.0 * off
            );
        }
    }
}
