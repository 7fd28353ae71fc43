//! The pages for people. The server renders complete HTML, which works without the script `page.js`.

mod axis;
pub(super) mod config_page;
mod filters;
pub(super) mod history_page;
pub(super) mod html;
pub(super) mod job_page;
pub(super) mod not_found;
mod presentation;
mod quota;
pub(super) mod runbook;
mod selection;
mod sinks;
pub(super) mod status_page;
mod timeline;
mod watch_table;
