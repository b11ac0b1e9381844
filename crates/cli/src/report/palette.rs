use plotters::style::RGBColor;

/// A colour with a meaning. Plots are drawn in the light one; the page's style sheet puts the dark one in its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Role {
    /// The CSS variable, without dashes before it.
    pub(crate) name: &'static str,
    pub(crate) light: (u8, u8, u8),
    pub(crate) dark: (u8, u8, u8),
}

/// Text and axes of plots.
pub(crate) const INK: Role = Role { name: "plot-ink", light: (58, 64, 72), dark: (190, 198, 208) };
/// Grid lines of plots.
pub(crate) const GRID: Role = Role { name: "plot-grid", light: (226, 229, 233), dark: (48, 55, 64) };
/// Limits drawn across a plot.
pub(crate) const LIMIT: Role = Role { name: "plot-limit", light: (140, 146, 154), dark: (130, 138, 148) };
/// What surrounds a point, so that it stands out of a crowd.
pub(crate) const PAPER: Role = Role { name: "plot-paper", light: (254, 254, 254), dark: (22, 27, 34) };

/// Colours that people with any colour vision tell apart (Okabe and Ito), the search's first.
const SEARCHERS: [Role; 6] = [
    Role { name: "searcher-0", light: (213, 94, 0), dark: (255, 138, 61) },
    Role { name: "searcher-1", light: (120, 126, 133), dark: (150, 157, 165) },
    Role { name: "searcher-2", light: (0, 114, 178), dark: (86, 180, 233) },
    Role { name: "searcher-3", light: (0, 148, 110), dark: (46, 196, 156) },
    Role { name: "searcher-4", light: (184, 104, 150), dark: (224, 148, 192) },
    Role { name: "searcher-5", light: (176, 144, 0), dark: (228, 200, 60) },
];

impl Role {
    pub(crate) fn color(self) -> RGBColor {
        let (red, green, blue) = self.light;
        RGBColor(red, green, blue)
    }

    fn all() -> impl Iterator<Item = Self> {
        [INK, GRID, LIMIT, PAPER].into_iter().chain(SEARCHERS)
    }
}

/// The colour of a searcher, by its place among the searchers of the run.
pub(crate) fn searcher(at: usize) -> Role {
    SEARCHERS[at % SEARCHERS.len()]
}

/// The variables for both schemes, and the rules that put them where plots have their light colours.
pub(crate) fn style() -> String {
    let hex = |(red, green, blue): (u8, u8, u8)| format!("#{red:02X}{green:02X}{blue:02X}");
    let variables = |pick: fn(&Role) -> (u8, u8, u8)| {
        Role::all().map(|role| format!("--{}:{};", role.name, hex(pick(&role)))).collect::<String>()
    };
    let rules = Role::all().map(|Role { name, light, .. }| {
        let light = hex(light);
        format!(".plot [fill=\"{light}\"]{{fill:var(--{name})}}.plot [stroke=\"{light}\"]{{stroke:var(--{name})}}\n")
    });
    format!(
        ":root{{{}}}\n@media (prefers-color-scheme:dark){{:root{{{}}}}}\n{}",
        variables(|role| role.light),
        variables(|role| role.dark),
        rules.collect::<String>()
    )
}
