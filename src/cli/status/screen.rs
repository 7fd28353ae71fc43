//! Draws the status on the alternate screen, within its height. Errors and the summary take at most half of it. The header and the
//! jobs that need attention stay, and the other jobs scroll.

use std::io::stdout;

use super::super::exit::Failure;
use super::super::terminal::{self, Key};
use super::view::View;
use crate::core::sanitize::Sanitized;

/// Enters and leaves the alternate screen (xterm).
pub(super) const ENTER: &str = "\x1b[?1049h";
pub(super) const LEAVE: &str = "\x1b[?1049l";

/// Cursor home, then erase to the end of the screen (ECMA-48 CUP, ED).
const REDRAW: &str = "\x1b[H\x1b[J";

/// The position in the jobs that scroll.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scroll {
    /// The number of jobs above the screen.
    first: usize,
    /// The number of jobs that were drawn.
    page: usize,
}

impl Scroll {
    /// The next drawing limits the position to the jobs that exist.
    pub(super) fn press(&mut self, key: Key) {
        self.first = match key {
            Key::Up => self.first.saturating_sub(1),
            Key::Down => self.first + 1,
            Key::PageUp => self.first.saturating_sub(self.page),
            Key::PageDown => self.first + self.page,
            Key::Quit => self.first,
        };
    }
}

pub(super) fn draw(view: &View, scroll: &mut Scroll) -> String {
    let (width, height) = (terminal::width(), terminal::height().unwrap_or(usize::MAX));
    let lines = view.lines(width, terminal::shows_colours(&stdout()));
    let head = cut_errors(&view.head(width), height / 2);
    // The last line stays empty, because a line end there would scroll.
    let space = height.saturating_sub(head.lines().count() + 2);
    let (shown, note) = select(&lines.rows, view.need_attention(), space, scroll);
    let header = if view.watches.is_empty() { String::new() } else { lines.header + "\n" };
    let rows: String = shown.iter().flat_map(|row| row.iter()).flat_map(|line| [&**line, "\n"]).collect();
    format!("{REDRAW}{head}{header}{rows}{note}")
}

/// Leaves out errors if the text has more than `lines_max` lines. The last line is the summary, which stays.
fn cut_errors(head: &str, lines_max: usize) -> String {
    let mut lines: Vec<&str> = head.lines().collect();
    if lines.len() > lines_max {
        lines.splice(lines_max.saturating_sub(2)..lines.len() - 1, ["… more errors: refwatch status"]);
    }
    lines.join("\n") + "\n"
}

pub(super) fn error(failure: &Failure) -> String {
    format!("{REDRAW}{}\n", Sanitized(&failure.message))
}

/// The rows that fit into `space` lines, and a note if others exist.
fn select<'a>(
    rows: &'a [Vec<String>],
    need_attention: impl Iterator<Item = bool>,
    space: usize,
    scroll: &mut Scroll,
) -> (Vec<&'a Vec<String>>, String) {
    let count = |rows: &[&Vec<String>]| rows.iter().map(|row| row.len()).sum::<usize>();
    let all: Vec<&Vec<String>> = rows.iter().collect();
    if count(&all) <= space {
        return (all, String::new());
    }
    // One line is for the note. At least half of the screen is for the rows that scroll.
    let space = space.saturating_sub(1);
    let (mut shown, mut others) = (Vec::new(), Vec::new());
    for (row, needs_attention) in all.into_iter().zip(need_attention) {
        let fits = count(&shown) + row.len() <= space / 2;
        if needs_attention && fits { shown.push(row) } else { others.push(row) }
    }
    let space = space - count(&shown);
    let last_page = (0..others.len()).find(|first| count(&others[*first..]) <= space);
    scroll.first = scroll.first.min(last_page.unwrap_or(others.len().saturating_sub(1)));
    let fitting = (scroll.first..=others.len()).take_while(|end| count(&others[scroll.first..*end]) <= space);
    // A row that is higher than the screen is still shown.
    let end = fitting.last().unwrap_or(0).max(scroll.first + 1);
    scroll.page = end - scroll.first;
    shown.extend(&others[scroll.first..end]);
    let note = format!("{} jobs above, {} below: arrow keys scroll, q quits", scroll.first, others.len() - end);
    (shown, note)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_that_need_attention_stay_and_the_others_scroll() {
        let rows: Vec<Vec<String>> = (0..20).map(|number| vec![number.to_string()]).collect();
        let shown = |space, scroll: &mut Scroll| {
            let (rows, note) = select(&rows, (0..20).map(|number| number < 2), space, scroll);
            (rows.into_iter().flatten().cloned().collect::<Vec<_>>().join(" "), note)
        };
        let mut scroll = Scroll::default();
        assert_eq!(shown(20, &mut scroll).1, "");
        let note =
            |above: usize, below: usize| format!("{above} jobs above, {below} below: arrow keys scroll, q quits");
        for (keys, rows, above, below) in [
            (vec![], "0 1 2 3 4 5 6 7", 0, 12),
            (vec![Key::Up, Key::Down], "0 1 3 4 5 6 7 8", 1, 11),
            (vec![Key::PageDown], "0 1 9 10 11 12 13 14", 7, 5),
            (vec![Key::PageDown, Key::PageDown], "0 1 14 15 16 17 18 19", 12, 0),
            (vec![Key::Up], "0 1 13 14 15 16 17 18", 11, 1),
            (vec![Key::PageUp], "0 1 7 8 9 10 11 12", 5, 7),
        ] {
            for key in keys {
                scroll.press(key);
            }
            assert_eq!(shown(9, &mut scroll), (rows.to_owned(), note(above, below)));
        }
    }

    #[test]
    fn many_errors_leave_half_of_the_screen_for_jobs() {
        let head: String = (1..=30).map(|store| format!("store {store}\n")).chain(["3 jobs\n".to_owned()]).collect();
        assert_eq!(cut_errors(&head, 31), head);
        assert_eq!(cut_errors(&head, 4), "store 1\nstore 2\n… more errors: refwatch status\n3 jobs\n");
        assert_eq!(cut_errors("3 jobs\n", 1), "3 jobs\n");
    }

    #[test]
    fn every_row_can_be_reached_on_any_screen() {
        let rows: Vec<Vec<String>> = (0..20).map(|number| vec![number.to_string(); number % 4 + 1]).collect();
        for space in 0..60 {
            let mut scroll = Scroll::default();
            let mut reached = BTreeSet::new();
            for _ in &rows {
                let (shown, _) = select(&rows, (0..20).map(|number| number < 2), space, &mut scroll);
                let height: usize = shown.iter().map(|row| row.len()).sum();
                assert!(height <= space || space < 10, "{space}");
                reached.extend(shown.into_iter().flatten());
                scroll.press(Key::PageDown);
            }
            assert_eq!(reached.len(), rows.len(), "{space}");
        }
    }
}
