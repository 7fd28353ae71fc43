//! The problems of a configuration with their locations, as text.
//!
//! The log, the page, the API and most commands show `FILE:LINE:COLUMN: MESSAGE` without the line's text, because it may contain a
//! password. Only `refwatch check` shows the text, with [`Problems::render`]. All text is sanitized before it is shown, except `file` in
//! JSON.

use std::fmt::{self, Display};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::core::sanitize::{Sanitized, excerpt, is_unsafe_to_display};

/// The maximum number of characters of a line in a snippet. A line may be as long as the file.
const LINE_LENGTH_MAX: usize = 1000;

/// The maximum number of characters of a message, a help, or a path in a snippet. A message may quote a key as long as the file.
const MESSAGE_LENGTH_MAX: usize = 300;

const OTHER_ENTRY_NOTE: &str = "the other entry is here";

/// A file and the text that was read from it.
pub(super) struct SourceText {
    pub path: Arc<Path>,
    pub text: String,
}

/// A mistake, its location, and how to correct it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub(super) message: String,
    location: Location,
    help: Option<String>,
    /// The other entry of a conflict, such as the first of two equal names.
    other: Option<Location>,
}

/// A part of a line. Without `line`, the whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    file: Arc<Path>,
    line: Option<MarkedLine>,
}

#[derive(Clone, PartialEq, Eq)]
struct MarkedLine {
    number: usize,
    /// In characters, counted from 1.
    column: usize,
    /// At most `LINE_LENGTH_MAX` characters of the line.
    text: String,
    /// The marked part, in bytes of `text`.
    marked: Range<usize>,
}

/// Omits the text, because the line may contain a password.
impl fmt::Debug for MarkedLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.column)
    }
}

/// The problems of a configuration: those of directories, then the others by file and location.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl std::error::Error for Problems {}

impl Problems {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the problems in one file.
    #[must_use]
    pub fn in_file(&self, file: &Path) -> Self {
        Self(self.0.iter().filter(|problem| *problem.location.file == *file).cloned().collect())
    }

    /// The first problem and the number of other problems, on one line.
    #[must_use]
    pub fn summary(&self) -> String {
        match self.0.as_slice() {
            [] => "no problems".to_owned(),
            [only] => only.summary(),
            [first, others @ ..] => format!("{} (and {} more)", first.summary(), others.len()),
        }
    }

    /// Every problem with its line of the file, in the style of rustc. `colours` adds terminal colours.
    #[must_use]
    pub fn render(&self, colours: bool) -> String {
        let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
        let problems: Vec<String> = self.0.iter().map(|problem| problem.render(&renderer)).collect();
        problems.join("\n\n")
    }
}

/// One line for each problem.
impl Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Problem {
    pub(super) fn new(location: Location, message: &str, help: Option<String>) -> Self {
        Self { message: sanitized(message), location, help: help.map(|help| sanitized(&help)), other: None }
    }

    pub(super) fn with_other(self, other: Location) -> Self {
        Self { other: Some(other), ..self }
    }

    /// The line and column. `None` if the problem concerns the whole file.
    pub(super) fn position(&self) -> Option<(usize, usize)> {
        self.location.line.as_ref().map(|line| (line.number, line.column))
    }

    /// `FILE:LINE:COLUMN: MESSAGE`
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{}: {}", self.location, self.message)
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut group = self.location.add_to(Group::with_title(Level::ERROR.primary_title(&self.message)));
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help));
        }
        let note = || Group::with_title(Level::NOTE.secondary_title(OTHER_ENTRY_NOTE));
        let other = self.other.as_ref().map(|location| location.add_to(note()));
        let report: Vec<Group<'_>> = [group].into_iter().chain(other).collect();
        renderer.render(&report)
    }
}

/// For `refwatch check --json`. `line` and `column` are null if the problem concerns the whole file.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (line, column) = self.position().unzip();
        let mut fields = serializer.serialize_map(None)?;
        fields.serialize_entry("file", &self.location.file.to_string_lossy())?;
        fields.serialize_entry("line", &line)?;
        fields.serialize_entry("column", &column)?;
        fields.serialize_entry("message", &self.message)?;
        fields.serialize_entry("suggestion", &self.help)?;
        fields.serialize_entry("other", &self.other.as_ref().map(Location::to_string))?;
        fields.end()
    }
}

/// The summary, the help and the other location on one line.
impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        if let Some(location) = &self.other {
            write!(f, " ({OTHER_ENTRY_NOTE}: {location})")?;
        }
        Ok(())
    }
}

impl Location {
    pub(super) fn whole_file(file: &Arc<Path>) -> Self {
        Self { file: file.clone(), line: None }
    }

    /// The part of `span` that is on its first line.
    pub(super) fn new(SourceText { path, text }: &SourceText, span: Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_text = text[line_start..].lines().next().unwrap_or_default();
        // `lines` removes `\r\n`, so an error at the end of a line may be past its text.
        let chars_before = line_text.get(..start - line_start).unwrap_or(line_text).chars().count();
        let end = text.floor_char_boundary(span.end.clamp(start, text.len()));
        let length = text[start..end].lines().next().unwrap_or_default().chars().count();
        let printable = |c: char| if is_unsafe_to_display(c) { char::REPLACEMENT_CHARACTER } else { c };
        let shown: String = line_text.replace('\t', " ").chars().take(LINE_LENGTH_MAX).map(printable).collect();
        let byte = |nth: usize| shown.char_indices().nth(nth).map_or(shown.len(), |(index, _)| index);
        let marked = byte(chars_before)..byte(chars_before + length);
        let (number, column) = (text[..start].matches('\n').count() + 1, chars_before + 1);
        Self { file: path.clone(), line: Some(MarkedLine { number, column, text: shown, marked }) }
    }

    fn add_to<'a>(&'a self, group: Group<'a>) -> Group<'a> {
        let path = sanitized(&self.file.to_string_lossy());
        match &self.line {
            None => group.element(Origin::path(path)),
            Some(line) if line.column > LINE_LENGTH_MAX => {
                group.element(Origin::path(path).line(line.number).char_column(line.column))
            }
            Some(line) => {
                let snippet = Snippet::source(&line.text).line_start(line.number).path(path);
                group.element(snippet.annotation(AnnotationKind::Primary.span(line.marked.clone())))
            }
        }
    }
}

impl Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Sanitized(&self.file.to_string_lossy()))?;
        match &self.line {
            Some(MarkedLine { number, column, .. }) => write!(f, ":{number}:{column}"),
            None => Ok(()),
        }
    }
}

fn sanitized(text: &str) -> String {
    Sanitized(&excerpt(text, MESSAGE_LENGTH_MAX)).to_string()
}
