use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use maskwright_blueprint::{Blueprint, HeadId, MaskLibrary};
use serde::Serialize;

use super::LIBRARY;
use crate::{
    answer::Answer,
    arguments::MaskCommand,
    diagnosis,
    error::CliError,
    picture::{self, read_blueprint},
    table::{percent, points, text_table, times},
};

pub(crate) fn run(command: &MaskCommand) -> Result<Answer, CliError> {
    match command {
        MaskCommand::Show { files, head } => show(files, head.as_deref()),
        MaskCommand::Check { files, json } => check(files, *json),
        MaskCommand::List { folder, json } => list(folder, *json),
    }
}

fn show(files: &[PathBuf], head: Option<&str>) -> Result<Answer, CliError> {
    let head = head.map(parse_head).transpose()?;
    let mut text = String::new();
    for path in files {
        let blueprint = read_blueprint(path)?;
        let heads = match head {
            Some(head) => vec![known(&blueprint, head, path)?],
            None => blueprint.model().heads().map(|(id, _)| id).collect(),
        };
        text += &title(path, &blueprint);
        for id in heads {
            text += &format!("\n{}", picture::head(&blueprint, id));
        }
        text += "\n";
    }
    Ok(Answer::text(text + "one glyph a block: bytes per element, `.` is skipped\n"))
}

/// Model, size and origin on one line, the figures that the file carries on the next.
fn title(path: &Path, blueprint: &Blueprint) -> String {
    let (model, made) = (blueprint.model(), &blueprint.provenance);
    let (heads, modules) = (model.heads().count(), model.modules.len());
    let origin = if made.origin.is_empty() { "unknown origin" } else { &made.origin };
    let mut text = format!(
        "{}: {}, {heads} heads in {modules} attention module{}, density {}, by {origin}\n",
        path.display(),
        model.name,
        if modules == 1 { "" } else { "s" },
        percent(blueprint.density()),
    );
    if let Some(predicted) = &made.predicted {
        text += &format!(
            "predicted on {}: attention {}, {:.2} times as fast as dense\n",
            predicted.device, predicted.seconds, predicted.speedup
        );
    }
    if let Some(accuracy) = &made.accuracy {
        text += &format!(
            "measured on {} {} examples: accuracy {}, dense {}\n",
            accuracy.examples,
            accuracy.split,
            percent(accuracy.masked),
            percent(accuracy.dense)
        );
    }
    text
}

fn parse_head(text: &str) -> Result<HeadId, CliError> {
    let parts = text.split_once('.').and_then(|(module, head)| Some((module.parse().ok()?, head.parse().ok()?)));
    let (module, head) = parts.ok_or_else(|| CliError::HeadText { text: text.into() })?;
    Ok(HeadId { module, head })
}

fn known(blueprint: &Blueprint, head: HeadId, path: &Path) -> Result<HeadId, CliError> {
    let modules = &blueprint.model().modules;
    let allowed = match modules.get(head.module as usize) {
        Some(module) if head.head < module.shape.heads => return Ok(head),
        Some(module) => format!("module {} has heads 0 to {}", head.module, module.shape.heads - 1),
        None => format!("it has modules 0 to {}", modules.len() - 1),
    };
    Err(CliError::NoHead { path: path.into(), module: head.module, head: head.head, allowed })
}

/// A file that is a whole, valid blueprint.
#[derive(Serialize)]
struct Checked {
    file: String,
    model: String,
    digest: String,
    density: f64,
    block_sizes: Vec<u32>,
}

fn check(files: &[PathBuf], json: bool) -> Result<Answer, CliError> {
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for path in files {
        match read_blueprint(path) {
            Ok(blueprint) => right.push(Checked {
                file: path.display().to_string(),
                model: blueprint.model().name.clone(),
                digest: blueprint.digest().to_string(),
                density: blueprint.density(),
                block_sizes: blueprint.block_sizes().into_iter().map(u32::from).collect(),
            }),
            Err(error) => wrong.push(error),
        }
    }
    match wrong.len() {
        0 => {}
        1 => return Err(wrong.remove(0)),
        count => {
            wrong.iter().for_each(diagnosis::print);
            return Err(CliError::WrongFiles { wrong: count, all: files.len() });
        }
    }
    if json {
        return Ok(Answer::json("mask check", &right));
    }
    let line = |of: &Checked| {
        let sizes: Vec<_> = of.block_sizes.iter().map(u32::to_string).collect();
        let (file, density) = (&of.file, percent(of.density));
        format!("ok  {file}: {}, density {density}, blocks of {} tokens\n", of.model, sizes.join(", "))
    };
    Ok(Answer::text(right.iter().map(line).collect::<String>()))
}

/// A blueprint of a library, with the figures that it carries.
#[derive(Serialize)]
struct Listed {
    file: String,
    model: String,
    task: Option<String>,
    device: Option<String>,
    density: f64,
    /// Of attention, *predicted*.
    speedup: Option<f64>,
    /// *Measured*, of [0, 1].
    accuracy_drop: Option<f64>,
}

fn list(folder: &Path, json: bool) -> Result<Answer, CliError> {
    let unreadable = |source| CliError::Read { path: folder.into(), source };
    let mut listed = Vec::new();
    let files = match MaskLibrary::new(folder).files() {
        Err(error) if error.kind() == ErrorKind::NotFound && folder == Path::new(LIBRARY) => Vec::new(),
        files => files.map_err(unreadable)?,
    };
    for file in files {
        let blueprint = read_blueprint(&file)?;
        let (density, model) = (blueprint.density(), blueprint.model().name.clone());
        let made = blueprint.provenance;
        let speedup = made.predicted.as_ref().map(|predicted| predicted.speedup);
        let device = made.predicted.map(|predicted| predicted.device);
        let accuracy_drop = made.accuracy.map(|accuracy| accuracy.drop.0);
        let file = file.display().to_string();
        listed.push(Listed { file, model, task: made.task, device, density, speedup, accuracy_drop });
    }
    if json {
        return Ok(Answer::json("mask list", &listed));
    }
    if listed.is_empty() {
        let folder = folder.display();
        return Ok(Answer::text(format!(
            "no blueprints in {folder}; `maskwright search CONFIG --store` puts one there\n"
        )));
    }
    let known = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let rows = listed.into_iter().map(|of| {
        let (file, density) = (of.file, percent(of.density));
        let (speedup, drop) = (of.speedup.map(times), of.accuracy_drop.map(points));
        [file, of.model, known(of.task), known(of.device), density, known(speedup), known(drop)]
    });
    let headings = ["blueprint", "model", "task", "device", "density", "predicted attention", "drop, points"];
    Ok(Answer::text(text_table(headings, rows) + "\n"))
}
