use maskwright_blueprint::write_whole;

use crate::{answer::Answer, arguments::ReportArguments, error::CliError, report};

pub(crate) fn run(arguments: &ReportArguments) -> Result<Answer, CliError> {
    let page = report::html(&arguments.run)?;
    let path = arguments.run.join("report.html");
    match write_whole(&path, page.as_bytes()) {
        Ok(()) => Ok(Answer::text(format!("{}\n", path.display()))),
        Err(source) => Err(CliError::Write { path, source }),
    }
}
