use std::path::Path;

use maskwright_blueprint::{SecondAccuracy, TranslationAccuracy, check_writable, write_whole};
use maskwright_search::{Tuned, VOCABULARY, tune};
use serde::Serialize;

use super::{
    blueprint_config::config_of,
    next::{program, quoted},
};
use crate::{
    answer::Answer,
    arguments::TuneArguments,
    error::CliError,
    progress::Progress,
    table::{percent, points, times, translation_points},
};

/// What `--json` prints.
#[derive(Serialize)]
struct Written<'a> {
    blueprint: String,
    weights: String,
    #[serde(flatten)]
    tuned: &'a Tuned,
}

pub(crate) fn run(arguments: &TuneArguments, verbose: u8) -> Result<Answer, CliError> {
    let (masks, to) = (&arguments.blueprint, &arguments.to);
    if to.extension().is_none_or(|ending| ending != "ron") {
        return Err(CliError::NotRonToWrite { path: to.clone() });
    }
    let (config, named) = config_of(masks, arguments.config.as_deref(), &arguments.overrides)?;
    let write_error = |path: &Path| {
        let path = path.to_path_buf();
        |source| CliError::Write { path, source }
    };
    check_writable(to).map_err(write_error(to))?;
    let cache = arguments.runs.join("cache");
    let mut progress = Progress::new(verbose);
    let tuned = tune(masks, &config, &named.display().to_string(), &cache, &mut progress);
    drop(progress);
    let tuned = tuned.map_err(|error| match error.is_interruption() {
        true => CliError::TrainingInterrupted { store: cache },
        false => error.into(),
    })?;

    // The blueprint last: where it is, it is whole.
    let weights = to.with_extension("safetensors");
    write_whole(&weights, &tuned.weights).map_err(write_error(&weights))?;
    if let Some(learnt) = &tuned.vocabulary {
        let path = to.with_extension(VOCABULARY);
        write_whole(&path, learnt.as_bytes()).map_err(write_error(&path))?;
    }
    write_whole(to, tuned.blueprint.to_ron().as_bytes()).map_err(write_error(to))?;
    if arguments.json {
        let (blueprint, weights) = (to.display().to_string(), weights.display().to_string());
        return Ok(Answer::json("tune", &Written { blueprint, weights, tuned: &tuned }));
    }
    Ok(Answer::text(summary(&tuned, config.fine_tune.epochs, to, &weights)))
}

fn summary(tuned: &Tuned, epochs: u32, to: &Path, weights: &Path) -> String {
    let Tuned { accuracy, predicted, selection_drop, tolerance, .. } = tuned;
    let epochs = if epochs == 1 { "1 epoch".into() } else { format!("{epochs} epochs") };
    let within = if selection_drop <= tolerance { "within" } else { "more than" };
    let mut text = format!(
        "fine-tuned for {epochs} under masks of density {}\n\
         measured on {} selection examples: a drop of {} points, {within} the {:.2} that are allowed; distortion {} nats\n\
         measured on {} test examples: {} (dense {}), a drop of {} points\n",
        percent(tuned.density),
        tuned.selection_examples,
        points(*selection_drop),
        100.0 * tolerance,
        tuned.selection_distortion.map_or("–".into(), |nats| format!("{nats:.4}")),
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
    let (program, file) = (program(), quoted(&to.display().to_string()));
    text + &format!(
        "\nblueprint  {}\nweights    {}\n\nnext\n  {program} eval {file} --report\n  {program} export {file} --target c-header\n",
        to.display(),
        weights.display(),
    )
}
