//! What is wrong with a configuration, and where: the shape of a problem and how it is shown, in the style of rustc.
//!
//! A problem is sanitised when it is made, so that a configuration file can act on no terminal, log or page, and shows no
//! secret.

use std::fmt::{self, Display};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::core::sanitize::{Printable, excerpt, is_hostile};

/// Characters of a line that are kept: more than the widest terminal shows. A line of the file may be as long as the file.
const LINE_LENGTH_MAX: usize = 1000;

/// Characters of a message. It may quote a value as long as the file.
const MESSAGE_MAX: usize = 300;

/// One problem: the rule that does not hold, the place, and what to do where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    message: String,
    place: Place,
    related: Option<(&'static str, Place)>,
    help: Option<String>,
}

/// A place in a file, or the file as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    file: Arc<Path>,
    mark: Option<Mark>,
}

/// A piece of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    /// From 1.
    line: usize,
    /// From 1, in characters.
    column: usize,
    /// The line, or its beginning.
    shown: String,
    /// What is marked, in bytes of `shown`.
    marked: Range<usize>,
}

/// Every problem of a configuration, by file and place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl std::error::Error for Problems {}

impl Problems {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of one file.
    #[must_use]
    pub fn of(&self, file: &Path) -> Self {
        Self(self.0.iter().filter(|problem| *problem.place.file == *file).cloned().collect())
    }

    /// The first problem on one line, and how many more there are.
    #[must_use]
    pub fn summary(&self) -> String {
        match self.0.as_slice() {
            [] => "no problems".to_owned(),
            [only] => only.summary(),
            [first, others @ ..] => format!("{} (and {} more)", first.summary(), others.len()),
        }
    }

    /// Every problem on many lines. `colours` is for a terminal.
    #[must_use]
    pub fn render(&self, colours: bool) -> String {
        let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
        let problems: Vec<String> = self.0.iter().map(|problem| problem.render(&renderer)).collect();
        problems.join("\n\n")
    }
}

impl Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl Problem {
    pub(super) fn new(place: Place, message: &str) -> Self {
        Self { message: sanitised(message), place, related: None, help: None }
    }

    pub(super) fn help(mut self, help: impl Into<Option<String>>) -> Self {
        self.help = help.into().as_deref().map(sanitised);
        self
    }

    pub(super) fn related(mut self, why: &'static str, place: Place) -> Self {
        self.related = Some((why, place));
        self
    }

    /// Its line, from 1; `None` where it is about the file as a whole.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.place.mark.as_ref().map(|mark| mark.line)
    }

    /// Whether this is its message.
    pub(super) fn says(&self, message: &str) -> bool {
        self.message == message
    }

    /// Whether another one says the same of another place.
    pub(super) fn repeats(&self, other: &Self) -> bool {
        (&self.message, &self.help) == (&other.message, &other.help)
    }

    /// The place for sorting within one file.
    pub(super) fn position(&self) -> Option<(usize, usize)> {
        self.place.mark.as_ref().map(|mark| (mark.line, mark.column))
    }

    /// The problem on one line: `FILE:LINE:COLUMN: MESSAGE`.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{}: {}", self.place, self.message)
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut group = self.place.show(Group::with_title(Level::ERROR.primary_title(&self.message)));
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help));
        }
        let related = self.related.as_ref();
        let related = related.map(|(why, place)| place.show(Group::with_title(Level::NOTE.secondary_title(*why))));
        let report: Vec<Group<'_>> = [group].into_iter().chain(related).collect();
        renderer.render(&report)
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

impl Place {
    /// The file as a whole.
    pub(super) fn file(file: &Arc<Path>) -> Self {
        Self { file: file.clone(), mark: None }
    }

    /// The part of `text` at `span`, as far as it lies on its first line.
    pub(super) fn new(file: &Arc<Path>, text: &str, span: Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[line_start..].lines().next().unwrap_or_default();
        // An error at the end of a line may point past it.
        let before = line.get(..start - line_start).unwrap_or(line).chars().count();
        let end = text.floor_char_boundary(span.end.clamp(start, text.len()));
        let length = text[start..end].lines().next().unwrap_or_default().chars().count();

        let header = text[..line_start].lines().rev().find(|line| line.trim_start().starts_with('['));
        let of_users = header.is_some_and(|header| header.to_ascii_lowercase().contains("user"));
        let shown: String = harmless(line, of_users).take(LINE_LENGTH_MAX).collect();
        let byte = |nth: usize| shown.char_indices().nth(nth).map_or(shown.len(), |(index, _)| index);
        let marked = byte(before)..byte(before + length);
        let line = text[..start].matches('\n').count() + 1;
        Self { file: file.clone(), mark: Some(Mark { line, column: before + 1, shown, marked }) }
    }

    fn show<'a>(&'a self, group: Group<'a>) -> Group<'a> {
        let path = sanitised(&self.file.to_string_lossy());
        match &self.mark {
            None => group.element(Origin::path(path)),
            Some(mark) if mark.column > LINE_LENGTH_MAX => {
                group.element(Origin::path(path).line(mark.line).char_column(mark.column))
            }
            Some(mark) => {
                let snippet = Snippet::source(&mark.shown).line_start(mark.line).path(path);
                group.element(snippet.annotation(AnnotationKind::Primary.span(mark.marked.clone())))
            }
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Printable(&self.file.to_string_lossy()))?;
        match &self.mark {
            Some(Mark { line, column, .. }) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

fn sanitised(text: &str) -> String {
    Printable(&excerpt(text, MESSAGE_MAX)).to_string()
}

/// What the name of a secret looks like, however it is misspelt: letters alone, in lower case.
const SECRET_WORDS: [&str; 7] = ["extern", "secret", "token", "passw", "credential", "key", "user"];

/// Whether a value on the line may be a secret: by the names on it, and wherever a name may be quoted or escaped, as ours never are.
fn looks_secret(line: &str) -> bool {
    let unquoted = line.split('"').step_by(2).flat_map(str::chars);
    let letters: String = unquoted.filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).collect();
    let name = line.split('=').next().unwrap_or_default();
    let odd_name = name.contains(['"', '\'', '\\']) || (line.contains('{') && line.contains('\\'));
    odd_name || SECRET_WORDS.iter().any(|word| letters.contains(word))
}

/// The characters of a line, each hostile one replaced by one that is not, so that columns stay right, and with them what is
/// secret: what looks like a key or an external id, passwords or their hashes, and user and password of a URL.
fn harmless(line: &str, secret: bool) -> impl Iterator<Item = char> {
    let password = line.find("://").and_then(|start| Some(start + 3..line.rfind('@')?));
    let value = line.find('=').filter(|_| secret || looks_secret(line)).map(|equals| equals + 1..line.len());
    let secret = move |index: usize| {
        [&password, &value].into_iter().any(|range| range.as_ref().is_some_and(|range| range.contains(&index)))
    };
    line.char_indices().map(move |(index, c)| match c {
        '\t' => ' ',
        c if is_hostile(c) => char::REPLACEMENT_CHARACTER,
        c if secret(index) && !c.is_whitespace() => '*',
        c => c,
    })
}
