//! The pages for people. The server renders complete HTML; no page has a script.

pub(super) mod html;
pub(super) mod job_page;
mod presentation;
mod quota;
pub(super) mod runbook;
mod selection;
pub(super) mod status_page;
mod timeline;
