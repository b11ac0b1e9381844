use maskwright_blueprint::Seconds;
use serde::Serialize;

use crate::{
    Dataflow,
    cost::Kind,
    schedule::AGAIN,
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

    /// Outputs are lighter than scores, so that the two streams can be told apart; loads of what gave way stand out.
    fn role(self, label: &str) -> Role {
        match self {
            Self::Matrix if label.starts_with('O') => Role::MatrixOutput,
            Self::Matrix => Role::Matrix,
            Self::Vector => Role::Vector,
            Self::Dram if label.ends_with(AGAIN) => Role::Again,
            Self::Dram => Role::Dram,
        }
    }
}

impl Timeline {
    /// Seconds that a unit is busy.
    pub fn busy(&self, unit: Unit) -> Seconds {
        self.spans.iter().filter(|span| span.unit == unit).map(|span| span.end - span.start).sum()
    }

    /// A picture with a row for each unit; where its pieces are too narrow for that, its middle stands magnified below.
    pub fn to_svg(&self) -> String {
        let magnified = self.magnified();
        let panels = if magnified.is_some() { 2.0 } else { 1.0 };
        let bottom = TOP + panels * PANEL;
        let mut picture = Picture::new(LEFT + WIDTH + 20.0, bottom + 32.0);
        let shown = if self.complete { "" } else { ", beginning" };
        picture.text(LEFT, 24.0, "start", &format!("{} on {}, one core, predicted{shown}", self.dataflow, self.device));
        self.panel(&mut picture, TOP, (Seconds::ZERO, self.end));
        if let Some(window) = magnified {
            self.panel(&mut picture, TOP + PANEL, window);
        }
        let meanings = [
            (Role::Matrix, "C: scores, Q times K"),
            (Role::MatrixOutput, "O: output, P times V"),
            (Role::Vector, "P: softmax of C"),
            (Role::Dram, "what passes DRAM"),
            (Role::Again, "K or V again from DRAM"),
        ];
        for (at, (role, meaning)) in meanings.into_iter().enumerate() {
            let left = LEFT + 200.0 * at as f64;
            picture.bar((left, bottom + 4.0), (12.0, 12.0), role, meaning);
            picture.text(left + 18.0, bottom + 15.0, "start", meaning);
        }
        picture.finish()
    }

    /// A stretch in the middle with about [`LEGIBLE`] pieces of the matrix unit, if there are many more.
    fn magnified(&self) -> Option<(Seconds, Seconds)> {
        let starts: Vec<Seconds> =
            self.spans.iter().filter(|span| span.unit == Unit::Matrix).map(|span| span.start).collect();
        let first = starts.len() / 2;
        (starts.len() > 3 * LEGIBLE).then(|| (starts[first], starts[first + LEGIBLE]))
    }

    /// What every unit does from one moment to another, with its share of that time.
    fn panel(&self, picture: &mut Picture, top: f64, (from, to): (Seconds, Seconds)) {
        let bottom = top + ROW * Unit::ALL.len() as f64;
        let x = |at: Seconds| LEFT + WIDTH * ((at - from) / (to - from));
        for tick in 0..=4 {
            let at = from + (to - from) * (f64::from(tick) / 4.0);
            let anchor = match tick {
                0 => "start",
                4 => "end",
                _ => "middle",
            };
            let text = if at == Seconds::ZERO { "0".into() } else { at.to_string() };
            picture.line((x(at), top), (x(at), bottom), Role::Grid);
            picture.text(x(at), bottom + 18.0, anchor, &text);
        }
        for (row, unit) in Unit::ALL.into_iter().enumerate() {
            let y = top + ROW * row as f64;
            let mut busy = Seconds::ZERO;
            for span in self.spans.iter().filter(|span| span.unit == unit && span.end > from && span.start < to) {
                let (start, end) = (span.start.max(from), span.end.min(to));
                busy += end - start;
                let (left, right) = (x(start), x(end));
                let title = format!("{}: {} to {}", span.label, span.start, span.end);
                // A hair of ground between neighbours.
                let width = if right - left > 2.0 { right - left - 0.5 } else { right - left };
                picture.bar((left, y + 4.0), (width, ROW - 8.0), unit.role(&span.label), &title);
                // The colour says what comes again.
                let label = span.label.trim_end_matches(AGAIN).trim_end();
                if width > 6.0 * label.len() as f64 {
                    picture.label(left + width / 2.0, y + 25.5, label);
                }
            }
            picture.text(LEFT - 8.0, y + 18.0, "end", unit.name());
            picture.text(LEFT - 8.0, y + 34.0, "end", &format!("{:.0} % busy", 100.0 * (busy / (to - from))));
        }
    }
}

/// Pieces of one unit that have room for their names beside each other.
const LEGIBLE: usize = 24;

// Of a picture, in pixels.
const LEFT: f64 = 100.0;
const WIDTH: f64 = 1080.0;
const ROW: f64 = 44.0;
const TOP: f64 = 48.0;
const PANEL: f64 = ROW * Unit::ALL.len() as f64 + 36.0;
