//! `refwatch schema`, `completions` and `man`: files for editors, shells and man(1).

use std::iter;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use super::exit::{Failure, print};
use crate::config;

/// # Errors
/// Returns an error if standard output cannot be written.
pub fn schema() -> Result<(), Failure> {
    print(format_args!("{:#}\n", config::schema()))
}

/// # Errors
/// Returns an error if standard output cannot be written.
pub fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::definition(), env!("CARGO_PKG_NAME"), &mut script);
    print(String::from_utf8_lossy(&script))
}

/// Prints the page of refwatch. With `directory`, writes it and one page per command there instead.
///
/// # Errors
/// Returns an error if a page cannot be written.
pub fn man(directory: Option<&Path>) -> Result<(), Failure> {
    let mut refwatch = super::definition();
    refwatch.build();
    let page = |command: &Command| Man::new(command.clone()).source(concat!("refwatch ", env!("CARGO_PKG_VERSION")));
    let Some(directory) = directory else {
        let mut text = Vec::new();
        page(&refwatch).render(&mut text).map_err(Failure::running)?;
        return print(String::from_utf8_lossy(&text));
    };
    for command in iter::once(&refwatch).chain(refwatch.get_subcommands()) {
        let written = page(command).generate_to(directory);
        written.map_err(|error| Failure::running(format_args!("{}: {error}", directory.display())))?;
    }
    Ok(())
}
