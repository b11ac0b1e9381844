mod bare;
mod blueprints;
mod columns;
mod compare;
mod measured;

use std::path::Path;

use maskwright_blueprint::{Blueprint, Precision, write_whole};
use maskwright_cost_model::{CostError, CostModel, DeviceProfile, ModuleWork, Softmax};

use crate::{
    answer::Answer,
    arguments::{CostArguments, SoftmaxOf8Bit},
    error::CliError,
};

pub(crate) fn run(arguments: &CostArguments) -> Result<Answer, CliError> {
    let devices: Vec<DeviceProfile> =
        arguments.devices.iter().map(|name| DeviceProfile::open(name)).collect::<Result<_, _>>()?;
    match &arguments.shape {
        _ if arguments.compare => compare::run(arguments, one(&devices, "`--compare`")?),
        Some(_) if !arguments.blueprints.is_empty() => Err(CliError::BlueprintsAndShape),
        Some(bare) => bare::run(arguments, bare, &devices),
        None => blueprints::run(arguments, &devices),
    }
}

fn one<'a>(devices: &'a [DeviceProfile], option: &'static str) -> Result<&'a DeviceProfile, CliError> {
    match devices {
        [device] => Ok(device),
        _ => Err(CliError::Devices { option, found: devices.len() }),
    }
}

fn finest(device: &DeviceProfile) -> Precision {
    device.precisions().into_iter().max().expect("a profile that was read computes at one precision at least")
}

/// The error with the place of the first block that the device cannot compute.
fn in_blueprint(path: &Path, blueprint: &Blueprint, source: CostError) -> CliError {
    let CostError::Precision { precision: lacking, .. } = &source else { return source.into() };
    let mut heads = blueprint.model().heads();
    let place = heads.find_map(|(head, _)| {
        let mut active = blueprint.mask(head).blocks.active();
        active.find(|(.., precision)| precision == lacking).map(|(row, column, _)| (head, row, column))
    });
    match place {
        Some((head, row, column)) => {
            CliError::BlockPrecision { path: path.into(), head, row, column, source: source.into() }
        }
        None => source.into(),
    }
}

fn draw_timeline(model: &CostModel, module: &ModuleWork, path: &Path) -> Result<(), CliError> {
    write_picture(path, &model.timeline(module)?.to_svg())
}

fn write_picture(path: &Path, svg: &str) -> Result<(), CliError> {
    write_whole(path, svg.as_bytes()).map_err(|source| CliError::Write { path: path.into(), source })
}

impl From<SoftmaxOf8Bit> for Softmax {
    fn from(of: SoftmaxOf8Bit) -> Self {
        match of {
            SoftmaxOf8Bit::Float => Self::Float,
            SoftmaxOf8Bit::Integer => Self::Integer,
        }
    }
}
