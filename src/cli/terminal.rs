//! Properties of the terminal that standard output or standard error is connected to.

use std::io::{IsTerminal, stdout};
use std::sync::OnceLock;

use clap::ColorChoice;

/// Without a terminal, lines are not cut.
const UNLIMITED_WIDTH: usize = usize::MAX;

/// A terminal that reports fewer columns, such as a serial console that reports 0, does not know its width.
const WIDTH_MIN: usize = 20;

/// The width of standard output, in columns.
pub(super) fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(stdout()).map(|size| usize::from(size.ws_col));
    columns.ok().filter(|columns| *columns >= WIDTH_MIN).unwrap_or(UNLIMITED_WIDTH)
}

/// The number of lines of standard output; `None` if it is unknown.
pub(super) fn height() -> Option<usize> {
    let rows = rustix::termios::tcgetwinsize(stdout()).map(|size| usize::from(size.ws_row));
    rows.ok().filter(|rows| *rows > 0)
}

static COLOR: OnceLock<ColorChoice> = OnceLock::new();

/// Sets the value of `--color`. A second call has no effect.
pub(super) fn set_color(color: ColorChoice) {
    COLOR.get_or_init(|| color);
}

/// Whether text on `stream` has colours: by `--color`, otherwise on a terminal unless `NO_COLOR` is set.
pub(super) fn shows_colours(stream: &impl IsTerminal) -> bool {
    match COLOR.get() {
        Some(ColorChoice::Always) => true,
        Some(ColorChoice::Never) => false,
        Some(ColorChoice::Auto) | None => {
            understands_escapes(stream) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
    }
}

/// Whether `stream` is a terminal that understands escape sequences. One without a type does not.
pub(super) fn understands_escapes(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && has_type()
}

/// Whether `TERM` names a type of terminal other than `dumb`.
pub(super) fn has_type() -> bool {
    std::env::var_os("TERM").is_some_and(|kind| !kind.is_empty() && kind != "dumb")
}
