use std::fmt::Write;

/// An SVG picture in the making: a ground and a handful of shapes, nothing loaded from elsewhere. Its colours are those of
/// its reader's scheme, light or dark.
pub(crate) struct Picture {
    text: String,
}

/// What a colour stands for; [`STYLE`] has both of its values.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    Grid,
    Matrix,
    /// The matrix unit's second stream.
    MatrixOutput,
    Vector,
    Dram,
    /// DRAM, for what was on chip before.
    Again,
    /// One of [`SERIES`] curves.
    Series(usize),
    /// What a comparison is about.
    Emphasis,
}

/// Colours of curves before they repeat, which also most colour-blind readers tell apart.
pub(crate) const SERIES: usize = 7;

/// Bars are light in both schemes, because their labels are dark in both.
const STYLE: &str = "\
svg{color-scheme:light dark}.ground{fill:#ffffff}text{fill:#24292f}text.label{fill:#16191d;font-size:10px}
.grid{color:#dde1e6}.matrix{color:#7fb2e5}.output{color:#c3dcf5}.vector{color:#ecc94b}.dram{color:#b4bcc5}.again{color:#e8a598}
.emphasis{color:#101418}
.s0{color:#4477aa}.s1{color:#dd4455}.s2{color:#228833}.s3{color:#b09a20}.s4{color:#2aa5c9}.s5{color:#aa3377}.s6{color:#777777}
@media (prefers-color-scheme:dark){.ground{fill:#161b22}text{fill:#d0d7de}.grid{color:#30363d}
.emphasis{color:#f5f8fa}
.s0{color:#79a9dc}.s1{color:#ff7b8a}.s2{color:#4fc466}.s3{color:#e0cb55}.s4{color:#66ccee}.s5{color:#e07ab5}.s6{color:#a5adb6}}
";

impl Role {
    fn class(self) -> String {
        match self {
            Self::Grid => "grid".into(),
            Self::Matrix => "matrix".into(),
            Self::MatrixOutput => "output".into(),
            Self::Vector => "vector".into(),
            Self::Dram => "dram".into(),
            Self::Again => "again".into(),
            Self::Series(at) => format!("s{}", at % SERIES),
            Self::Emphasis => "emphasis".into(),
        }
    }
}

impl Picture {
    pub fn new(width: f64, height: f64) -> Self {
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n<style>\n{STYLE}</style>\n\
             <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n"
        );
        Self { text }
    }

    /// `anchor` is `start`, `middle` or `end`.
    pub fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escape(text);
        self.push(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"));
    }

    /// Small text in the middle of a bar.
    pub fn label(&mut self, x: f64, y: f64, text: &str) {
        let text = escape(text);
        self.push(format_args!("<text class=\"label\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{text}</text>"));
    }

    pub fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), role: Role) {
        let class = role.class();
        self.push(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" \
             stroke=\"currentColor\"/>"
        ));
    }

    /// A rectangle that shows `title` under the pointer.
    pub fn bar(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), role: Role, title: &str) {
        let (class, title) = (role.class(), escape(title));
        self.push(format_args!(
            "<rect class=\"{class}\" x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{height:.1}\" \
             fill=\"currentColor\"><title>{title}</title></rect>"
        ));
    }

    pub fn curve(&mut self, points: &[(f64, f64)], role: Role, dashes: &str) {
        let (class, mut list) = (role.class(), String::new());
        for (x, y) in points {
            let _ = write!(list, "{x:.1},{y:.1} ");
        }
        let list = list.trim_end();
        self.push(format_args!(
            "<polyline class=\"{class}\" points=\"{list}\" fill=\"none\" stroke=\"currentColor\" \
             stroke-width=\"1.8\" stroke-dasharray=\"{dashes}\"/>"
        ));
    }

    pub fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }

    fn push(&mut self, shape: std::fmt::Arguments<'_>) {
        self.text.write_fmt(shape).expect("a string takes any text");
        self.text.push('\n');
    }
}

/// Text that may hold what XML reads as markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
