//! The page of a cross-validation.

use maskwright_search::{CrossValidation, CrossValidationRow, DensityAgainstTime, DropInterval, FEWEST_DENSITIES};
use plotters::prelude::*;

use crate::{
    report::{
        page::{CLOSING, escaped, opening, section},
        palette::{self, GRID, INK},
        plot::{label_style, svg, tick_style},
    },
    table::{counted, percent, points},
};

/// The whole page. The same study gives the same bytes.
pub(crate) fn page(study: &CrossValidation) -> String {
    let title = escaped(&format!("{} on {}", study.model, study.task));
    let mut html = opening("maskwright cross-validation", &title);
    html += &format!("<p class=\"headline\">{}</p>\n", escaped(&headline(study)));
    html += &section(
        "Accuracy, measured",
        &format!(
            "{} folds of {} training and validation examples, {}. Each dense model is trained on all parts but one, \
             and each treatment fine-tuned from it by the same recipe; drops are against the dense model of the same fold \
             and seed, with 95 % intervals from 10,000 paired bootstraps of the examples. The masks were searched with \
             some of these examples, so the {} test examples, which no search saw, are asked as well. The commonest class \
             alone gives {} of the held-out and {} of the test examples.",
            study.folds,
            study.examples,
            counted(study.seeds.len(), "seed", "seeds"),
            study.test_examples,
            percent(study.majority),
            percent(study.majority_test),
        ),
    );
    html += &rows(study);
    html += NAMES;
    html += &format!(
        "<div class=\"plots\">\n<figure>{}<figcaption>Accuracy on the part held out, one value a fold and seed: median, \
         quartiles, and whiskers 1.5 times their distance beyond them. Identity is in the table only.</figcaption></figure>\n<figure>{}\
         <figcaption>{}</figcaption></figure>\n</div>\n",
        boxes(study),
        against_time(&study.density),
        escaped(&line(&study.density)),
    );
    html + CLOSING
}

const NAMES: &str = "<p class=\"note below\">dense-tuned: every block, fine-tuned like the others. masked: the blueprint. \
                     shuffled: as many blocks of each row, elsewhere by chance. identity: no attention at all, each token \
                     keeps its own value; a model that answers from its first token then sees nothing.</p>\n";

fn headline(study: &CrossValidation) -> String {
    let drop = study.rows.iter().find(|row| row.treatment == "masked").and_then(|row| row.drop);
    match drop {
        Some(drop) => format!(
            "Under the masks, accuracy {} by {:.1} points on held-out examples (drop, 95 %: {} to {}).",
            if drop.drop < 0.0 { "rises" } else { "falls" },
            100.0 * drop.drop.abs(),
            points(drop.low),
            points(drop.high)
        ),
        None => String::new(),
    }
}

fn rows(study: &CrossValidation) -> String {
    let mut html = "<div class=\"scroll\"><table>\n<thead><tr><th></th><th>held out<small>mean ± standard \
                    deviation</small></th><th>drop, points<small>95 %</small></th><th>McNemar<small>p, exact, by \
                    seed</small></th><th>test<small>mean</small></th><th>drop on test, points<small>95 \
                    %</small></th></tr></thead>\n<tbody>\n"
        .to_owned();
    for row in &study.rows {
        let class = if row.treatment == "masked" { " class=\"ours\"" } else { "" };
        let tests: Vec<String> = row.mcnemar.iter().map(|p| format!("{p:.3}")).collect();
        let spread = row.deviation.map_or(String::new(), |deviation| format!(" ± {:.1}", 100.0 * deviation));
        let cells = [
            format!("{}{spread}", percent(row.mean)),
            interval(row.drop),
            if tests.is_empty() { "–".into() } else { tests.join(", ") },
            percent(row.test),
            interval(row.test_drop),
        ];
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        html += &format!("<tr{class}><th>{}</th>{cells}</tr>\n", escaped(&row.treatment));
    }
    html + "</tbody>\n</table></div>\n"
}

