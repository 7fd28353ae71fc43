//! `refwatch schema`, `completions` and `man`: files for editors, shells and man(1).

use std::fs;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use super::exit::{Failure, print};
use super::manual;
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

/// Prints the page of refwatch. With `directory`, writes it, one page per command, and refwatch.toml(5) there instead.
///
/// # Errors
/// Returns an error if a page cannot be written.
pub fn man(directory: Option<&Path>) -> Result<(), Failure> {
    let mut refwatch = super::definition();
    refwatch.build();
    let page = |command: &Command| manual::command_page(command).map_err(Failure::running);
    let Some(directory) = directory else {
        return print(String::from_utf8_lossy(&page(&refwatch)?));
    };
    let write = |name: String, text: &[u8]| {
        let file = directory.join(name);
        fs::write(&file, text).map_err(|error| Failure::running(format_args!("{}: {error}", file.display())))
    };
    let mut commands = vec![&refwatch];
    while let Some(command) = commands.pop() {
        write(Man::new(command.clone()).get_filename(), &page(command)?)?;
        commands.extend(command.get_subcommands().filter(|command| command.get_name() != "help"));
    }
    write("refwatch.toml.5".to_owned(), manual::configuration_page().as_bytes())
}
