mod calibrate;

use maskwright_cost_model::DeviceProfile;
use serde::Serialize;

use crate::{answer::Answer, arguments::DeviceCommand, error::CliError, table::text_table};

pub(crate) fn run(command: &DeviceCommand) -> Result<Answer, CliError> {
    match command {
        DeviceCommand::List { json } => list(*json),
        DeviceCommand::Show { device, ron, json } => show(&DeviceProfile::open(device)?, *ron, *json),
        DeviceCommand::Calibrate(arguments) => calibrate::run(arguments),
        DeviceCommand::Check { file } => {
            let device = DeviceProfile::load(file)?;
            let (all, verified) = (device.figures().len(), verified(&device));
            let (file, name) = (file.display(), &device.name);
            Ok(Answer::text(format!("ok  {file}: {name}, {all} figures, {verified} of them verified\n")))
        }
    }
}

/// One profile in the list.
#[derive(Serialize)]
struct Listed {
    name: String,
    summary: String,
    /// Bytes of an element.
    precisions: Vec<u32>,
    modes: Vec<String>,
    figures: usize,
    verified: usize,
}

fn list(json: bool) -> Result<Answer, CliError> {
    let mut all = Vec::new();
    for name in DeviceProfile::names() {
        let device = DeviceProfile::named(name)?;
        all.push(Listed {
            precisions: device.precisions().into_iter().map(u32::from).collect(),
            modes: device.modes.iter().map(|mode| mode.name.clone()).collect(),
            figures: device.figures().len(),
            verified: verified(&device),
            name: device.name,
            summary: device.summary,
        });
    }
    if json {
        return Ok(Answer::json("device list", &all));
    }
    let rows = all.iter().map(|device| {
        let precisions: Vec<_> = device.precisions.iter().map(|bytes| (8 * bytes).to_string()).collect();
        let modes = if device.modes.is_empty() { "-".into() } else { device.modes.join(" ") };
        [
            device.name.clone(),
            precisions.join(" "),
            modes,
            format!("{} of {}", device.verified, device.figures),
            shortened(&device.summary),
        ]
    });
    let table = text_table(["device", "bits", "power modes", "verified", "what it is"], rows);
    Ok(Answer::text(format!("{table}\n`maskwright device show NAME` shows every figure with its source\n")))
}

fn show(device: &DeviceProfile, ron: bool, json: bool) -> Result<Answer, CliError> {
    if ron {
        return Ok(Answer::text(device.to_ron()));
    }
    if json {
        return Ok(Answer::json("device show", device));
    }
    let rows = device.figures().into_iter().map(|(place, figure)| {
        let verified = if figure.verified { "yes" } else { "no" };
        [place, number(figure.value), verified.into(), figure.source.clone()]
    });
    let table = text_table(["figure", "value", "verified", "source"], rows);
    Ok(Answer::text(format!("{}: {}\n\n{table}\n", device.name, device.summary)))
}

/// Whole and plain where that is short, else with an exponent.
fn number(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude == 0.0 || (1e-3..1e6).contains(&magnitude) => value.to_string(),
        _ => format!("{value:e}"),
    }
}

fn verified(device: &DeviceProfile) -> usize {
    device.figures().into_iter().filter(|(_, figure)| figure.verified).count()
}

/// The first clause, or as much of it as a table has room for.
fn shortened(summary: &str) -> String {
    let clause = summary.split([':', ';']).next().unwrap_or(summary).trim_end();
    let clause = match (clause.find(" ("), clause.find(')')) {
        (Some(from), Some(to)) if from < to => clause[..from].to_owned() + &clause[to + 1..],
        _ => clause.to_owned(),
    };
    match clause.char_indices().nth(60) {
        Some((end, _)) => format!("{} ..", clause[..end].rsplit_once(' ').map_or(&clause[..], |(words, _)| words)),
        None => clause,
    }
}
