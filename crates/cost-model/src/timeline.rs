use maskwright_blueprint::Seconds;
use serde::Serialize;

use crate::{
    Dataflow,
    cost::Kind,
    svg::{Picture, escape},
};

/// What one core's units do when, for one attention module: a predicted schedule.
///
/// A unit does one thing at a time; nothing starts before what it needs is there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timeline {
    /// Always `predicted`.
    pub kind: Kind,
    pub device: String,
    pub dataflow: Dataflow,
    /// In order of issue.
    pub spans: Vec<Span>,
    pub end: Seconds,
    /// Whether all of the core's work is shown, or only its beginning.
    pub complete: bool,
}

/// One unit doing one thing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Span {
    pub unit: Unit,
    /// `C3`: scores of tile 3, `P3`: its probabilities, `O3`: its output; `Q3`, `K`, `V`: loads.
    pub label: String,
    pub start: Seconds,
    pub end: Seconds,
}

/// What a timeline has a row for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Unit {
    Matrix,
    Vector,
    Dram,
}

impl Unit {
    /// In the order in which a timeline shows them.
    pub const ALL: [Self; 3] = [Self::Matrix, Self::Vector, Self::Dram];

    const fn name(self) -> &'static str {
        match self {
            Self::Matrix => "matrix unit",
            Self::Vector => "vector unit",
            Self::Dram => "DRAM",
        }
    }

    const fn colour(self) -> &'static str {
        match self {
            Self::Matrix => "#4477aa",
            Self::Vector => "#ccbb44",
            Self::Dram => "#999999",
        }
    }
}

impl Timeline {
    /// Seconds that a unit is busy.
    pub fn busy(&self, unit: Unit) -> Seconds {
        self.spans.iter().filter(|span| span.unit == unit).map(|span| span.end - span.start).sum()
    }

    /// A picture with a row for each unit.
    pub fn to_svg(&self) -> String {
        const LEFT: f64 = 100.0;
        const WIDTH: f64 = 1080.0;
        const ROW: f64 = 44.0;
        const TOP: f64 = 48.0;
        let bottom = TOP + ROW * Unit::ALL.len() as f64;
        let mut picture = Picture::new(LEFT + WIDTH + 20.0, bottom + 40.0);
        let shown = if self.complete { "" } else { ", beginning" };
        picture.text(LEFT, 24.0, "start", &format!("{} on {}, one core, predicted{shown}", self.dataflow, self.device));
        let x = |at: Seconds| LEFT + WIDTH * (at / self.end);
        for (row, unit) in Unit::ALL.into_iter().enumerate() {
            let y = TOP + ROW * row as f64;
            let share = 100.0 * (self.busy(unit) / self.end);
            picture.text(LEFT - 8.0, y + 18.0, "end", unit.name());
            picture.text(LEFT - 8.0, y + 34.0, "end", &format!("{share:.0} % busy"));
            for span in self.spans.iter().filter(|span| span.unit == unit) {
                let (left, right) = (x(span.start), x(span.end));
                let title = format!("{}: {} to {}", span.label, span.start, span.end);
                // Outputs lighter than scores, so that the two streams can be told apart.
                let output = unit == Unit::Matrix && span.label.starts_with('O');
                let colour = if output { "#99bbdd" } else { unit.colour() };
                picture.bar(left, y + 4.0, right - left, ROW - 8.0, colour, &escape(&title));
                if right - left > 9.0 * span.label.len() as f64 {
                    picture.text((left + right) / 2.0, y + 26.0, "middle", &span.label);
                }
            }
        }
        for tick in 0..=4 {
            let at = self.end * (f64::from(tick) / 4.0);
            let anchor = ["start", "middle", "middle", "middle", "end"][tick as usize];
            picture.line((x(at), TOP), (x(at), bottom), "#cccccc");
            picture.text(x(at), bottom + 18.0, anchor, &at.to_string());
        }
        picture.finish()
    }
}
