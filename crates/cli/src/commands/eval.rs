use std::path::PathBuf;

use maskwright_search::{evaluate, load_config};

use crate::{
    answer::Answer,
    arguments::EvalArguments,
    error::CliError,
    picture::read_blueprint,
    progress::Progress,
    table::{percent, points},
};

pub(crate) fn run(arguments: &EvalArguments, verbose: u8) -> Result<Answer, CliError> {
    let path = &arguments.blueprint;
    let named = match &arguments.config {
        Some(config) => Some(config.clone()),
        None => read_blueprint(path)?.provenance.config.map(PathBuf::from),
    };
    let config = named.ok_or_else(|| CliError::NoConfig { path: path.clone() })?;
    let config = load_config(&config, &arguments.overrides.pairs())?;
    let found = evaluate(path, &config, &arguments.runs.join("cache"), &mut Progress::new(verbose))?;
    if arguments.json {
        return Ok(Answer::json("eval", &found));
    }
    let tuned = match found.fine_tuned {
        true => "fine-tuned under the mask",
        false => "without fine-tuning",
    };
    Ok(Answer::text(format!(
        "measured on {} {} examples, {tuned}: {} (dense {}), a drop of {} points at density {}\n",
        found.examples,
        found.split,
        percent(found.masked),
        percent(found.dense),
        points(found.drop),
        percent(found.density),
    )))
}
