use std::path::{Path, PathBuf};

use maskwright_blueprint::{RonError, nearest, read_ron};
use serde_json::Value;

use crate::{SearchConfig, ron_text::ron_as_json};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error(transparent)]
    Ron(#[from] RonError),
    #[error("`--set {path}={value}`: {why}")]
    Override { path: String, value: String, why: String },
    #[error("{}: {why}", path.display())]
    Check { path: PathBuf, why: String },
}

/// Reads a search configuration, puts `overrides` (path of keys, value) over it, and checks the whole.
///
/// What the file leaves out has its default. A value is RON or JSON (`0.25`, `"rk3588s2"`, `[8, 16]`), or plain text.
pub fn load_config(path: &Path, overrides: &[(String, String)]) -> Result<SearchConfig, ConfigError> {
    let mut config: SearchConfig = read_ron(path)?;
    for (key, value) in overrides {
        let refuse = |why| ConfigError::Override { path: key.clone(), value: value.clone(), why };
        config = with_override(&config, key, value).map_err(refuse)?;
    }
    let config = config.normalised();
    config.check().map_err(|why| ConfigError::Check { path: path.into(), why })?;
    Ok(config)
}

/// Goes through JSON: RON values lose the names of enum variants.
fn with_override(config: &SearchConfig, key: &str, text: &str) -> Result<SearchConfig, String> {
    let mut json = serde_json::to_value(config).expect("a configuration is plain data");
    let mut place = &json;
    for name in key.split('.') {
        let Value::Object(fields) = place else { return Err(format!("`{name}` lies below a value that has no keys")) };
        let allowed: Vec<&String> = fields.keys().collect();
        place = fields.get(name).ok_or_else(|| format!("unknown key `{name}`; {}", nearest(name, &allowed)))?;
    }
    let json_text = serde_json::from_str(text).ok();
    let is_quoted = text.trim_start().starts_with('"'); // a quote that is not understood is no part of a plain text
    let string = (!is_quoted).then(|| Value::String(text.into()));
    let mut refusal = None;
    for value in [json_text, ron_as_json(text), string].into_iter().flatten() {
        let is_typed = !value.is_null();
        *key.split('.').fold(&mut json, |place, name| &mut place[name]) = value;
        match serde_json::from_value(json.clone()) {
            Ok(config) => return Ok(config),
            // The first reading of the text is the likeliest, so its refusal is the one to tell; nobody typed `null`.
            Err(error) => refusal = refusal.or(Some(error.to_string()).filter(|_| is_typed)),
        }
    }
    Err(refusal
        .unwrap_or_else(|| "a string in quotes that does not end, or has an escape that RON does not know".into()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use maskwright_blueprint::{BlockSize, parse_ron};
    use maskwright_evaluator::ModelSource;
    use maskwright_transformer::Pooling;

    use super::*;
    use crate::{Agent, Baseline, Budget, Features, Start, dense_model::device_profile};

    fn set(key: &str, value: &str) -> Result<SearchConfig, String> {
        with_override(&SearchConfig::default(), key, value)
    }

    #[test]
    fn every_configuration_that_ships_is_sound_and_has_no_field_that_is_passed_over() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../search-configs");
        let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "ron"));
        assert!(files.len() >= 7, "{files:?}");
        for path in files {
            let config = load_config(&path, &[]).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            device_profile(&config).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            let text: String =
                text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            // One field after the other is misspelt.
            let fields: Vec<usize> = text.match_indices(": ").map(|(at, _)| at).collect();
            assert!(!fields.is_empty(), "{}", path.display());
            for at in fields {
                let misspelt = format!("{}x{}", &text[..at], &text[at..]);
                let field = text[..at].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                let read = parse_ron::<SearchConfig>(&misspelt, &path);
                assert!(read.is_err(), "{} is read with `{field}x` in place of `{field}`", path.display());
            }
        }
    }

    #[test]
    fn overrides_reach_every_kind_of_value() {
        assert_eq!(set("seed", "7").unwrap().seed, 7);
        assert_eq!(set("device", "myriad-x").unwrap().device, "myriad-x");
        assert_eq!(set("space.block_sizes", "[16]").unwrap().space.block_sizes, [BlockSize::B16]);
        assert_eq!(set("budget", "Density(0.25)").unwrap().budget, Budget::Density(0.25));
        assert_eq!(set("agent", "Evolution").unwrap().agent, Agent::Evolution);
        let cold = Agent::Write { start: Start::Cold, features: Features::Block };
        assert_eq!(set("agent", "Write(start: Cold, features: Block)").unwrap().agent, cold);
        assert_eq!(set("baselines", "[Random]").unwrap().baselines, [Baseline::Random]);
        assert_eq!(set("model.training", "(epochs: 3)").unwrap().model.training.epochs, 3);
        let input = set("model.source.New.encoder.input", "Image(side: 16, patch: 8, channels: 1)").unwrap();
        assert!(format!("{:?}", input.model.source).contains("Image { side: 16, patch: 8, channels: 1 }"));
        let deeper = set("model.source.New.encoder.layers", "3").unwrap().model.source;
        assert!(matches!(deeper, ModelSource::New { encoder } if encoder.layers == 3));
    }

    #[test]
    fn what_may_be_left_out_is_taken_back_and_given() {
        let patience = |value| set("model.training.patience", value).unwrap().model.training.patience;
        assert_eq!([patience("2"), patience("Some(3)"), patience("None")], [Some(2), Some(3), None]);
        let source = ModelSource::Pretrained {
            folder: "bert".into(),
            length: Some(64),
            target_length: None,
            pooling: Pooling::Mean,
        };
        let mut config = SearchConfig::default();
        config.model.source = source;
        let config = with_override(&config, "model.source.Pretrained.length", "None").unwrap();
        assert!(matches!(config.model.source, ModelSource::Pretrained { length: None, .. }));
        // Where nothing may be left out, it is a text like any other, or refused.
        assert_eq!(set("device", "None").unwrap().device, "None");
        assert!(set("seed", "None").unwrap_err().contains("\"None\""));
        assert!(set("agent", "None").unwrap_err().contains("unknown variant `None`"));
    }

    #[test]
    fn a_folder_of_idx_files_is_a_task() {
        let digits = r#"Idx(name: "digits", folder: "mnist", mean: 0.1307, deviation: 0.3081, classes: 10)"#;
        assert_eq!(set("task", digits).unwrap().task.name(), "digits");
        assert!(set("task", &digits.replace("mean: 0.1307, ", "")).is_err(), "nothing is assumed of the pixels");
    }

    #[test]
    fn an_unknown_key_is_answered_with_the_nearest() {
        let error = set("space.block_size", "[16]").unwrap_err();
        assert!(error.starts_with("unknown key `block_size`; did you mean `block_sizes`?"), "{error}");
        assert!(set("seed.x", "1").unwrap_err().contains("has no keys"));
    }

    #[test]
    fn a_wrong_value_says_what_is_allowed() {
        let error = set("space.block_sizes", "[24]").unwrap_err();
        assert!(error.contains("block size is 8, 16 or 32 tokens, not 24"), "{error}");
        let error = set("agent", "Write(start: Cold, features: Nope)").unwrap_err();
        assert!(error.starts_with("unknown variant `Nope`"), "{error}");
        let error = set("budget", "Density(NaN)").unwrap_err();
        assert!(error.contains("NaN"), "{error}");
    }
}