fn interval(of: Option<DropInterval>) -> String {
    of.map_or("–".into(), |of| format!("{} ({} to {})", points(of.drop), points(of.low), points(of.high)))
}

/// One box for each treatment.
fn boxes(study: &CrossValidation) -> String {
    let rows: Vec<&CrossValidationRow> = study.rows.iter().filter(|row| row.treatment != "identity").collect();
    let quartiles =
        |row: &CrossValidationRow| Quartiles::new(&row.held_out.iter().map(|share| 100.0 * share).collect::<Vec<_>>());
    let reach = || rows.iter().flat_map(|row| quartiles(row).values());
    let (low, high) = (reach().fold(f32::INFINITY, f32::min), reach().fold(f32::NEG_INFINITY, f32::max));
    let margin = 0.08 * (high - low).max(1.0);
    let names: Vec<&str> = rows.iter().map(|row| row.treatment.as_str()).collect();
    svg("Accuracy on the part held out, one box a treatment", |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(48)
            .y_label_area_size(76)
            .build_cartesian_2d(names[..].into_segmented(), low - margin..high + margin)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.color())
            .axis_style(INK.color())
            .x_label_formatter(&|name| match name {
                SegmentValue::Exact(name) | SegmentValue::CenterOf(name) => (*name).to_string(),
                SegmentValue::Last => String::new(),
            })
            .y_label_formatter(&|y| format!("{y:.1} %"))
            .y_desc("accuracy, held out")
            .axis_desc_style(label_style())
            .label_style(tick_style())
            .draw()?;
        let drawn = rows.iter().zip(&names).map(|(row, name)| {
            let color = if row.treatment == "masked" { palette::searcher(0) } else { palette::searcher(2) };
            Boxplot::new_vertical(SegmentValue::CenterOf(name), &quartiles(row)).width(34).style(color.color())
        });
        chart.draw_series(drawn)?;
        Ok(())
    })
}

/// Predicted time of attention against density, and the line through it.
fn against_time(of: &DensityAgainstTime) -> String {
    let most = of.points.iter().map(|(_, seconds)| 1e6 * seconds).fold(1e-9, f64::max);
    svg("Predicted time of attention against density, with the line of least squares", |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(48)
            .y_label_area_size(76)
            .build_cartesian_2d(0.0..1.04, 0.0..1.08 * most)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.color())
            .axis_style(INK.color())
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|x| format!("{:.0} %", 100.0 * x))
            .x_desc("density")
            .y_desc("predicted time of attention, us")
            .axis_desc_style(label_style())
            .label_style(tick_style())
            .draw()?;
        if let Some(line) = of.line {
            let at = |x: f64| (x, 1e6 * (line.intercept + line.slope * x));
            // Below zero there is no plot: the line begins where it enters it.
            let from =
                if line.intercept < 0.0 && line.slope > 0.0 { (-line.intercept / line.slope).min(1.0) } else { 0.0 };
            chart.draw_series(LineSeries::new([at(from), at(1.0)], INK.color().stroke_width(1)))?;
        }
        let color = palette::searcher(0).color().filled();
        chart.draw_series(of.points.iter().map(|&(x, y)| Circle::new((x, 1e6 * y), 4, color)))?;
        Ok(())
    })
}

fn line(of: &DensityAgainstTime) -> String {
    let which = format!(
        "Predicted time of attention on {} against density: dense attention, and the blueprints of this model that lie in \
         this one's folder; {}, {}. Masks that lie there twice count once.",
        of.device,
        counted(of.points.len(), "set of masks", "sets of masks"),
        counted(of.densities, "density", "densities"),
    );
    let Some(line) = of.line else { return which };
    let fit = match line.r_squared {
        Some(r_squared) => format!("R² = {r_squared:.3}."),
        None => format!(
            "No R²: with fewer than {FEWEST_DENSITIES} densities nearly every line fits, so it would say nothing."
        ),
    };
    format!(
        "{which} Line of least squares: {:.1} us + {:.1} us x density. {fit}",
        1e6 * line.intercept,
        1e6 * line.slope,
    )
}
