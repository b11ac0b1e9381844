use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;

use crate::error::CliError;

/// What a command has to say on stdout, and the code to exit with.
#[derive(Debug)]
pub(crate) struct Answer {
    stdout: String,
    code: u8,
}

/// The one document that `--json` prints.
#[derive(Serialize)]
struct Document<'a, T> {
    schema_version: u32,
    command: &'a str,
    result: &'a T,
}

impl Answer {
    /// Text for a person.
    pub(crate) fn text(stdout: impl Into<String>) -> Self {
        Self { stdout: stdout.into(), code: 0 }
    }

    /// One JSON document: `{"schema_version": 1, "command": .., "result": ..}`.
    pub(crate) fn json<T: Serialize>(command: &str, result: &T) -> Self {
        let document = Document { schema_version: 1, command, result };
        let mut stdout = serde_json::to_string_pretty(&document).expect("results have text keys and finite numbers");
        stdout.push('\n');
        Self { stdout, code: 0 }
    }

    /// The same with another exit code.
    pub(crate) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// Prints. A reader that has seen enough (`| head`) is no error.
    pub(crate) fn print(self) -> Result<ExitCode, CliError> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(self.stdout.as_bytes()).and_then(|()| stdout.flush()) {
            Err(source) if source.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Stdout(source)),
            _ => Ok(ExitCode::from(self.code)),
        }
    }
}
