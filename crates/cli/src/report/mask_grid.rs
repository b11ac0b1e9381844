use std::fmt::Write;

use maskwright_blueprint::{AttentionShape, BlockSize, Blueprint, HeadMask, Precision};

use crate::{picture, report::page::escaped};

/// Finer grids have no lines between blocks: they would cover the blocks.
const MOST_LINES: usize = 24;

/// All heads of a blueprint as small grids, module by module.
pub(crate) fn mask_grids(blueprint: &Blueprint) -> String {
    let mut html = String::new();
    let mut module = None;
    for (id, shape) in blueprint.model().heads() {
        if module != Some(id.module) {
            html += if module.is_some() { "</div>\n" } else { "" };
            let name = escaped(&blueprint.model().modules[id.module as usize].name);
            html += &format!("<h3>Module {}: <code>{name}</code></h3>\n<div class=\"masks\">\n", id.module);
            module = Some(id.module);
        }
        let mask = blueprint.mask(id);
        let density = 100.0 * mask.active_scores(shape) as f64 / shape.scores() as f64;
        html += &format!(
            "<figure>{}<figcaption><b>head {}</b> density {density:.1} %<br>{}-token blocks</figcaption></figure>\n",
            grid(mask, shape, &picture::caption(id, mask, shape)),
            id.head,
            mask.block_size,
        );
    }
    html + "</div>\n"
}

/// One head's mask in units of tokens, so that ragged edges are as narrow as they are.
fn grid(mask: &HeadMask, shape: &AttentionShape, title: &str) -> String {
    let AttentionShape { queries, keys, .. } = *shape;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {keys} {queries}\" role=\"img\"><title>{}</title><rect class=\"skipped\" width=\"{keys}\" \
         height=\"{queries}\"/>",
        escaped(title)
    );
    for precision in Precision::ALL {
        let path = runs(mask, shape, precision);
        if !path.is_empty() {
            write!(svg, "<path class=\"bytes-{}\" d=\"{path}\"/>", precision.bytes())
                .expect("a string takes every text");
        }
    }
    if mask.blocks.rows().max(mask.blocks.columns()) <= MOST_LINES {
        svg += &format!("<path class=\"lattice\" d=\"{}\"/>", lattice(mask.block_size, shape));
    }
    svg + "</svg>"
}

/// The blocks of one precision as an SVG path, neighbours in a row drawn as one.
fn runs(mask: &HeadMask, shape: &AttentionShape, precision: Precision) -> String {
    let side = mask.block_size.tokens();
    let mut path = String::new();
    for row in 0..mask.blocks.rows() {
        let (y, height) = (row as u32 * side, mask.block_size.extent(row as u32, shape.queries));
        let mut x = 0;
        for run in mask.blocks.row(row).chunk_by(|a, b| a == b) {
            let end = (x + run.len() as u32 * side).min(shape.keys);
            if run[0] == Some(precision) {
                write!(path, "M{x} {y}h{}v{height}H{x}z", end - x).expect("a string takes every text");
            }
            x = end;
        }
    }
    path
}

/// Lines between blocks.
fn lattice(size: BlockSize, shape: &AttentionShape) -> String {
    let lines = |tokens: u32| (1..size.cover(tokens)).map(move |at| at * size.tokens());
    let rows = lines(shape.queries).map(|y| format!("M0 {y}H{}", shape.keys));
    let columns = lines(shape.keys).map(|x| format!("M{x} 0V{}", shape.queries));
    rows.chain(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use maskwright_blueprint::AttentionKind;

    #[test]
    fn a_ragged_edge_is_as_narrow_as_its_tokens() {
        let shape = AttentionShape {
            kind: AttentionKind::SelfAttention,
            heads: 1,
            queries: 20,
            keys: 20,
            head_dim: 8,
            windows: 1,
        };
        let mask = HeadMask { block_size: BlockSize::B16, blocks: "44\n1.".parse().expect("a mask") };
        assert_eq!(runs(&mask, &shape, Precision::Single), "M0 0h20v16H0z");
        assert_eq!(runs(&mask, &shape, Precision::Int8), "M0 16h16v4H0z");
        assert_eq!(lattice(BlockSize::B16, &shape), "M0 16H20M16 0V20");
    }
}
