use maskwright_blueprint::Seconds;
use serde::Serialize;

use crate::{
    Dataflow,
    cost::Kind,
    svg::{Picture, Role},
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

    /// Outputs are lighter than scores, so that the two streams can be told apart.
    fn role(self, label: &str) -> Role {
        match self {
            Self::Matrix if label.starts_with('O') => Role::MatrixOutput,
            Self::Matrix => Role::Matrix,
            Self::Vector => Role::Vector,
            Self::Dram => Role::Dram,
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
        let mut picture = Picture::new(LEFT + WIDTH + 20.0, bottom + 64.0);
        let shown = if self.complete { "" } else { ", beginning" };
        picture.text(LEFT, 24.0, "start", &format!("{} on {}, one core, predicted{shown}", self.dataflow, self.device));
        let x = |at: Seconds| LEFT + WIDTH * (at / self.end);
        for tick in 0..=4 {
            let at = self.end * (f64::from(tick) / 4.0);
            let (anchor, text) = match tick {
                0 => ("start", "0".into()),
                4 => ("end", at.to_string()),
                _ => ("middle", at.to_string()),
            };
            picture.line((x(at), TOP), (x(at), bottom), Role::Grid);
            picture.text(x(at), bottom + 18.0, anchor, &text);
        }
        for (row, unit) in Unit::ALL.into_iter().enumerate() {
            let y = TOP + ROW * row as f64;
            let share = 100.0 * (self.busy(unit) / self.end);
            picture.text(LEFT - 8.0, y + 18.0, "end", unit.name());
            picture.text(LEFT - 8.0, y + 34.0, "end", &format!("{share:.0} % busy"));
            for span in self.spans.iter().filter(|span| span.unit == unit) {
                let (left, right) = (x(span.start), x(span.end));
                let title = format!("{}: {} to {}", span.label, span.start, span.end);
                // A hair of ground between neighbours.
                let width = if right - left > 2.0 { right - left - 0.5 } else { right - left };
                picture.bar((left, y + 4.0), (width, ROW - 8.0), unit.role(&span.label), &title);
                if width > 6.0 * span.label.len() as f64 {
                    picture.label(left + width / 2.0, y + 25.5, &span.label);
                }
            }
        }
        let meanings = [
            (Role::Matrix, "C: scores, Q times K"),
            (Role::MatrixOutput, "O: output, P times V"),
            (Role::Vector, "P: softmax of C"),
            (Role::Dram, "Q, K, V, O and what else passes DRAM"),
        ];
        for (at, (role, meaning)) in meanings.into_iter().enumerate() {
            let left = LEFT + 200.0 * at as f64;
            picture.bar((left, bottom + 36.0), (12.0, 12.0), role, meaning);
            picture.text(left + 18.0, bottom + 47.0, "start", meaning);
        }
        picture.finish()
    }
}
