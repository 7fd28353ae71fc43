//! The pages for people: HTML that the server renders, without a script.

pub(super) mod html;
pub(super) mod job_page;
pub(super) mod page;
mod quota;
mod selection;
mod timeline;
mod words;
