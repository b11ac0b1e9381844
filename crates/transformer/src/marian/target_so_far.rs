use burn::tensor::{Int, Tensor};

use super::Marian;
use crate::{
    Attention, CompiledMasks,
    attention::{Context, split_heads},
    masked_attention::NextQuery,
    projection::project,
};

/// What decoding keeps of its targets, so that each step computes one token of each instead of all of them.
///
/// Rows are partial translations; every tensor has one entry for each.
pub(super) struct TargetSoFar<'a> {
    masks: Option<&'a CompiledMasks>,
    /// Of each target; all are equally long.
    tokens: usize,
    /// `[rows, source tokens]`, 0 for padding.
    real: Tensor<2>,
    layers: Vec<LayerSoFar>,
}

/// One layer's keys and values, `[rows, heads, tokens, head_dim]`, and how large its queries were.
struct LayerSoFar {
    /// Keys and values of the target's tokens, once there are any.
    target: Option<[Tensor<4>; 2]>,
    /// Keys and values of the source.
    source: [Tensor<4>; 2],
    /// The largest magnitude in any query of either attention so far, `[rows, heads, 1, 1]`: it sets the scale of 8-bit
    /// queries.
    largest: [Option<Tensor<4>>; 2],
}

impl<'a> TargetSoFar<'a> {
    /// Empty targets for sources that were encoded, one row each.
    pub(super) fn new(model: &Marian, encoded: &Tensor<3>, real: &Tensor<2>, masks: Option<&'a CompiledMasks>) -> Self {
        let heads = model.config.decoder.heads as usize;
        let layers = model.decoder.iter().map(|layer| LayerSoFar {
            target: None,
            source: layer.cross_attention.keys_values(encoded.clone(), heads),
            largest: [None, None],
        });
        Self { masks, tokens: 0, real: real.clone(), layers: layers.collect() }
    }

    /// Makes the rows `rows` of the step before the rows of the next one.
    pub(super) fn continue_from(&mut self, rows: &[usize]) {
        if rows.len() == self.real.dims()[0] && rows.iter().enumerate().all(|(at, row)| at == *row) {
            return;
        }
        let rows: Vec<i32> = rows.iter().map(|row| *row as i32).collect();
        let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &self.real.device());
        let select = |of: &mut Tensor<4>| *of = of.clone().select(0, rows.clone());
        for layer in &mut self.layers {
            let kept = layer.target.iter_mut().flatten().chain(&mut layer.source);
            kept.chain(layer.largest.iter_mut().flatten()).for_each(select);
        }
        self.real = self.real.clone().select(0, rows);
    }

    /// Adds one token to each target: scores of every word after it, `[rows, vocabulary]`.
    pub(super) fn push(&mut self, model: &Marian, tokens: Tensor<1, Int>) -> Tensor<2> {
        let position = self.tokens;
        self.tokens += 1;
        let (heads, masks) = (model.config.decoder.heads as usize, self.masks);
        let padding = Context::crossing(self.real.clone(), &Context::default());
        let mut x = model.embed(tokens.unsqueeze_dim(1), position); // [rows, 1, width]
        for ((at, layer), so_far) in model.decoder.iter().enumerate().zip(&mut self.layers) {
            let module = model.encoder.len() + 2 * at;
            let attend =
                |module, q, largest: &mut Option<Tensor<4>>, [k, v]: [Tensor<4>; 2], context: &Context| match masks {
                    None => Attention::Dense.attend(module, q, k, v, context),
                    Some(masks) => {
                        let next = NextQuery::new(q, position, largest);
                        masks.attend_next(module, next, k, v, context)
                    }
                };
            let [own, cross] = &mut so_far.largest;

            let [k, v] = layer.attention.keys_values(x.clone(), heads);
            let memory = match so_far.target.take() {
                Some([keys, values]) => [Tensor::cat(vec![keys, k], 2), Tensor::cat(vec![values, v], 2)],
                None => [k, v],
            };
            so_far.target = Some(memory.clone());
            let q = split_heads(project(&layer.attention.query, x.clone()), heads);
            x = layer.attention.add(x, attend(module, q, own, memory, &Context::default()));

            let q = split_heads(project(&layer.cross_attention.query, x.clone()), heads);
            x = layer.cross_attention.add(x, attend(module + 1, q, cross, so_far.source.clone(), &padding));
            x = layer.feed_forward.forward(x, model.config.activation);
        }
        model.score(x, None)
    }
}
