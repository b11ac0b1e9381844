use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;

/// An axis of decimal logarithms that is marked at round values: 1 to 9 within a decade, 1, 2 and 5 over several, 1 over
/// many.
pub(crate) struct Decades(pub Range<f64>);

impl Ranged for Decades {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.0.clone()).map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        let steps: &[f64] = match self.0.end - self.0.start {
            ..0.9 => &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
            ..3.0 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let decades = self.0.start.floor() as i32..=self.0.end.ceil() as i32;
        let values = decades.flat_map(|decade| steps.iter().map(move |step| step.log10() + f64::from(decade)));
        values.filter(|value| self.0.contains(value)).collect()
    }

    fn range(&self) -> Range<f64> {
        self.0.clone()
    }
}

impl ValueFormatter<f64> for Decades {
    /// The value itself, with one digit that counts: `0.05`, `2`, `50`.
    fn format(logarithm: &f64) -> String {
        let value = 10f64.powf(*logarithm);
        let decimals = (-(1.0001 * value).log10().floor()).clamp(0.0, 9.0) as usize;
        format!("{value:.decimals$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_at_round_values() {
        let labels = |low: f64, high: f64| {
            let marks = Decades(low.log10()..high.log10()).key_points(10);
            marks.iter().map(Decades::format).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(labels(1.7, 5.5), "2 3 4 5");
        assert_eq!(labels(0.03, 1.5), "0.05 0.1 0.2 0.5 1");
        assert_eq!(labels(0.9, 60.0), "1 2 5 10 20 50");
        assert_eq!(labels(0.0009, 20.0), "0.001 0.01 0.1 1 10");
    }
}
