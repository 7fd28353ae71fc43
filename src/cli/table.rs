//! Formats tables for a terminal: one line per row, and an optional note under it.

use std::iter;

use comfy_table::{ContentArrangement, Table, presets};

use crate::core::sanitize::excerpt;

const NOTE_INDENT: &str = "   ";

/// Notes are cut to `width`. Rows are never cut, because half a name or half a status is useless. The caller sanitizes both.
pub(super) fn lines<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = ([String; N], Option<String>)>,
    width: usize,
) -> String {
    let (rows, notes): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    // The header has no note.
    for (line, note) in table.lines().zip(iter::once(None).chain(notes)) {
        text.extend([line.trim_end(), "\n"]);
        if let Some(note) = note {
            // One column is for the ellipsis.
            let length_max = width.saturating_sub(NOTE_INDENT.len() + 1);
            text.extend([NOTE_INDENT, &excerpt(&note, length_max), "\n"]);
        }
    }
    text
}
