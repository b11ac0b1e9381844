use std::path::{Path, PathBuf};

use maskwright_blueprint::{AttentionShape, Blueprint, Bytes, Precision};
use maskwright_cost_model::{
    Alternative, Cost, CostError, CostModel, Curve, DeviceProfile, Quantity, Work, curves_to_svg,
};
use serde::Serialize;

use super::{finest, in_blueprint, write_picture};
use crate::{
    answer::Answer,
    arguments::{CostArguments, Drawn},
    bare_shape::in_words,
    error::CliError,
    picture::read_blueprint,
    table::{table, times},
};

/// Shortest length in a picture, and how far the picture goes at least.
const SHORTEST: u32 = 128;
const LONGEST: u32 = 16_384;

/// Ways of saving attention in a stack of equal layers, on one device.
#[derive(Serialize)]
struct Comparison {
    device: String,
    dataflow: String,
    batch: u32,
    shape: AttentionShape,
    layers: u32,
    /// Of everything but the blueprints.
    precision: Precision,
    entries: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    svg: Option<PathBuf>,
}

/// Attention of all layers; accuracy is another matter.
#[derive(Serialize)]
struct Entry {
    name: String,
    #[serde(flatten)]
    cost: Cost,
}

pub(super) fn run(arguments: &CostArguments, device: &DeviceProfile) -> Result<Answer, CliError> {
    let blueprints = arguments.blueprints.iter().map(|path| Ok((path.as_path(), read_blueprint(path)?)));
    let blueprints: Vec<(&Path, Blueprint)> = blueprints.collect::<Result<_, CliError>>()?;
    if arguments.shape.is_some_and(|bare| bare.block_size.is_some()) {
        return Err(CliError::ComparedBlockSize);
    }
    let (shape, layers) = stack(arguments, &blueprints)?;
    let batch = arguments.shape.map_or(arguments.batch, |bare| bare.batch);
    let precision = arguments.shape.and_then(|bare| bare.precision).unwrap_or_else(|| finest(device));
    let model = CostModel::new(device, arguments.dataflow, batch)?;
    let family = Alternative::family(layers);
    let priced = family.iter().map(|alternative| {
        Ok(Entry { name: alternative.name(), cost: model.alternative(alternative, &shape, layers, precision)? })
    });
    let mut entries = priced.collect::<Result<Vec<_>, CostError>>()?;
    let alternatives = entries.len();
    for (path, blueprint) in &blueprints {
        let cost = model.attention(&Work::of(blueprint)).map_err(|error| in_blueprint(path, blueprint, error))?;
        entries.push(Entry { name: path.display().to_string(), cost });
    }
    if let Some(path) = &arguments.svg {
        let mut curves = model.against_tokens(&family, &shape, layers, precision, &lengths(shape.queries))?;
        curves.extend(
            entries[alternatives..]
                .iter()
                .map(|Entry { name, cost }| Curve { name: name.clone(), points: vec![(shape.queries, cost.clone())] }),
        );
        let title = format!("attention of {} on {}, {precision}, batch {batch}", in_layers(layers), device.name);
        write_picture(path, &curves_to_svg(&title, arguments.draw.into(), &curves))?;
    }
    let comparison = Comparison {
        device: device.name.clone(),
        dataflow: arguments.dataflow.to_string(),
        batch,
        shape,
        layers,
        precision,
        entries,
        svg: arguments.svg.clone(),
    };
    match arguments.json {
        true => Ok(Answer::json("cost", &comparison)),
        false => Ok(Answer::text(in_a_table(&comparison))),
    }
}

/// The shape and number of the layers that are compared.
fn stack(arguments: &CostArguments, blueprints: &[(&Path, Blueprint)]) -> Result<(AttentionShape, u32), CliError> {
    let mut layers = None;
    let mut shape = arguments.shape.map(|bare| bare.shape);
    for (path, blueprint) in blueprints {
        let modules = &blueprint.model().modules;
        let expected = *layers.get_or_insert(modules.len());
        if modules.len() != expected {
            return Err(CliError::OtherLayers { path: path.into(), found: modules.len(), expected });
        }
        for module in modules {
            let expected = shape.get_or_insert(module.shape);
            if in_words(expected) != in_words(&module.shape) {
                return Err(CliError::OtherShape {
                    path: path.into(),
                    module: module.name.clone(),
                    found: in_words(&module.shape),
                    expected: in_words(expected),
                });
            }
        }
    }
    let shape = shape.expect("there is a shape or a blueprint, and models have modules");
    Ok((shape, layers.map_or(arguments.layers, |layers| layers as u32)))
}

/// Powers of two on both sides of `tokens`, and `tokens`.
fn lengths(tokens: u32) -> Vec<u32> {
    let mut lengths = vec![tokens];
    let mut length = SHORTEST;
    while length <= LONGEST.max(tokens) {
        lengths.push(length);
        length *= 2;
    }
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

fn in_a_table(comparison: &Comparison) -> String {
    let headings = [
        "\nattention",
        "latency\npredicted",
        "speed-up\npredicted",
        "energy\npredicted",
        "low to high\npredicted",
        "peak power\npredicted",
        "DRAM traffic\npredicted",
        "bandwidth\npredicted",
        "operations\nper byte",
        "predicted\nbound",
    ];
    let Comparison { device, dataflow, batch, shape, layers, precision, entries, svg } = comparison;
    let dense = &entries[0].cost;
    let rows = entries.iter().map(|Entry { name, cost }| {
        [
            name.clone(),
            cost.seconds.to_string(),
            times(dense.seconds / cost.seconds),
            cost.joules.value.to_string(),
            format!("{} to {}", cost.joules.low, cost.joules.high),
            cost.peak_watts.to_string(),
            cost.dram_bytes.to_string(),
            format!("{}/s", Bytes(cost.dram_bytes.0 / cost.seconds.0)),
            format!("{:.1}", cost.operations_per_byte),
            cost.bound.to_string(),
        ]
    });
    let drawn = svg.as_ref().map_or(String::new(), |svg| format!("\ncost over tokens, predicted: {}\n", svg.display()));
    format!(
        "{}\n\nattention of {}, {}, on {device}, batch {batch}, {dataflow} dataflow, {precision} but for \
         blueprints;\nnothing here is measured, and accuracy is not predicted\n{drawn}",
        table(headings, rows),
        in_layers(*layers),
        in_words(shape)
    )
}

fn in_layers(layers: u32) -> String {
    if layers == 1 { "1 layer".into() } else { format!("{layers} layers") }
}

impl From<Drawn> for Quantity {
    fn from(drawn: Drawn) -> Self {
        match drawn {
            Drawn::Time => Self::Seconds,
            Drawn::Energy => Self::Joules,
            Drawn::DramTraffic => Self::DramBytes,
        }
    }
}
