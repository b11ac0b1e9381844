use std::path::{Path, PathBuf};

use maskwright_search::{SearchConfig, load_config};

use crate::{arguments::Overrides, error::CliError, picture::read_blueprint};

/// The configuration that a command on a blueprint works by, and where it lies: the one that is given, or that of the run
/// directory which the blueprint lies in, or the one that the blueprint names. `of_run` is put into a run directory's before
/// `overrides`: whichever backend a run had, any evaluates its blueprints.
pub(super) fn config_of(
    blueprint: &Path,
    given: Option<&Path>,
    of_run: Option<(String, String)>,
    overrides: &Overrides,
) -> Result<(SearchConfig, PathBuf), CliError> {
    if blueprint.extension().is_some_and(|ending| ending == "safetensors") {
        return Err(CliError::NotRon { path: blueprint.into() }); // beside a blueprint that ending is its weights'
    }
    let provenance = read_blueprint(blueprint)?.provenance;
    // Its own seed, unless another one is asked for.
    let mut pairs: Vec<_> = provenance.seed.map(|seed| ("seed".to_owned(), seed.to_string())).into_iter().collect();
    let path = match (given, config_of_run(blueprint), provenance.config.map(PathBuf::from)) {
        (Some(given), ..) => given.into(),
        (None, Some(config), _) => {
            pairs.extend(of_run);
            config
        }
        (None, None, Some(named)) if !named.exists() => {
            return Err(CliError::NamedConfig { path: blueprint.into(), config: named });
        }
        (None, None, Some(named)) => named,
        (None, None, None) => return Err(CliError::NoConfig { path: blueprint.into() }),
    };
    pairs.extend(overrides.pairs());
    Ok((load_config(&path, &pairs)?, path))
}

/// The configuration of the run directory that a blueprint lies in, which holds the search's `--set`s too.
fn config_of_run(blueprint: &Path) -> Option<PathBuf> {
    let beside = blueprint.parent()?;
    let run = match beside.file_name() {
        Some(_) => beside.parent()?.to_path_buf(),
        None => beside.join(".."), // the working directory, or one above
    };
    let config = run.join("config.ron");
    let is_run = config.is_file() && config.with_file_name("manifest.ron").is_file();
    is_run.then_some(config)
}
