use std::path::Path;

use maskwright_blueprint::{AttentionShape, Blueprint, HeadId, HeadMask};

use crate::error::CliError;

/// Reads a blueprint; a name that ends in `.safetensors` says that it has that form, any other is RON.
pub(crate) fn read_blueprint(path: &Path) -> Result<Blueprint, CliError> {
    match path.extension().is_some_and(|ending| ending == "safetensors") {
        true => Ok(Blueprint::load_safetensors(path)?),
        false => Ok(Blueprint::load(path)?),
    }
}

/// One head's mask in glyphs, under a caption that says how to read it.
pub(crate) fn head(blueprint: &Blueprint, id: HeadId) -> String {
    let shape = &blueprint.model().modules[id.module as usize].shape;
    let mask = blueprint.mask(id);
    format!("{}\n{}\n", caption(id, mask, shape), mask.blocks)
}

/// `module 0 head 3: 16-token blocks, 65 x 65 tokens, density 0.33`.
pub(crate) fn caption(id: HeadId, mask: &HeadMask, shape: &AttentionShape) -> String {
    let density = mask.active_scores(shape) as f64 / shape.scores() as f64;
    let AttentionShape { queries, keys, .. } = shape;
    format!("{id}: {}-token blocks, {queries} x {keys} tokens, density {density:.2}", mask.block_size)
}

/// The head whose mask shows most: of those that use both skipped blocks and several precisions, or else the first, the
/// one nearest to half density.
pub(crate) fn telling_head(blueprint: &Blueprint) -> HeadId {
    let unevenness = |(id, shape): &(HeadId, &AttentionShape)| {
        let mask = blueprint.mask(*id);
        let density = mask.active_scores(shape) as f64 / shape.scores() as f64;
        let mut precisions: Vec<_> = mask.blocks.active().map(|(.., precision)| precision).collect();
        precisions.sort_unstable();
        precisions.dedup();
        (density - 0.5).abs() - 0.25 * precisions.len() as f64
    };
    let heads = blueprint.model().heads();
    let telling = heads.min_by(|a, b| unevenness(a).total_cmp(&unevenness(b)));
    telling.map_or(HeadId { module: 0, head: 0 }, |(id, _)| id)
}
