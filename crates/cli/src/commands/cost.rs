use std::path::{Path, PathBuf};

use maskwright_blueprint::{BlockSize, Blueprint, Precision};
use maskwright_cost_model::{Cost, CostError, CostModel, DeviceProfile, Work};
use serde::Serialize;

use crate::{
    answer::Answer,
    arguments::CostArguments,
    commands::device::profile,
    error::CliError,
    picture::read_blueprint,
    table::{percent, table, times},
};

/// One blueprint on one device.
#[derive(Serialize)]
struct Priced {
    blueprint: PathBuf,
    device: String,
    dataflow: String,
    batch: u32,
    density: f64,
    /// Dense attention at the device's finest precision over this blueprint's.
    attention_speedup: f64,
    end_to_end_speedup: f64,
    attention: Cost,
    end_to_end: Cost,
}

pub(crate) fn run(arguments: &CostArguments) -> Result<Answer, CliError> {
    let devices: Vec<DeviceProfile> = arguments.devices.iter().map(|name| profile(name)).collect::<Result<_, _>>()?;
    let mut all = Vec::new();
    for path in &arguments.blueprints {
        let blueprint = read_blueprint(path)?;
        for device in &devices {
            all.push(price(path, &blueprint, device, arguments)?);
        }
    }
    if arguments.json {
        return Ok(Answer::json("cost", &all));
    }
    let headings = [
        "\nblueprint",
        "\ndevice",
        "\ndensity",
        "attention\npredicted",
        "speed-up\npredicted",
        "end to end\npredicted",
        "energy\npredicted",
        "low to high\npredicted",
        "\nattention is",
    ];
    let rows = all.iter().map(|priced| {
        let joules = priced.attention.joules;
        [
            priced.blueprint.display().to_string(),
            priced.device.clone(),
            percent(priced.density),
            priced.attention.seconds.to_string(),
            times(priced.attention_speedup),
            times(priced.end_to_end_speedup),
            joules.value.to_string(),
            format!("{} to {}", joules.low, joules.high),
            priced.attention.bound.to_string(),
        ]
    });
    let note = format!(
        "{} dataflow, batch {}; speed-ups against dense attention at the device's finest precision; nothing here is \
         measured",
        arguments.dataflow, arguments.batch
    );
    Ok(Answer::text(format!("{}\n{note}\n", table(headings, rows))))
}

fn price(
    path: &Path,
    blueprint: &Blueprint,
    device: &DeviceProfile,
    arguments: &CostArguments,
) -> Result<Priced, CostError> {
    let model = CostModel::new(device, arguments.dataflow, arguments.batch)?;
    let finest = device.precisions().into_iter().max().unwrap_or(Precision::Single);
    let dense = Work::of(&Blueprint::dense(blueprint.model().clone(), BlockSize::B32, finest));
    let work = Work::of(blueprint);
    let (attention, end_to_end) = (model.attention(&work)?, model.end_to_end(&work)?);
    Ok(Priced {
        blueprint: path.into(),
        device: device.name.clone(),
        dataflow: arguments.dataflow.to_string(),
        batch: arguments.batch,
        density: blueprint.density(),
        attention_speedup: model.attention(&dense)?.seconds / attention.seconds,
        end_to_end_speedup: model.end_to_end(&dense)?.seconds / end_to_end.seconds,
        attention,
        end_to_end,
    })
}
