mod attention;

use crate::{answer::Answer, arguments::BenchCommand, error::CliError};

pub(crate) fn run(command: &BenchCommand) -> Result<Answer, CliError> {
    match command {
        BenchCommand::Attention(arguments) => attention::run(arguments),
    }
}
