//! `report.html`: everything a run found, in one file that loads nothing.

mod candidates;
mod curve;
mod decades;
mod headline;
mod mask_grid;
mod page;
mod palette;
mod plot;
mod run_files;
mod study;

use std::path::Path;

pub(crate) use headline::headline;
pub(crate) use run_files::RunFiles;
pub(crate) use study::page as study;

use crate::error::CliError;

/// The report of a finished run.
pub(crate) fn html(run: &Path) -> Result<String, CliError> {
    Ok(page::page(&RunFiles::read(run)?))
}
