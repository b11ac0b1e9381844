//! One file for each command. A command reads its arguments, asks the libraries, and returns what is to be printed.

mod bench;
mod blueprint_config;
mod completions;
mod config;
mod cost;
mod data;
mod device;
mod eval;
mod export;
mod mask;
mod next;
mod reference;
mod report;
mod search;
mod tune;

use crate::{
    answer::Answer,
    arguments::{Arguments, Command},
    error::CliError,
};

pub(crate) use data::known_set_names;

/// The folder of the mask library, in the working directory.
const LIBRARY: &str = "masks";

/// Does what the arguments ask for.
pub(crate) fn run(arguments: Arguments) -> Result<Answer, CliError> {
    let verbose = arguments.verbose;
    match arguments.command {
        Command::Search(arguments) => search::run(&arguments, verbose),
        Command::Cost(arguments) => cost::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments, verbose),
        Command::Tune(arguments) => tune::run(&arguments, verbose),
        Command::Mask(command) => mask::run(&command),
        Command::Config(command) => config::run(&command),
        Command::Data(command) => data::run(&command),
        Command::Device(command) => device::run(&command),
        Command::Bench(command) => bench::run(&command),
        Command::Report(arguments) => report::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Completions(arguments) => Ok(completions::run(&arguments)),
        Command::Reference => Ok(Answer::text(reference::markdown())),
    }
}
