//! The pages for people. The server renders complete HTML; no page has a script.

pub(super) mod html;
pub(super) mod job_page;
pub(super) mod page;
mod quota;
mod selection;
mod timeline;
mod words;
