//! Formats tables for a terminal: one line per row, and an optional note under it.
//!
//! A table that is wider than the terminal loses columns, never a part of an id or a status. The caller sanitizes all text.

use std::iter;

use console::{Alignment, Style, measure_text_width, pad_str, truncate_str};

const NOTE_INDENT: &str = "   ";
const GAP: &str = "  ";
const ELLIPSIS: &str = "…";

/// A name is cut to this width before a column is dropped. It still differs from most others.
const CUT_MIN: usize = 12;

pub(super) struct Layout<'a, const N: usize> {
    pub(super) header: [&'a str; N],
    /// The column that is cut first.
    pub(super) cut: Option<usize>,
    /// The columns that are then dropped, in this order.
    pub(super) dropped: &'static [usize],
    /// The column of ids, which is last put on a line of its own.
    pub(super) below: usize,
    /// The column of statuses, which have colours.
    pub(super) status: usize,
}

pub(super) struct Row<const N: usize> {
    pub(super) cells: [String; N],
    pub(super) note: Option<String>,
}

/// The lines of a table. Each row has one or more lines.
pub(super) struct Lines {
    pub(super) header: String,
    pub(super) rows: Vec<Vec<String>>,
}

impl Lines {
    /// Empty if there are no rows.
    pub(super) fn text(&self) -> String {
        if self.rows.is_empty() { String::new() } else { format!("{}\n{}", self.header, self.body()) }
    }

    /// Without the header.
    pub(super) fn body(&self) -> String {
        self.rows.iter().flatten().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

/// Notes and, if necessary, names are cut to `width`.
pub(super) fn lines<const N: usize>(layout: &Layout<'_, N>, rows: &[Row<N>], width: usize, colours: bool) -> Lines {
    let natural = natural_widths(layout, rows);
    let fitted = fit(layout, natural, width);
    let is_below = !fitted.iter().any(|(column, _)| *column == layout.below);
    let line = |cells: [&str; N], colours: bool| {
        let cell = |(column, width): &(usize, usize)| {
            let is_coloured = colours && *column == layout.status;
            let text = if is_coloured { coloured(cells[*column]) } else { cells[*column].to_owned() };
            pad_str(&text, *width, Alignment::Left, Some(ELLIPSIS)).into_owned()
        };
        let cells: Vec<String> = fitted.iter().map(cell).collect();
        cells.join(GAP).trim_end().to_owned()
    };
    let note_width = width.saturating_sub(NOTE_INDENT.len());
    let row = |row: &Row<N>| {
        let mut lines = vec![line(row.cells.each_ref().map(String::as_str), colours)];
        if is_below {
            lines.extend(id_lines(&row.cells[layout.below], note_width));
        }
        lines
            .extend(row.note.as_ref().map(|note| format!("{NOTE_INDENT}{}", truncate_str(note, note_width, ELLIPSIS))));
        lines
    };
    Lines { header: line(layout.header, false), rows: rows.iter().map(row).collect() }
}

fn natural_widths<const N: usize>(layout: &Layout<'_, N>, rows: &[Row<N>]) -> [usize; N] {
    let mut widths = layout.header.map(measure_text_width);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = measure_text_width(cell).max(*width);
        }
    }
    widths
}

/// The shown columns and their widths.
fn fit<const N: usize>(layout: &Layout<'_, N>, natural: [usize; N], width: usize) -> Vec<(usize, usize)> {
    let mut columns: Vec<(usize, usize)> = natural.into_iter().enumerate().collect();
    let total = |columns: &[(usize, usize)]| {
        columns.iter().map(|(_, width)| width + GAP.len()).fold(0, usize::saturating_add).saturating_sub(GAP.len())
    };
    let removed = iter::once(None).chain(layout.dropped.iter().chain([&layout.below]).map(Some));
    for dropped in removed {
        columns.retain(|(column, _)| Some(column) != dropped);
        let excess = total(&columns).saturating_sub(width);
        let mut fitted = columns.clone();
        for (_, width) in fitted.iter_mut().filter(|(column, _)| layout.cut == Some(*column)) {
            *width = (*width).min(width.saturating_sub(excess).max(CUT_MIN));
        }
        if total(&fitted) <= width {
            return fitted;
        }
    }
    // The terminal wraps the rest.
    columns
}

/// A job on lines of its own, which are broken only between ids.
fn id_lines(job: &str, width: usize) -> Vec<String> {
    let mut lines = vec![NOTE_INDENT.to_owned()];
    for part in job.split_inclusive('/') {
        match lines.last_mut() {
            Some(line)
                if measure_text_width(line) + measure_text_width(part) <= width + NOTE_INDENT.len()
                    || *line == NOTE_INDENT =>
            {
                line.push_str(part);
            }
            Some(_) | None => lines.push(format!("{NOTE_INDENT}{part}")),
        }
    }
    lines
}

/// Colours a status. A remark may follow it.
fn coloured(status: &str) -> String {
    let style = match status.split(' ').next() {
        Some("FAILED") => Style::new().red(),
        Some("COMPLETED_WITH_FAILURES") => Style::new().yellow(),
        Some("COMPLETED") => Style::new().green(),
        Some(_) | None => Style::new(),
    };
    style.force_styling(true).apply_to(status).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout<4> =
        Layout { header: ["NAME", "JOB", "STATUS", "FOR"], cut: Some(0), dropped: &[3], below: 1, status: 2 };
    const LONGEST: &str =
        "read_set_activation/123456789012345678901234567890123456/123456789012345678901234567890123456";

    fn shown(name: &str, job: &str, width: usize) -> String {
        let cells = [name, job, "COMPLETED_WITH_FAILURES", "2h 5m"].map(str::to_owned);
        lines(&LAYOUT, &[Row { cells, note: Some("a note".repeat(40)) }], width, false).text()
    }

    #[test]
    fn names_are_cut_and_columns_dropped_until_the_table_fits_and_no_id_is_split() {
        for (name, job) in [
            ("GRCh38", "1234567890/9876543210"),
            (&*"n".repeat(128), "read_set_import/1234567890/9876543210"),
            (&*"参".repeat(128), "1234567890/9876543210"),
            ("shared references", LONGEST),
        ] {
            for width in [40, 80, 100, 120, 140] {
                let text = shown(name, job, width);
                assert!(text.lines().all(|line| measure_text_width(line) <= width), "{width}\n{text}");
                for part in job.split('/').chain(["COMPLETED_WITH_FAILURES"]) {
                    assert!(text.contains(part), "{width} {part}\n{text}");
                }
            }
            assert!(shown(name, job, usize::MAX).contains(&format!("{name}  {job}  ")));
        }
        let expected = "NAME               JOB                    STATUS\n\
                        nnnnnnnnnnnnnnnn…  1234567890/9876543210  COMPLETED_WITH_FAILURES\n";
        assert!(shown(&"n".repeat(128), "1234567890/9876543210", 65).starts_with(expected));
    }

    #[test]
    fn only_statuses_have_colours() {
        let row = |status: &str| Row { cells: ["FAILED", "1", status, ""].map(str::to_owned), note: None };
        let rows = [row("FAILED (end_changed)"), row("IN_PROGRESS")];
        let text = lines(&LAYOUT, &rows, usize::MAX, true).text();
        assert_eq!(text.matches('\x1b').count(), 2, "{text}");
        assert!(text.contains("\x1b[31mFAILED (end_changed)\x1b[0m"), "{text}");
    }
}
