//! Aligned tables for people: upper-case headings, two spaces between columns, numbers to the right, no trailing spaces.

/// Rows under headings, or `KEY  VALUE` pairs without headings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(|cell| printable(cell.into())).collect());
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0).max(self.headings.len());
        let mut widths = vec![0; columns];
        let mut numeric = vec![true; columns];
        let mut digits = vec![false; columns];
        for (column, heading) in self.headings.iter().enumerate() {
            grow(&mut widths, column, heading);
        }
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                grow(&mut widths, column, cell);
                if let Some(numeric) = numeric.get_mut(column) {
                    *numeric &= is_number(cell);
                }
                if let Some(digits) = digits.get_mut(column) {
                    *digits |= cell.bytes().any(|b| b.is_ascii_digit());
                }
            }
        }
        for (column, (numeric, digits)) in numeric.iter_mut().zip(digits).enumerate() {
            // Values of many kinds read better when they start in one column.
            *numeric &= digits && self.headings.get(column).is_some_and(|heading| *heading != "VALUE");
        }
        let mut text = String::new();
        if !self.headings.is_empty() {
            line(&mut text, self.headings.iter().copied(), &widths, &numeric);
        }
        for row in &self.rows {
            line(&mut text, row.iter().map(String::as_str), &widths, &numeric);
        }
        text
    }
}

fn grow(widths: &mut [usize], column: usize, cell: &str) {
    if let Some(width) = widths.get_mut(column) {
        *width = (*width).max(cell.chars().count());
    }
}

fn is_number(cell: &str) -> bool {
    cell == "-" || (!cell.is_empty() && cell.strip_prefix('-').unwrap_or(cell).bytes().all(|b| b.is_ascii_digit()))
}

/// Control characters must not reach a terminal.
fn printable(cell: String) -> String {
    if cell.chars().any(char::is_control) { cell.escape_debug().to_string() } else { cell }
}

fn line<'a>(text: &mut String, cells: impl Iterator<Item = &'a str>, widths: &[usize], numeric: &[bool]) {
    let mut out = String::new();
    for ((cell, width), numeric) in cells.zip(widths).zip(numeric) {
        if !out.is_empty() {
            out.push_str("  ");
        }
        let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
        if *numeric {
            out.push_str(&padding);
            out.push_str(cell);
        } else {
            out.push_str(cell);
            out.push_str(&padding);
        }
    }
    text.push_str(out.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let mut table = Table::new(&["NAME", "PARTITIONS", "NOTE"]);
        table.row(["a", "1", "ü"]);
        table.row(["long-name", "12", ""]);
        table.row(["x\n", "-", "z"]);
        let expected = "NAME       PARTITIONS  NOTE\n\
                        a                   1  ü\n\
                        long-name          12\n\
                        x\\n                 -  z\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn pairs_have_no_heading() {
        let mut table = Table::new(&[]);
        table.row(["cluster", "x"]);
        table.row(["id", "1"]);
        assert_eq!(table.render(), "cluster  x\nid       1\n");
    }
}
