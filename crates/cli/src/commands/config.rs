use maskwright_blueprint::to_ron;
use maskwright_search::{SearchConfig, check_config, load_config};

use crate::{answer::Answer, arguments::ConfigCommand, error::CliError};

pub(crate) fn run(command: &ConfigCommand) -> Result<Answer, CliError> {
    match command {
        ConfigCommand::Default => Ok(Answer::text(to_ron(&SearchConfig::default()))),
        ConfigCommand::Schema => {
            let schema = schemars::schema_for!(SearchConfig);
            let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
            Ok(Answer::text(text + "\n"))
        }
        ConfigCommand::Check { config: path, overrides, json } => {
            let config = load_config(path, &overrides.pairs())?;
            let device = check_config(&config)?;
            if *json {
                return Ok(Answer::json("config check", &config));
            }
            let (path, seed) = (path.display(), config.seed);
            Ok(Answer::text(format!("ok  {path}: a search for {} with seed {seed}\n", device.name)))
        }
    }
}
