use std::path::PathBuf;

use maskwright_blueprint::{AttentionShape, BlockSize, Precision};
use maskwright_cost_model::{Cost, CostModel, DeviceProfile, Softmax, Work};
use serde::Serialize;

use super::{columns::costs, draw_timeline, finest, one};
use crate::{
    answer::Answer,
    arguments::CostArguments,
    bare_shape::{BareShape, in_words},
    error::CliError,
};

/// One attention module without a model around it, on one device.
#[derive(Serialize)]
struct Bare {
    #[serde(flatten)]
    cost: Cost,
    device: String,
    dataflow: String,
    batch: u32,
    shape: AttentionShape,
    precision: Precision,
    block_size: BlockSize,
    softmax: Softmax,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<PathBuf>,
}

pub(super) fn run(arguments: &CostArguments, bare: &BareShape, devices: &[DeviceProfile]) -> Result<Answer, CliError> {
    if arguments.json {
        return Ok(Answer::json("cost", &price(bare, one(devices, "`--shape` with `--json`")?, arguments)?));
    }
    if arguments.timeline.is_some() {
        one(devices, "`--timeline`")?;
    }
    let all: Vec<Bare> = devices.iter().map(|device| price(bare, device, arguments)).collect::<Result<_, _>>()?;
    let rows = all.iter().map(|priced| {
        let Bare { device, precision, cost, .. } = priced;
        (format!("{device}, {precision}"), cost, &all[0].cost)
    });
    let table = costs("dense attention", rows);
    let mut note = format!(
        "{}, batch {}, {} dataflow; nothing here is measured\n",
        in_words(&bare.shape),
        bare.batch,
        arguments.dataflow
    );
    if let Some(timeline) = &arguments.timeline {
        note += &format!("\nwhat the units do when, predicted: {}\n", timeline.display());
    }
    Ok(Answer::text(format!("{table}\n\n{note}")))
}

fn price(bare: &BareShape, device: &DeviceProfile, arguments: &CostArguments) -> Result<Bare, CliError> {
    let model = CostModel::new(device, arguments.dataflow, bare.batch)?;
    let precision = bare.precision.unwrap_or_else(|| finest(device));
    let block_size = bare.block_size.unwrap_or(BlockSize::B32);
    let softmax = arguments.softmax.into();
    let work = Work::bare(&bare.shape, block_size, precision)?.with_softmax(softmax);
    let cost = model.attention(&work)?;
    if let Some(timeline) = &arguments.timeline {
        draw_timeline(&model, &work.modules[0], timeline)?;
    }
    Ok(Bare {
        cost,
        device: device.name.clone(),
        dataflow: arguments.dataflow.to_string(),
        batch: bare.batch,
        shape: bare.shape,
        precision,
        block_size,
        softmax,
        timeline: arguments.timeline.clone(),
    })
}
