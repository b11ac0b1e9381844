use comfy_table::{CellAlignment, LineStyle, Row, Table, TableStyle};
use maskwright_blueprint::{SecondMetric, TranslationQuality};

/// One line under the headings and nothing else.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A table without frames, as text without a line end. The first column is names, on the left; all others are figures,
/// on the right.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    drawn(headings, rows, CellAlignment::Right)
}

/// The same with as many columns as there are headings; every row has as many cells.
pub(crate) fn table_of_any_width(headings: Vec<String>, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    drawn(headings, rows, CellAlignment::Right)
}

/// The same with every column on the left.
pub(crate) fn text_table<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    drawn(headings, rows, CellAlignment::Left)
}

fn drawn<R: Into<Row>>(
    headings: impl Into<Row>,
    rows: impl IntoIterator<Item = R>,
    alignment: CellAlignment,
) -> String {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(headings);
    for row in rows {
        table.add_row(row);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        column.set_cell_alignment(if at == 0 { CellAlignment::Left } else { alignment });
    }
    table.trim_fmt()
}

/// A share in [0, 1] as a person reads it: `9.8 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A difference of shares in points of a hundred: `+0.4`, `-0.1`.
pub(crate) fn points(difference: f64) -> String {
    let rounded = format!("{:+.1}", 100.0 * difference);
    if rounded == "-0.0" { "+0.0".into() } else { rounded }
}

/// A distortion: `0.0126`.
pub(crate) fn nats(distortion: f64) -> String {
    let rounded = format!("{distortion:.4}");
    if rounded == "-0.0000" { "0.0000".into() } else { rounded }
}

/// A number of things, by what one and several are called: `1 seed`, `3 seeds`.
pub(crate) fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// What a task reports beside accuracy, as [`percent`].
pub(crate) fn second_percent(second: Option<&SecondMetric>) -> String {
    second.map_or_else(|| "–".into(), |second| percent(second.value))
}

/// BLEU and chrF, each in points: `31.2`.
pub(crate) fn translation_points(quality: Option<TranslationQuality>) -> [String; 2] {
    match quality {
        Some(TranslationQuality { bleu, chrf }) => [bleu, chrf].map(|points| format!("{points:.1}")),
        None => ["–", "–"].map(String::from),
    }
}

/// A ratio: `12.4x`.
pub(crate) fn times(ratio: f64) -> String {
    format!("{ratio:.2}x")
}

/// Running text in lines of at most `width` characters, where its words are not longer.
pub(crate) fn wrapped(text: &str, width: usize) -> String {
    let (mut lines, mut length) = (String::new(), 0);
    for word in text.split(' ') {
        let characters = word.chars().count();
        if length > 0 && length + 1 + characters > width {
            lines.push('\n');
            length = 0;
        } else if length > 0 {
            lines.push(' ');
            length += 1;
        }
        lines += word;
        length += characters;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_full_as_they_can_be() {
        assert_eq!(wrapped("one two three four", 9), "one two\nthree\nfour");
        assert_eq!(wrapped("incomparable is long", 7), "incomparable\nis long");
    }

    #[test]
    fn one_is_not_several() {
        assert_eq!([0, 1, 2].map(|n| counted(n, "seed", "seeds")), ["0 seeds", "1 seed", "2 seeds"]);
    }

    #[test]
    fn a_difference_that_rounds_to_nothing_has_no_minus() {
        assert_eq!([nats(-0.00001), nats(0.01256), nats(-0.012)], ["0.0000", "0.0126", "-0.0120"]);
        assert_eq!([points(-0.0001), points(0.004), points(-0.012)], ["+0.0", "+0.4", "-1.2"]);
    }
}
