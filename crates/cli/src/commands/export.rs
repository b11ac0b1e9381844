use std::fs;

use maskwright_blueprint::write_whole;
use serde::Serialize;

use crate::{answer::Answer, arguments::ExportArguments, error::CliError, picture::read_blueprint, table::percent};

/// What was written.
#[derive(Serialize)]
struct Written {
    file: String,
    target: &'static str,
    bytes: usize,
    blueprint_digest: String,
    /// Whether whoever reads the file skips work: `yes`, `no: ..` or `as its reader does`.
    skips_work: String,
}

pub(crate) fn run(arguments: &ExportArguments) -> Result<Answer, CliError> {
    let blueprint = read_blueprint(&arguments.blueprint)?;
    let exported = arguments.target.export(&blueprint)?;
    let file = arguments.out.join(&exported.file_name);
    fs::create_dir_all(&arguments.out)
        .and_then(|()| write_whole(&file, &exported.bytes))
        .map_err(|source| CliError::Write { path: file.clone(), source })?;
    let written = Written {
        file: file.display().to_string(),
        target: arguments.target.name(),
        bytes: exported.bytes.len(),
        blueprint_digest: blueprint.digest().to_string(),
        skips_work: arguments.target.capability().skips_work.to_string(),
    };
    if arguments.json {
        return Ok(Answer::json("export", &written));
    }
    Ok(Answer::text(format!(
        "{}: {} for {}, {} bytes, density {}; skips work: {}\n",
        written.file,
        written.target,
        blueprint.model().name,
        written.bytes,
        percent(blueprint.density()),
        written.skips_work,
    )))
}
