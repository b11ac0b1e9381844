//! What both plots share: size, searchers, drawing into an SVG that follows the page's colours.

use std::collections::BTreeMap;

use maskwright_search::EpisodeRecord;
use plotters::{
    coord::Shift,
    prelude::{DrawingArea, IntoDrawingArea, SVGBackend},
    style::{IntoFont, TextStyle},
};

use crate::report::palette::INK;

/// Width and height in the SVG's own units; the page scales it.
const SIZE: (u32, u32) = (520, 360);

/// A drawing that failed: the SVG backend writes into memory and cannot, but its interface may.
pub(crate) type PlotError = Box<dyn std::error::Error>;

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws an SVG, named for people who do not see it.
pub(crate) fn svg(label: &str, draw: impl FnOnce(&Area<'_>) -> Result<(), PlotError>) -> String {
    let mut text = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        draw(&area).and_then(|()| Ok(area.present()?))
    };
    match drawn {
        Ok(()) => text.replacen("<svg ", &format!("<svg class=\"plot\" role=\"img\" aria-label=\"{label}\" "), 1),
        Err(error) => format!("<p class=\"note\">This plot could not be drawn: {error}.</p>\n"),
    }
}

/// Labels of axes.
pub(crate) fn label_style() -> TextStyle<'static> {
    ("sans-serif", 15).into_font().color(&INK.color())
}

/// Numbers beside axes.
pub(crate) fn tick_style() -> TextStyle<'static> {
    ("sans-serif", 14).into_font().color(&INK.color())
}

/// The episodes of each searcher, the search first, then the others by name.
pub(crate) fn by_searcher(episodes: &[EpisodeRecord]) -> Vec<(&str, Vec<&EpisodeRecord>)> {
    let mut searchers: BTreeMap<(bool, &str), Vec<&EpisodeRecord>> = BTreeMap::new();
    for episode in episodes {
        searchers.entry((episode.searcher != "search", &episode.searcher)).or_default().push(episode);
    }
    searchers.into_iter().map(|((_, name), episodes)| (name, episodes)).collect()
}
