use clap::CommandFactory;

use crate::{
    answer::Answer,
    arguments::{Arguments, CompletionsArguments},
};

pub(crate) fn run(arguments: &CompletionsArguments) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "maskwright", &mut script);
    Answer::text(String::from_utf8(script).expect("completions are made of command and argument names"))
}
