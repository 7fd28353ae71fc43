//! Draws the status on the alternate screen, within its height: the header and the jobs that need attention stay, the others follow in turn.

use std::io::stdout;

use console::measure_text_width;

use super::super::exit::Failure;
use super::super::terminal;
use super::view::View;
use crate::core::sanitize::Sanitized;

/// Enters and leaves the alternate screen (xterm).
pub(super) const ENTER: &str = "\x1b[?1049h";
pub(super) const LEAVE: &str = "\x1b[?1049l";

/// Cursor home, then erase to the end of the screen (ECMA-48 CUP, ED).
const REDRAW: &str = "\x1b[H\x1b[J";

/// Drawings until the next part of the jobs is shown: a part can be read for 6 s.
const DRAWINGS_OF_PART: usize = 3;

/// `drawings` is the number of drawings before.
pub(super) fn draw(view: &View, drawings: usize) -> String {
    let part = drawings / DRAWINGS_OF_PART;
    let (width, height) = (terminal::width(), terminal::height().unwrap_or(usize::MAX));
    let lines = view.lines(width, terminal::shows_colours(&stdout()));
    // The last line stays empty, because a line end there would scroll.
    let space = height.saturating_sub(screen_lines(&view.head(), width) + 2);
    let (shown, note) = select(&lines.rows, view.need_attention(), space, part);
    let header = if view.watches.is_empty() { String::new() } else { lines.header + "\n" };
    let rows: String = shown.iter().flat_map(|row| row.iter()).flat_map(|line| [&**line, "\n"]).collect();
    format!("{REDRAW}{}{header}{rows}{note}", view.head())
}

pub(super) fn error(failure: &Failure) -> String {
    format!("{REDRAW}{}\n", Sanitized(&failure.message))
}

/// The rows that fit into `space` lines, and a note if others exist. Each `part` shows other rows.
fn select(
    rows: &[Vec<String>],
    need_attention: impl Iterator<Item = bool>,
    space: usize,
    part: usize,
) -> (Vec<&Vec<String>>, String) {
    let count = |rows: &[&Vec<String>]| rows.iter().map(|row| row.len()).sum::<usize>();
    let all: Vec<&Vec<String>> = rows.iter().collect();
    if count(&all) <= space {
        return (all, String::new());
    }
    // One line is for the note. At least half of the screen is for the rows that take turns.
    let space = space.saturating_sub(1);
    let (mut pinned, mut others) = (Vec::new(), Vec::new());
    for (row, needs_attention) in all.into_iter().zip(need_attention) {
        let fits = count(&pinned) + row.len() <= space / 2;
        if needs_attention && fits { pinned.push(row) } else { others.push(row) }
    }
    let space = space - count(&pinned);
    let mut parts: Vec<Vec<&Vec<String>>> = vec![vec![]];
    for row in others {
        match parts.last_mut() {
            Some(part) if part.is_empty() || count(part) + row.len() <= space => part.push(row),
            Some(_) | None => parts.push(vec![row]),
        }
    }
    let (part, part_count) = (part % parts.len(), parts.len());
    let note = format!("part {} of {part_count}; the others follow", part + 1);
    pinned.extend(parts.swap_remove(part));
    (pinned, note)
}

/// The number of lines that a text takes on a screen, which wraps long lines.
fn screen_lines(text: &str, width: usize) -> usize {
    text.lines().map(|line| measure_text_width(line).div_ceil(width).max(1)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_need_attention_stay_and_the_others_take_turns() {
        let rows: Vec<Vec<String>> = (0..20).map(|number| vec![number.to_string()]).collect();
        let shown = |space, part| {
            let (rows, note) = select(&rows, (0..20).map(|number| number < 2), space, part);
            (rows.into_iter().flatten().cloned().collect::<Vec<_>>().join(" "), note)
        };
        assert_eq!(shown(20, 0).1, "");
        assert_eq!(shown(9, 0), ("0 1 2 3 4 5 6 7".to_owned(), "part 1 of 3; the others follow".to_owned()));
        assert_eq!(shown(9, 2), ("0 1 14 15 16 17 18 19".to_owned(), "part 3 of 3; the others follow".to_owned()));
        assert_eq!(shown(9, 3), shown(9, 0));
        for space in 0..20 {
            let all: Vec<String> = (0..20).map(|part| shown(space, part).0).collect();
            assert!((0..20).all(|row| all.iter().any(|part| part.split(' ').any(|shown| shown == row.to_string()))));
            assert!(all.iter().all(|part| part.split(' ').count() < space.max(2)), "{space} {all:?}");
        }
    }
}
