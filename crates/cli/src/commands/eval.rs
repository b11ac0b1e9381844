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
    let provenance = read_blueprint(path)?.provenance;
    let named = arguments.config.clone().or(provenance.config.map(PathBuf::from));
    let config = named.ok_or_else(|| CliError::NoConfig { path: path.clone() })?;
    // The blueprint's own seed, unless another one is asked for.
    let seed = provenance.seed.map(|seed| ("seed".to_owned(), seed.to_string()));
    let overrides: Vec<_> = seed.into_iter().chain(arguments.overrides.pairs()).collect();
    let config = load_config(&config, &overrides)?;
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
