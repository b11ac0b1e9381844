//! The `maskwright` command: arguments, progress, reports. The only crate of the workspace that prints or exits.

mod answer;
mod arguments;
mod bare_shape;
mod commands;
mod diagnosis;
mod error;
mod measure;
mod memory;
mod picture;
mod progress;
mod report;
mod steps;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;

fn main() -> ExitCode {
    memory::keep_freed();
    let arguments = Arguments::parse();
    diagnosis::narrate(arguments.verbose);
    let answered = commands::run(arguments).and_then(answer::Answer::print);
    answered.unwrap_or_else(|error| {
        diagnosis::print(&error);
        error.exit_code()
    })
}
