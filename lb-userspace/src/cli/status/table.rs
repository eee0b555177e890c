//! Cells in columns.

/// How a cell looks on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Style {
    #[default]
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
    Unsure,
}

impl Style {
    /// `text` in this style where `colour` is wanted (ECMA-48, select graphic rendition).
    pub(super) fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Bold => 1,
            Self::Dim => 2,
            Self::Good => 32,
            Self::Bad => 31,
            Self::Unsure => 33,
        };
        if colour && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// On which side of a cell its column's space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Rows of styled cells.
#[derive(Debug)]
pub(super) struct Table {
    sides: Vec<Side>,
    rows: Vec<Vec<(String, Style)>>,
}

impl Table {
    /// A table whose columns have these names and stand on these sides.
    pub(super) fn new(columns: &[(&str, Side)]) -> Self {
        let heads = columns
            .iter()
            .map(|(name, _)| ((*name).to_owned(), Style::Dim))
            .collect();
        Self {
            sides: columns.iter().map(|(_, side)| *side).collect(),
            rows: vec![heads],
        }
    }

    pub(super) fn row(&mut self, cells: Vec<(String, Style)>) {
        self.rows.push(cells);
    }

    /// The lines, two spaces between columns and none at the end.
    pub(super) fn render(&self, colour: bool) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|(text, _)| text.chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.sides.len()).map(width).collect();
        let mut lines = String::new();
        for row in &self.rows {
            let last = row
                .iter()
                .rposition(|(text, _)| !text.is_empty())
                .map_or(0, |last| last + 1);
            let mut line = String::new();
            for (column, (text, style)) in row.iter().enumerate().take(last) {
                if column > 0 {
                    line.push_str("  ");
                }
                let space = " ".repeat(widths[column] - text.chars().count());
                let painted = style.paint(text, colour);
                match self.sides[column] {
                    Side::Right => line.extend([space, painted]),
                    Side::Left if column + 1 == last => line.push_str(&painted),
                    Side::Left => line.extend([painted, space]),
                }
            }
            lines.push_str(&line);
            lines.push('\n');
        }
        lines
    }
}
