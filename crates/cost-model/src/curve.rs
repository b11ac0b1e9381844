use maskwright_blueprint::{AttentionShape, Bytes, Joules, Precision, Seconds};
use serde::Serialize;

use crate::{Alternative, Cost, CostError, CostModel, svg::Picture};

/// Cost against the number of tokens; one point is enough for a mask that exists at one length.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    pub name: String,
    /// Tokens and predicted cost, in order of tokens.
    pub points: Vec<(u32, Cost)>,
}

/// What a picture shows of a cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    Seconds,
    Joules,
    DramBytes,
}

impl Quantity {
    fn of(self, cost: &Cost) -> f64 {
        match self {
            Self::Seconds => cost.seconds.0,
            Self::Joules => cost.joules.value.0,
            Self::DramBytes => cost.dram_bytes.0,
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Seconds => Seconds(value).to_string(),
            Self::Joules => Joules(value).to_string(),
            Self::DramBytes => Bytes(value).to_string(),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "time",
            Self::Joules => "energy",
            Self::DramBytes => "DRAM traffic",
        }
    }
}

impl CostModel {
    /// What some alternatives cost at several lengths, everything else as in `shape`.
    pub fn against_tokens(
        &self,
        alternatives: &[Alternative],
        shape: &AttentionShape,
        layers: u32,
        precision: Precision,
        lengths: &[u32],
    ) -> Result<Vec<Curve>, CostError> {
        let mut curves = Vec::with_capacity(alternatives.len());
        for alternative in alternatives {
            let at = |tokens: &u32| {
                let shape = AttentionShape { queries: *tokens, keys: *tokens, ..*shape };
                Ok((*tokens, self.alternative(alternative, &shape, layers, precision)?))
            };
            let points = lengths.iter().map(at).collect::<Result<_, CostError>>()?;
            curves.push(Curve { name: alternative.name(), points });
        }
        Ok(curves)
    }
}

/// Twelve colours that differ also for most colour-blind readers; dashes tell the second round from the first.
const COLOURS: [&str; 7] = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777"];

/// Curves over tokens, both axes logarithmic, with a legend.
///
/// An empty picture when there is no point.
pub fn curves_to_svg(title: &str, quantity: Quantity, curves: &[Curve]) -> String {
    const LEFT: f64 = 90.0;
    const WIDTH: f64 = 560.0;
    const TOP: f64 = 44.0;
    const HEIGHT: f64 = 400.0;
    let mut picture = Picture::new(1060.0, TOP + HEIGHT + 56.0);
    picture.text(LEFT, 24.0, "start", &format!("{title}: predicted {}", quantity.name()));
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let tokens = Log::over(points().map(|(tokens, _)| f64::from(*tokens)), 2.0);
    let values = Log::over(points().map(|(_, cost)| quantity.of(cost)), 10.0);
    let (Some(tokens), Some(values)) = (tokens, values) else { return picture.finish() };
    let (x, y) = (|at: f64| LEFT + WIDTH * tokens.share(at), |at: f64| TOP + HEIGHT * (1.0 - values.share(at)));
    for tick in tokens.ticks() {
        picture.line((x(tick), TOP), (x(tick), TOP + HEIGHT), "#dddddd");
        picture.text(x(tick), TOP + HEIGHT + 18.0, "middle", &format!("{tick}"));
    }
    for tick in values.ticks() {
        picture.line((LEFT, y(tick)), (LEFT + WIDTH, y(tick)), "#dddddd");
        picture.text(LEFT - 8.0, y(tick) + 4.0, "end", &quantity.show(tick));
    }
    picture.text(LEFT + WIDTH / 2.0, TOP + HEIGHT + 42.0, "middle", "tokens");
    for (at, curve) in curves.iter().enumerate() {
        let (colour, dashes) = (COLOURS[at % COLOURS.len()], if at < COLOURS.len() { "" } else { "6 4" });
        let places: Vec<_> =
            curve.points.iter().map(|(tokens, cost)| (x(f64::from(*tokens)), y(quantity.of(cost)))).collect();
        picture.curve(&places, colour, dashes);
        for (x, y) in places {
            picture.bar(x - 3.0, y - 3.0, 6.0, 6.0, colour, "");
        }
        let line = TOP + 10.0 + 24.0 * at as f64;
        picture.curve(&[(LEFT + WIDTH + 24.0, line), (LEFT + WIDTH + 54.0, line)], colour, dashes);
        picture.text(LEFT + WIDTH + 62.0, line + 4.0, "start", &curve.name);
    }
    picture.finish()
}

/// A logarithmic axis from one power of its base to another.
struct Log {
    base: f64,
    from: i32,
    to: i32,
}

impl Log {
    fn over(values: impl Iterator<Item = f64>, base: f64) -> Option<Self> {
        let (mut least, mut most) = (f64::INFINITY, 0.0f64);
        for value in values.filter(|value| *value > 0.0 && value.is_finite()) {
            least = least.min(value);
            most = most.max(value);
        }
        let from = least.log(base).floor();
        let to = most.log(base).ceil().max(from + 1.0);
        (most > 0.0).then_some(Self { base, from: from as i32, to: to as i32 })
    }

    /// Place on the axis, in [0, 1].
    fn share(&self, value: f64) -> f64 {
        (value.log(self.base) - f64::from(self.from)) / f64::from(self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let step = ((self.to - self.from) / 10 + 1) as usize;
        (self.from..=self.to).step_by(step).map(|power| self.base.powi(power))
    }
}
