use std::path::{Path, PathBuf};

use maskwright_blueprint::{BlockSize, Blueprint, Measured, Seconds};
use maskwright_cost_model::{Cost, CostModel, DeviceProfile, Work};
use serde::Serialize;

use super::{columns::costs, draw_timeline, finest, in_blueprint, measured, one};
use crate::{
    answer::Answer,
    arguments::CostArguments,
    error::CliError,
    picture::read_blueprint,
    table::{percent, table, times},
};

/// One blueprint on one device, beside the dense model at the device's finest precision.
#[derive(Serialize)]
struct Priced {
    blueprint: PathBuf,
    device: String,
    dataflow: String,
    batch: u32,
    density: f64,
    attention_speedup: f64,
    end_to_end_speedup: f64,
    attention: Cost,
    end_to_end: Cost,
    dense_attention: Cost,
    dense_end_to_end: Cost,
    /// Attention of all modules on this machine, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<Measured>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<PathBuf>,
}

pub(super) fn run(arguments: &CostArguments, devices: &[DeviceProfile]) -> Result<Answer, CliError> {
    if arguments.timeline.is_some() {
        one(devices, "`--timeline`")?;
        if arguments.blueprints.len() > 1 {
            return Err(CliError::Blueprints { found: arguments.blueprints.len() });
        }
    }
    if arguments.measure {
        one(devices, "`--measure`")?;
    }
    let mut all = Vec::new();
    let mut tables = String::new();
    for path in &arguments.blueprints {
        let blueprint = read_blueprint(path)?;
        let priced = devices.iter().map(|device| price(path, &blueprint, device, arguments));
        let priced: Vec<Priced> = priced.collect::<Result<_, _>>()?;
        tables += &in_tables(path, &priced);
        if let (Some(found), true) = (priced.first().and_then(|of| of.measured.clone()), arguments.record) {
            measured::record(path, blueprint.clone(), found)?;
        }
        if let Some(timeline) = &arguments.timeline {
            let module = &blueprint.model().modules[0].name;
            tables += &format!("what the units do when in {module}, predicted: {}\n\n", timeline.display());
        }
        all.extend(priced);
    }
    if arguments.json {
        return Ok(Answer::json("cost", &all));
    }
    let measured = if arguments.measure {
        "predictions are for this machine, measurements from it: the middle one of the least disturbed calls, summed over modules, inputs in the caches"
    } else {
        "nothing here is measured"
    };
    let note = format!(
        "{} dataflow, batch {}; dense is every block at the device's finest precision; {measured}",
        arguments.dataflow, arguments.batch
    );
    Ok(Answer::text(format!("{tables}{note}\n")))
}

/// One blueprint on all devices: attention, and the whole model apart from it.
fn in_tables(path: &Path, priced: &[Priced]) -> String {
    let of = |pick: fn(&Priced) -> [&Cost; 2]| {
        priced.iter().flat_map(move |priced| {
            let [cost, dense] = pick(priced);
            let Priced { device, density, .. } = priced;
            let sparse = format!("{device}: density {}", percent(*density));
            [(format!("{device}: dense"), dense, dense), (sparse, cost, dense)]
        })
    };
    let attention = costs("attention", of(|priced| [&priced.attention, &priced.dense_attention]));
    let end_to_end = costs("end to end", of(|priced| [&priced.end_to_end, &priced.dense_end_to_end]));
    let mut text = format!("{}\n\n{attention}\n\n{end_to_end}\n\n", path.display());
    if let Some((priced, measured)) = priced.iter().find_map(|of| Some((of, of.measured.as_ref()?))) {
        text += &format!("{}\n\n", side_by_side(priced, measured));
    }
    text
}

/// What was predicted of this machine, beside what it did.
fn side_by_side(priced: &Priced, measured: &Measured) -> String {
    let row = |name: String, predicted: Seconds, measured: Seconds, speedups: [f64; 2]| {
        let off = format!("{:+.1} %", 100.0 * (predicted / measured - 1.0));
        let [predicted_speedup, measured_speedup] = speedups.map(times);
        [name, predicted.to_string(), measured.to_string(), off, predicted_speedup, measured_speedup]
    };
    let dense = measured.seconds * measured.speedup;
    let rows = [
        row("dense".into(), priced.dense_attention.seconds, dense, [1.0, 1.0]),
        row(
            format!("density {}", percent(priced.density)),
            priced.attention.seconds,
            measured.seconds,
            [priced.attention_speedup, measured.speedup],
        ),
    ];
    let attention = format!("attention, {} thread(s)\nkernel {}", measured.threads, measured.kernel);
    let headings =
        [&attention, "time\npredicted", "time\nmeasured", "\ndifference", "speed-up\npredicted", "speed-up\nmeasured"];
    table(headings, rows)
}

fn price(
    path: &Path,
    blueprint: &Blueprint,
    device: &DeviceProfile,
    arguments: &CostArguments,
) -> Result<Priced, CliError> {
    let model = CostModel::new(device, arguments.dataflow, arguments.batch)?;
    let dense = Work::of(&Blueprint::dense(blueprint.model().clone(), BlockSize::B32, finest(device)));
    let work = Work::of(blueprint).with_softmax(arguments.softmax.into());
    let attention = model.attention(&work).map_err(|error| in_blueprint(path, blueprint, error))?;
    let end_to_end = model.end_to_end(&work)?;
    let (dense_attention, dense_end_to_end) = (model.attention(&dense)?, model.end_to_end(&dense)?);
    if let Some(timeline) = &arguments.timeline {
        draw_timeline(&model, &work.modules[0], timeline)?;
    }
    let measured = match arguments.measure {
        true => Some(measured::measure(blueprint, device, arguments)?),
        false => None,
    };
    Ok(Priced {
        measured,
        blueprint: path.into(),
        device: device.name.clone(),
        dataflow: arguments.dataflow.to_string(),
        batch: arguments.batch,
        density: blueprint.density(),
        attention_speedup: dense_attention.seconds / attention.seconds,
        end_to_end_speedup: dense_end_to_end.seconds / end_to_end.seconds,
        attention,
        end_to_end,
        dense_attention,
        dense_end_to_end,
        timeline: arguments.timeline.clone(),
    })
}
