use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};

/// One line under the headings and nothing else.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A table without frames. The first column is names, on the left; all others are figures, on the right.
pub fn table<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Table {
    let mut table = framed(headings);
    for row in rows {
        table.add_row(row.map(Cell::new));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A table in which every column is text, on the left.
pub fn text_table<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Table {
    let mut table = framed(headings);
    for row in rows {
        table.add_row(row.map(Cell::new));
    }
    table
}

fn framed<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(headings);
    table
}

/// A share in [0, 1] as a person reads it: `9.8 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A difference of shares in points of a hundred: `+0.4`, `-0.1`.
pub fn points(difference: f64) -> String {
    let rounded = format!("{:+.1}", 100.0 * difference);
    if rounded == "-0.0" { "+0.0".into() } else { rounded }
}

/// A ratio: `12.4x`.
pub fn times(ratio: f64) -> String {
    format!("{ratio:.2}x")
}
