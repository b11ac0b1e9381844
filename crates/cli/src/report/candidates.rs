use std::ops::Range;

use maskwright_search::{EpisodeRecord, Outcome};
use plotters::prelude::*;

use crate::report::{
    decades::Decades,
    palette::{self, GRID, INK, LIMIT, PAPER},
    plot::{by_searcher, label_style, svg, tick_style},
};

/// Share of the points at either end that do not decide how wide the plot is.
const OUTLIERS: f64 = 0.01;

/// The lowest kappa that a configuration can ask for, in nats; 0 has no place on a logarithmic axis.
const LEAST_KAPPA: f64 = 1e-9;

/// Predicted speed-up against distortion, one point for each candidate that was evaluated. Both axes are logarithmic;
/// candidates that were fine-tuned and measured have a ring.
pub(crate) fn candidates(episodes: &[EpisodeRecord], outcome: &Outcome) -> String {
    let searchers = by_searcher(episodes);
    let points = || searchers.iter().flat_map(|(_, of)| of.iter().filter_map(|of| point(of)));
    let (Some(x), Some(y)) = (span(points().map(|(x, _)| x), OUTLIERS), span(points().map(|(_, y)| y), 0.0)) else {
        return "<p class=\"note\">No candidate of this run has a distortion.</p>\n".into();
    };
    let details = &outcome.details;
    let limits = [details.kappa, details.loop_kappa].map(|kappa| kappa.max(LEAST_KAPPA).log10());
    let x = x.start.min(limits[0] - 0.1)..x.end.max(limits[1] + 0.1);

    svg("Predicted speed-up against distortion, one point a candidate", |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(48)
            .y_label_area_size(60)
            .build_cartesian_2d(Decades(x.clone()), Decades(y.clone()))?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.color())
            .axis_style(INK.color())
            .x_desc("distortion, nats (left is better)")
            .y_desc("predicted speed-up of attention")
            .axis_desc_style(label_style())
            .label_style(tick_style())
            .draw()?;
        for limit in limits {
            let line = [(limit, y.start), (limit, y.end)];
            chart.draw_series(DashedLineSeries::new(line, 5, 4, LIMIT.color().stroke_width(1)))?;
        }
        for (at, (_, of)) in searchers.iter().enumerate().rev() {
            let color = palette::searcher(at).color().filled();
            let inside = of.iter().filter_map(|of| point(of)).filter(|point| x.contains(&point.0));
            chart.draw_series(inside.map(|point| Circle::new(point, 3, color)))?;
        }
        for (at, (name, of)) in searchers.iter().enumerate().rev() {
            let color = palette::searcher(at).color();
            for point in of.iter().filter(|of| is_finalist(name, of, outcome)).filter_map(|of| point(of)) {
                chart.draw_series([
                    Circle::new(point, 8, PAPER.color().filled()),
                    Circle::new(point, 8, color.stroke_width(2)),
                    Circle::new(point, 4, color.filled()),
                ])?;
            }
        }
        Ok(())
    })
}

/// Whether a candidate became its searcher's row of the table.
fn is_finalist(searcher: &str, episode: &EpisodeRecord, outcome: &Outcome) -> bool {
    let name = if searcher == "search" { "searched" } else { searcher };
    let Some(evaluation) = episode.episode.checked_add(1) else { return false };
    outcome.table.iter().any(|row| row.name == name && row.found_at == Some(evaluation))
}

/// Logarithms of distortion and speed. A distortion of nothing counts as a ten-thousandth of a nat.
fn point(episode: &EpisodeRecord) -> Option<(f64, f64)> {
    Some((episode.distortion?.max(1e-4).log10(), episode.speed.max(1e-4).log10()))
}

/// From lowest to highest, with a margin, without the share `outliers` at either end.
fn span(values: impl Iterator<Item = f64>, outliers: f64) -> Option<Range<f64>> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let cut = (outliers * values.len() as f64) as usize;
    let (low, high) = (values.get(cut)?, values.get(values.len() - 1 - cut)?);
    let margin = 0.06 * (high - low).max(0.1);
    Some(low - margin..high + margin)
}
