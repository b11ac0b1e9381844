use std::{fs::canonicalize, path::Path};

use maskwright_blueprint::{SecondAccuracy, TranslationAccuracy, check_writable, write_whole};
use maskwright_search::{Tuned, VOCABULARY, tune};
use serde::Serialize;

use super::{
    blueprint_config::config_of,
    next::{program, quoted, sets},
};
use crate::{
    answer::Answer,
    arguments::TuneArguments,
    error::CliError,
    progress::Progress,
    table::{counted, nats, percent, points, times, translation_points},
};

/// How the file of fine-tuned weights ends, beside their blueprint.
const WEIGHTS: &str = "safetensors";

/// What `--json` prints.
#[derive(Serialize)]
struct Written<'a> {
    blueprint: String,
    weights: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    vocabulary: Option<String>,
    #[serde(flatten)]
    tuned: &'a Tuned,
}

pub(crate) fn run(arguments: &TuneArguments, verbose: u8) -> Result<Answer, CliError> {
    let (masks, to) = (&arguments.blueprint, &arguments.to);
    // A path with a slash at its end has the same extension.
    if !to.as_os_str().as_encoded_bytes().ends_with(b".ron") || to.extension().is_none() {
        return Err(CliError::NotRonToWrite { path: to.clone() });
    }
    if let (Ok(from), Ok(to)) = (canonicalize(masks), canonicalize(to))
        && from == to
    {
        return Err(CliError::TunedOntoItself { path: to });
    }
    let (config, named) = config_of(masks, arguments.config.as_deref(), None, &arguments.overrides)?;
    let write_error = |path: &Path| {
        let path = path.to_path_buf();
        |source| CliError::Write { path, source }
    };
    for path in [to.clone(), to.with_extension(WEIGHTS), to.with_extension(VOCABULARY)] {
        check_writable(&path).map_err(write_error(&path))?;
    }
    let cache = arguments.runs.join("cache");
    let mut progress = Progress::new(verbose);
    let tuned = tune(masks, &config, &named.display().to_string(), &cache, &mut progress);
    drop(progress);
    let tuned = tuned.map_err(|error| match error.is_interruption() {
        true => CliError::TrainingInterrupted { store: cache },
        false => error.into(),
    })?;

    // The blueprint last: where a new one is, it is whole.
    let weights = to.with_extension(WEIGHTS);
    write_whole(&weights, &tuned.weights).map_err(write_error(&weights))?;
    if let Some(learnt) = &tuned.vocabulary {
        let path = to.with_extension(VOCABULARY);
        write_whole(&path, learnt.as_bytes()).map_err(write_error(&path))?;
    }
    write_whole(to, tuned.blueprint.to_ron().as_bytes()).map_err(write_error(to))?;
    if arguments.json {
        let named = |path: &Path| path.display().to_string();
        let (blueprint, weights) = (named(to), named(&weights));
        let vocabulary = tuned.vocabulary.as_ref().map(|_| named(&to.with_extension(VOCABULARY)));
        return Ok(Answer::json("tune", &Written { blueprint, weights, vocabulary, tuned: &tuned }));
    }
    Ok(Answer::text(summary(&tuned, config.fine_tune.epochs, arguments)))
}

fn summary(tuned: &Tuned, epochs: u32, arguments: &TuneArguments) -> String {
    let Tuned { accuracy, predicted, selection_drop, tolerance, .. } = tuned;
    let epochs = counted(epochs as usize, "epoch", "epochs");
    let within = if selection_drop <= tolerance { "within" } else { "more than" };
    let mut text = format!(
        "fine-tuned for {epochs} under masks of density {}\n\
         measured on {} selection examples: a drop of {} points, {within} the {:.2} that are allowed; distortion {} nats\n\
         measured on {} test examples: {} (dense {}), a drop of {} points\n",
        percent(tuned.density),
        tuned.selection_examples,
        points(*selection_drop),
        100.0 * tolerance,
        tuned.selection_distortion.map_or("–".into(), nats),
        accuracy.examples,
        percent(accuracy.masked),
        percent(accuracy.dense),
        points(accuracy.drop.0),
    );
    if let Some(SecondAccuracy { name, dense, masked }) = &accuracy.second {
        text += &format!("{name}: {} (dense {})\n", percent(*masked), percent(*dense));
    }
    if let Some(TranslationAccuracy { dense, masked }) = accuracy.translation {
        let [[bleu, chrf], [dense_bleu, dense_chrf]] = [masked, dense].map(|of| translation_points(Some(of)));
        text += &format!("greedy decoding: BLEU {bleu} (dense {dense_bleu}), chrF {chrf} (dense {dense_chrf})\n");
    }
    text += &format!(
        "predicted on {}: attention {} as fast as dense, the whole model {}\n",
        predicted.device,
        times(predicted.speedup),
        times(predicted.end_to_end_speedup),
    );
    for caveat in tuned.caveats.sentences() {
        text += &format!("inputs: {caveat}\n");
    }
    let to = &arguments.to;
    text += &format!("\nblueprint  {}\nweights    {}\n", to.display(), to.with_extension(WEIGHTS).display());
    if tuned.vocabulary.is_some() {
        text += &format!("vocabulary {}\n", to.with_extension(VOCABULARY).display());
    }
    let (program, file, sets) = (program(), quoted(&to.display().to_string()), sets(&arguments.overrides));
    text + &format!("\nnext\n  {program} eval {file}{sets}\n  {program} export {file} --target c-header\n")
}
