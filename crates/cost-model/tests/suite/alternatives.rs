use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, Precision};
use maskwright_cost_model::{Alternative, Cost, CostModel, Dataflow, DeviceProfile, Quantity, Work, curves_to_svg};

use crate::self_attention;

const LAYERS: u32 = 12;

fn model(device: &str) -> CostModel {
    CostModel::new(&DeviceProfile::named(device).unwrap(), Dataflow::Flash, 1).unwrap()
}

fn price(alternative: &Alternative, shape: &AttentionShape) -> Cost {
    model("jetson-agx-xavier").alternative(alternative, shape, LAYERS, Precision::Half).unwrap()
}

#[test]
fn dense_is_what_the_model_says_of_dense_attention() {
    let shape = self_attention(12, 512, 64);
    let one =
        model("jetson-agx-xavier").attention(&Work::bare(&shape, BlockSize::B32, Precision::Half).unwrap()).unwrap();
    let stack = price(&Alternative::Dense, &shape);
    assert!((stack.seconds / one.seconds - 12.0).abs() < 1e-9);
    assert!((stack.joules.value / one.joules.value - 12.0).abs() < 1e-9);
}

/// From 8 Ki to 16 Ki tokens: what is linear doubles, what is quadratic takes four times as long.
#[test]
fn linear_alternatives_grow_linearly_and_quadratic_ones_do_not() {
    for alternative in Alternative::family(LAYERS) {
        let [short, long] = [8192, 16_384].map(|tokens| price(&alternative, &self_attention(12, tokens, 64)).seconds);
        let growth = long / short;
        let expected = match alternative {
            Alternative::Linformer { .. } | Alternative::Performer { .. } | Alternative::StateSpace { .. } => {
                1.95..=2.01
            }
            Alternative::Local { .. } => 1.95..=2.05,
            // Global rows and columns are linear as well.
            Alternative::BigBird { .. } => 1.95..=2.1,
            Alternative::Strided { .. } => 2.0..=4.01,
            _ => 3.9..=4.1,
        };
        assert!(expected.contains(&growth), "{}: {growth:.2}", alternative.name());
    }
}

#[test]
fn no_alternative_costs_more_than_dense_attention_at_4096_tokens() {
    let all = self_attention(12, 4096, 64);
    for shape in [all, AttentionShape { kind: AttentionKind::CausalSelfAttention, ..all }] {
        let dense = price(&Alternative::Dense, &shape);
        for alternative in Alternative::family(LAYERS) {
            let (cost, case) = (price(&alternative, &shape), format!("{}, {:?}", alternative.name(), shape.kind));
            assert!(cost.seconds.0 <= dense.seconds.0 * 1.001, "{case}: {}", cost.seconds);
            assert!(cost.joules.value.0 <= dense.joules.value.0 * 1.001, "{case}: {}", cost.joules.value);
        }
    }
}

#[test]
fn a_local_window_computes_its_share_of_the_scores() {
    // 128 blocks of 32 a row, 5 of them active but for the edges.
    let shape = self_attention(12, 4096, 64);
    let share =
        price(&Alternative::Local { window: 64 }, &shape).operations / price(&Alternative::Dense, &shape).operations;
    let blocks = 128.0 * 5.0 - 2.0 * (2.0 + 1.0);
    assert!((share - blocks / (128.0 * 128.0)).abs() < 1e-12, "{share}");
}

/// 12 layers, 12 heads, 64 channels, 4096 tokens, 16 elements of state, three multiply-accumulates of two operations each.
#[test]
fn a_recurrence_counts_its_operations_on_the_vector_unit() {
    let state_space = price(&Alternative::StateSpace { state: 16 }, &self_attention(12, 4096, 64));
    assert_eq!(state_space.operations, 12.0 * 12.0 * 64.0 * 4096.0 * 16.0 * 3.0 * 2.0);
}

/// The first length is half of the shape's: so are its keys.
#[test]
fn keys_of_other_lengths_stay_in_proportion() {
    let shape = AttentionShape { kind: AttentionKind::CrossAttention, keys: 128, ..self_attention(12, 512, 64) };
    let model = model("jetson-agx-xavier");
    let curves = model.against_tokens(&[Alternative::Dense], &shape, 1, Precision::Half, &[256, 512]).unwrap();
    let [short, long] = [&curves[0].points[0], &curves[0].points[1]];
    assert_eq!(4.0 * short.1.operations, long.1.operations);
    assert_eq!(long.1, model.alternative(&Alternative::Dense, &shape, 1, Precision::Half).unwrap());
}

#[test]
fn half_of_the_examples_leaving_at_once_saves_what_they_would_have_cost() {
    let shape = self_attention(12, 512, 64);
    let dense = price(&Alternative::Dense, &shape);
    let early = price(&Alternative::EarlyExit { leaving: vec![0.5] }, &shape);
    assert!((early.seconds / dense.seconds - (1.0 + 11.0 * 0.5) / 12.0).abs() < 1e-9);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let shape = self_attention(12, 512, 64);
    for alternative in [
        Alternative::Linformer { rank: 0 },
        Alternative::TokenPruning { kept: 1.5 },
        Alternative::EarlyExit { leaving: vec![0.7, 0.7] },
        Alternative::HybridConvolution { attending: f64::NAN, kernel: 3 },
    ] {
        let error = model("h200").alternative(&alternative, &shape, LAYERS, Precision::Half).unwrap_err().to_string();
        assert!(error.contains("makes no sense"), "{error}");
    }
}

#[test]
fn curves_are_drawn_with_a_name_each() {
    let family = Alternative::family(LAYERS);
    let shape = self_attention(12, 512, 64);
    let curves = model("h200").against_tokens(&family, &shape, LAYERS, Precision::Half, &[128, 512, 2048]).unwrap();
    let svg = curves_to_svg("12 layers on h200", Quantity::Joules, &curves);
    assert!(svg.contains("12 layers on h200: predicted energy"));
    assert!(family.iter().all(|alternative| svg.contains(&alternative.name())));
    assert_eq!(svg.matches("<polyline").count(), 2 * family.len());
    assert!(curves_to_svg("nothing", Quantity::Seconds, &[]).ends_with("</svg>\n"));
}
