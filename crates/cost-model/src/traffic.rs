use crate::{Band, HeadWork, machine::Machine};
use maskwright_blueprint::AttentionShape;

/// Bytes of an accumulator of scores that stays on chip.
const SCORE_BYTES: f64 = 4.0;

/// Bytes of one of K and V for a band: each key token at the finest precision that the band needs it at.
pub(crate) fn key_bytes(band: Band, head_dim: u32) -> f64 {
    let [any, half, single] = band.keys.map(f64::from);
    (any + half + 2.0 * single) * f64::from(head_dim)
}

/// Bytes of one of Q and O for a band: each row at its finest precision.
pub(crate) fn query_bytes(head: &HeadWork, head_dim: u32) -> f64 {
    let rows = head.bands[0].iter();
    rows.map(|row| f64::from(row.queries * row.finest().bytes())).sum::<f64>() * f64::from(head_dim)
}

/// Bytes that leave each level, innermost first, when scores never leave the chip (Flash and its kin).
///
/// Out of the innermost level come the operands of every native tile. Out of every other level come Q and O once, and K
/// and V once where they fit the level inside it, else once for each band of queries that fits there.
pub(crate) fn fused(machine: &Machine, head: &HeadWork, shape: &AttentionShape) -> Vec<f64> {
    let queries = 2.0 * query_bytes(head, shape.head_dim);
    let whole = 2.0 * key_bytes(head.whole(), shape.head_dim);
    let operands = |bands: &[Band]| bands.iter().map(|band| 2.0 * key_bytes(*band, shape.head_dim)).sum::<f64>();
    let mut bytes = Vec::with_capacity(machine.levels.len());
    bytes.push(queries + operands(head.bands_of(machine.tile_queries)));
    for inside in &machine.levels[..machine.levels.len() - 1] {
        let keys = if whole + tile_bytes(machine, head, shape, machine.tile_queries) <= inside.core_bytes {
            whole
        } else {
            operands(largest_fitting(machine, head, shape, inside.core_bytes))
        };
        bytes.push(queries + keys);
    }
    bytes
}

/// Q, O and one native tile's scores and keys for a band of `tokens` queries.
pub(crate) fn tile_bytes(machine: &Machine, head: &HeadWork, shape: &AttentionShape, tokens: u32) -> f64 {
    let (tokens, keys) = (f64::from(tokens), f64::from(machine.tile_keys));
    let width = f64::from(head.whole().finest().bytes()) * f64::from(shape.head_dim);
    2.0 * (tokens + keys) * width + tokens * keys * SCORE_BYTES
}

/// The largest bands of which one fits `bytes`, at least a native tile's rows each.
fn largest_fitting<'a>(machine: &Machine, head: &'a HeadWork, shape: &AttentionShape, bytes: f64) -> &'a [Band] {
    let fits = |bands: &&Vec<Band>| tile_bytes(machine, head, shape, bands[0].queries) <= bytes;
    let native = head.bands_of(machine.tile_queries);
    head.bands.iter().rev().find(fits).map(Vec::as_slice).filter(|bands| bands.len() < native.len()).unwrap_or(native)
}
