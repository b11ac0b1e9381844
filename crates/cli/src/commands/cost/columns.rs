use maskwright_cost_model::Cost;

use crate::table::{percent, table, times};

/// A table of predicted costs; `name` heads the column that says whose they are, `rows` have that name, the cost, and
/// the dense cost that it is compared with.
pub(super) fn costs<'a>(name: &str, rows: impl IntoIterator<Item = (String, &'a Cost, &'a Cost)>) -> String {
    let headings = [
        &format!("\n{name}"),
        "time\npredicted",
        "speed-up\npredicted",
        "energy\npredicted",
        "low to high\npredicted",
        "peak power\npredicted",
        "DRAM traffic\npredicted",
        "operations\nper byte",
        "share of\npeak rate",
        "predicted\nbound",
    ];
    let rows = rows.into_iter().map(|(name, cost, dense)| {
        [
            name,
            cost.seconds.to_string(),
            times(dense.seconds / cost.seconds),
            cost.joules.value.to_string(),
            format!("{} to {}", cost.joules.low, cost.joules.high),
            cost.peak_watts.to_string(),
            cost.dram_bytes.to_string(),
            format!("{:.1}", cost.operations_per_byte),
            percent(cost.utilisation),
            cost.bound.to_string(),
        ]
    });
    table(headings, rows)
}
