//! The page `/runbook`: docs/runbook.md as HTML. The alerting rules link to its sections.
//!
//! A heading of plain words has the anchor that GitHub gives it. The daemon serves no other document, so a link to another
//! document is shown as plain text: the text of the link, then the path.

use axum::extract::State;
use axum::response::Response;
use maud::{PreEscaped, html};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::html::{Page, page};
use crate::http::app_state::AppState;

const RUNBOOK: &str = include_str!("../../../docs/runbook.md");

pub(in crate::http) async fn show(State(state): State<AppState>) -> Response {
    let footer = html! { "Other documents are in docs/ of the sources and in /usr/share/doc/refwatch." };
    let content = html! { article.document { (PreEscaped(rendered(RUNBOOK))) } };
    page(&state, Page { footer, ..Page::new("Runbook", content) })
}

fn rendered(markdown: &str) -> String {
    let mut parser = Parser::new_ext(markdown, Options::ENABLE_TABLES).peekable();
    let mut events = Vec::new();
    let mut open_link = None;
    while let Some(event) = parser.next() {
        match event {
            Event::Start(Tag::Heading { level, classes, attrs, .. }) => {
                let id = match parser.peek() {
                    Some(Event::Text(text)) => Some(anchor(text).into()),
                    _ => None,
                };
                events.push(Event::Start(Tag::Heading { level, id, classes, attrs }));
            }
            Event::Start(Tag::Link { dest_url, .. }) if !dest_url.starts_with('#') => open_link = Some(dest_url),
            Event::End(TagEnd::Link) => events.push(match open_link.take() {
                Some(path) => Event::Text(format!(" ({})", path.trim_start_matches("../")).into()),
                None => event,
            }),
            event => events.push(event),
        }
    }
    let mut html = String::new();
    pulldown_cmark::html::push_html(&mut html, events.into_iter());
    html
}

/// The anchor of a heading: lower case, with hyphens for spaces.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}
