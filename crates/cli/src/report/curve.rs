use maskwright_search::EpisodeRecord;
use plotters::prelude::*;

use crate::report::{
    palette::{self, GRID, INK},
    plot::{by_searcher, label_style, svg, tick_style},
};

/// Evaluations at the beginning that do not decide how far down the plot reaches: first tries may be worthless.
const WARM_UP: usize = 3;

/// Best reward so far against evaluations, one line a searcher.
pub(crate) fn reward_curve(episodes: &[EpisodeRecord]) -> String {
    let curves: Vec<Vec<(f64, f64)>> = by_searcher(episodes).into_iter().map(|(_, of)| curve(&of)).collect();
    let evaluations = curves.iter().filter_map(|points| points.last()).map(|(x, _)| *x).fold(1.0, f64::max);
    let late = |points: &Vec<(f64, f64)>| points.get(2 * WARM_UP).or(points.last()).map(|(_, y)| *y);
    let low = curves.iter().filter_map(late).fold(f64::INFINITY, f64::min);
    let high = curves.iter().filter_map(|points| points.last()).map(|(_, y)| *y).fold(f64::NEG_INFINITY, f64::max);
    if !(low.is_finite() && high.is_finite()) {
        return "<p class=\"note\">No evaluation of this run has a reward.</p>\n".into();
    }
    let margin = 0.08 * (high - low).max(0.1);

    svg("Best reward so far against evaluations, one line a searcher", |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(48)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..evaluations, low - margin..high + margin)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.color())
            .axis_style(INK.color())
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.1}"))
            .x_desc("evaluations")
            .y_desc("best reward so far")
            .axis_desc_style(label_style())
            .label_style(tick_style())
            .draw()?;
        // The search is drawn last, over the others.
        for (at, points) in curves.iter().enumerate().rev() {
            let width = if at == 0 { 3 } else { 2 };
            let inside = points.iter().map(|&(x, y)| (x, y.max(low - margin)));
            chart.draw_series(LineSeries::new(inside, palette::searcher(at).color().stroke_width(width)))?;
        }
        Ok(())
    })
}

/// Steps: the best reward stays until a better one is found.
fn curve(episodes: &[&EpisodeRecord]) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (at, best) in episodes.iter().enumerate().filter_map(|(at, of)| Some((at, of.best_reward?))) {
        let x = (at + 1) as f64;
        if let Some(&(_, before)) = points.last() {
            points.push((x, before));
        }
        points.push((x, best));
    }
    points
}
