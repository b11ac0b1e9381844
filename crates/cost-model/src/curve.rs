use maskwright_blueprint::{AttentionShape, Bytes, Joules, Precision, Seconds};
use serde::Serialize;

use crate::{
    Alternative, Cost, CostError, CostModel,
    svg::{Picture, Role, SERIES},
};

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

    /// A round value, without the digits behind its point.
    fn show(self, value: f64) -> String {
        match self {
            Self::Seconds => Seconds(value).to_string(),
            Self::Joules => Joules(value).to_string(),
            Self::DramBytes => Bytes(value).to_string(),
        }
        .replace(".000", "")
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
    /// What some alternatives cost at several lengths, keys in proportion, everything else as in `shape`.
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
                let keys = (u64::from(*tokens) * u64::from(shape.keys)).div_ceil(u64::from(shape.queries.max(1)));
                let keys = u32::try_from(keys).unwrap_or(u32::MAX);
                let shape = AttentionShape { queries: *tokens, keys, ..*shape };
                Ok((*tokens, self.alternative(alternative, &shape, layers, precision)?))
            };
            let points = lengths.iter().map(at).collect::<Result<_, CostError>>()?;
            curves.push(Curve { name: alternative.name(), points });
        }
        Ok(curves)
    }
}

/// Curves over tokens, both axes logarithmic, with a legend; what has one point only stands out as a mark.
///
/// An empty picture when there is no point.
pub fn curves_to_svg(title: &str, quantity: Quantity, curves: &[Curve]) -> String {
    const LEFT: f64 = 90.0;
    const WIDTH: f64 = 560.0;
    const TOP: f64 = 44.0;
    const HEIGHT: f64 = 520.0;
    let mut picture = Picture::new(1060.0, TOP + HEIGHT + 56.0);
    picture.text(LEFT, 24.0, "start", &format!("{title}: predicted {}", quantity.name()));
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let tokens = Log::over(points().map(|(tokens, _)| f64::from(*tokens)), 2.0);
    let values = Log::over(points().map(|(_, cost)| quantity.of(cost)), 10.0);
    let (Some(tokens), Some(values)) = (tokens, values) else { return picture.finish() };
    let (x, y) = (|at: f64| LEFT + WIDTH * tokens.share(at), |at: f64| TOP + HEIGHT * (1.0 - values.share(at)));
    for tick in tokens.ticks() {
        picture.line((x(tick), TOP), (x(tick), TOP + HEIGHT), Role::Grid);
        picture.text(x(tick), TOP + HEIGHT + 18.0, "middle", &format!("{tick}"));
    }
    for tick in values.ticks() {
        picture.line((LEFT, y(tick)), (LEFT + WIDTH, y(tick)), Role::Grid);
        picture.text(LEFT - 8.0, y(tick) + 4.0, "end", &quantity.show(tick));
    }
    picture.text(LEFT + WIDTH / 2.0, TOP + HEIGHT + 42.0, "middle", "tokens");
    // In the order of their right ends, so that the legend can be read along the curves.
    let mut order: Vec<(usize, &Curve)> = curves.iter().enumerate().collect();
    let end = |curve: &Curve| curve.points.last().map_or(0.0, |(_, cost)| quantity.of(cost));
    order.sort_by(|(_, a), (_, b)| (b.points.len() > 1).cmp(&(a.points.len() > 1)).then(end(b).total_cmp(&end(a))));
    for (line, (at, curve)) in order.into_iter().enumerate() {
        let dashes = if at < SERIES { "" } else { "6 4" };
        let places: Vec<_> =
            curve.points.iter().map(|(tokens, cost)| (x(f64::from(*tokens)), y(quantity.of(cost)))).collect();
        let (left, line) = (LEFT + WIDTH + 24.0, TOP + 10.0 + 26.0 * line as f64);
        picture.text(left + 38.0, line + 4.0, "start", &legend(&curve.name));
        if let [(x, y)] = places[..] {
            for (x, y) in [(x, y), (left + 15.0, line)] {
                picture.bar((x - 5.0, y - 5.0), (10.0, 10.0), Role::Emphasis, &curve.name);
            }
            continue;
        }
        picture.curve(&places, Role::Series(at), dashes);
        picture.curve(&[(left, line), (left + 30.0, line)], Role::Series(at), dashes);
        for (x, y) in places {
            picture.bar((x - 2.0, y - 2.0), (4.0, 4.0), Role::Series(at), &curve.name);
        }
    }
    picture.finish()
}

/// The end of a name, as far as there is room: of a path that tells most.
fn legend(name: &str) -> String {
    const LONGEST: usize = 44;
    match name.chars().count() {
        count if count > LONGEST => format!("…{}", name.chars().skip(count - LONGEST + 1).collect::<String>()),
        _ => name.to_owned(),
    }
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
