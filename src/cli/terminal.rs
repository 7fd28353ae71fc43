//! The terminal: the properties of the streams that are connected to it, and its keys.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, stdout};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::OnceLock;

use clap::ColorChoice;
use console::measure_text_width;
use rustix::fs::OFlags;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

/// Without a terminal, lines are not cut.
const UNLIMITED_WIDTH: usize = usize::MAX;

/// A terminal that reports fewer columns, such as a serial console that reports 0, does not know its width.
const WIDTH_MIN: usize = 20;

/// The width of standard output, in columns.
pub(super) fn width() -> usize {
    let columns = tcgetwinsize(stdout()).map(|size| usize::from(size.ws_col));
    columns.ok().filter(|columns| *columns >= WIDTH_MIN).unwrap_or(UNLIMITED_WIDTH)
}

/// The number of lines of standard output; `None` if it is unknown.
pub(super) fn height() -> Option<usize> {
    let rows = tcgetwinsize(stdout()).map(|size| usize::from(size.ws_row));
    rows.ok().filter(|rows| *rows > 0)
}

/// Breaks long lines between words. A word that is wider than `width` is not broken.
pub(super) fn wrap(text: &str, width: usize) -> String {
    let mut wrapped = String::new();
    for line in text.lines() {
        let mut column = 0;
        for word in line.split(' ') {
            let word_width = measure_text_width(word);
            if column > 0 {
                let fits = column + 1 + word_width <= width;
                wrapped.push(if fits { ' ' } else { '\n' });
                column = if fits { column + 1 } else { 0 };
            }
            wrapped.push_str(word);
            column += word_width;
        }
        wrapped.push('\n');
    }
    wrapped
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Quit,
}

/// The keys of less(1), and the sequences that terminals send for the arrow and page keys.
const KEYS: [(&[u8], Key); 8] = [
    (b"\x1b[A", Key::Up),
    (b"k", Key::Up),
    (b"\x1b[B", Key::Down),
    (b"j", Key::Down),
    (b"\x1b[5~", Key::PageUp),
    (b"\x1b[6~", Key::PageDown),
    (b" ", Key::PageDown),
    (b"q", Key::Quit),
];

/// Reads single keys from the controlling terminal. Until it is dropped, the terminal does not echo them or wait for a line end.
#[derive(Debug)]
pub(super) struct Keyboard {
    /// Tokio reads a terminal as it reads a pipe.
    terminal: pipe::Receiver,
    original: Termios,
}

impl Keyboard {
    /// # Errors
    /// The process has no controlling terminal.
    pub(super) fn open() -> io::Result<Self> {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let terminal = OpenOptions::new().read(true).custom_flags(flags).open("/dev/tty")?;
        let original = tcgetattr(&terminal)?;
        let keyboard = Self { terminal: pipe::Receiver::from_file_unchecked(terminal)?, original };
        let mut modes = keyboard.original.clone();
        modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(&keyboard.terminal, OptionalActions::Now, &modes)?;
        Ok(keyboard)
    }

    /// Waits for keys. Cancel safe.
    ///
    /// # Errors
    /// The terminal was closed.
    pub(super) async fn keys(&mut self) -> io::Result<Vec<Key>> {
        let mut input = [0; 64];
        let read = self.terminal.read(&mut input).await?;
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(keys(&input[..read])) }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        // An error means that the terminal was closed.
        _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.original);
    }
}

/// Other keys are ignored.
fn keys(mut input: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while !input.is_empty() {
        let known = KEYS.iter().find(|(sequence, _)| input.starts_with(sequence));
        keys.extend(known.map(|(_, key)| *key));
        input = &input[known.map_or(1, |(sequence, _)| sequence.len())..];
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_only() {
        let text = "6 jobs: 1 FAILED, 5 COMPLETED\n\n1234567890/9876543210 is not found\n";
        assert_eq!(wrap(text, usize::MAX), text);
        let expected = "6 jobs: 1 FAILED,\n5 COMPLETED\n\n1234567890/9876543210\nis not found\n";
        assert_eq!(wrap(text, 17), expected);
        assert_eq!(wrap(text, 16).lines().next(), Some("6 jobs: 1"));
    }

    #[test]
    fn keys_that_arrive_together_are_separated_and_others_are_ignored() {
        assert_eq!(keys(b"j\x1b[B\x1b[5~x\x1b[Hq"), [Key::Down, Key::Down, Key::PageUp, Key::Quit]);
        assert_eq!(keys(b"\x1b"), []);
    }
}
