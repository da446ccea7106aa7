use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};

/// Columns of a table where there is no terminal to measure.
const COLUMNS: u16 = 180;

/// An empty table as all of them look: no lines but one below the header, at most as wide as the terminal.
#[must_use]
pub fn table(columns: Option<usize>) -> Table {
    let style = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    let mut table = Table::new();
    table.load_style(style).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(columns.and_then(|columns| u16::try_from(columns).ok()).unwrap_or(COLUMNS));
    table
}
