//! How the commands lay out rows on a terminal: a line each, and where there is one a remark under it.

use std::io::stdout;
use std::iter;

use comfy_table::{ContentArrangement, Table, presets};

use crate::core::sanitize::excerpt;

/// Before a remark.
const REMARK_INDENT: &str = "   ";

/// A width for what is no terminal, where lines are better long than cut.
const WIDTH_ELSEWHERE: usize = usize::MAX;

/// Columns of the terminal.
pub(super) fn width() -> usize {
    rustix::termios::tcgetwinsize(stdout()).map_or(WIDTH_ELSEWHERE, |size| usize::from(size.ws_col))
}

/// A line for each row under a header. Rows stay whole however narrow the terminal is, since half a name or half a status is
/// none; remarks are cut to its `width`. Both are safe to show.
pub(super) fn lines<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = ([String; N], Option<String>)>,
    width: usize,
) -> String {
    let (rows, remarks): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut shown = String::new();
    // The header has no remark.
    for (line, remark) in table.lines().zip(iter::once(None).chain(remarks)) {
        shown.extend([line.trim_end(), "\n"]);
        if let Some(remark) = remark {
            let room = width.saturating_sub(REMARK_INDENT.len() + 1);
            shown.extend([REMARK_INDENT, &excerpt(&remark, room), "\n"]);
        }
    }
    shown
}
