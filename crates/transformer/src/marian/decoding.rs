use burn::tensor::{Int, Tensor, activation::log_softmax};

use super::{Marian, target_so_far::TargetSoFar};
use crate::{Attention, CompiledMasks};

/// How a translation is searched for.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoding {
    /// Partial translations that are kept at each step; 1 is greedy decoding.
    pub beams: usize,
    /// Tokens of the longest translation, the end included; at most the length of the blueprint's masks.
    pub longest: usize,
    /// A finished translation's log-probability is divided by the number of its tokens to this power: 0 prefers short
    /// translations, 1 is the mean over tokens.
    pub length_penalty: f64,
}

/// A partial translation.
#[derive(Debug, Clone)]
struct Beam {
    tokens: Vec<u32>,
    log_probability: f64,
    /// Its row in the step that it comes from.
    row: usize,
}

/// One sentence's search.
struct Search {
    running: Vec<Beam>,
    /// Finished translations with their scores, best first, at most as many as there are beams.
    finished: Vec<(Vec<u32>, f64)>,
}

impl Marian {
    /// Translates sentences `[batch, source tokens]` (`real` is 1 for each token that is no padding), under a
    /// blueprint's masks or dense: each translation's tokens, without start and end.
    ///
    /// Beam search as in Marian and the transformers library with early stopping: a sentence is done when as many
    /// translations are finished as there are beams, or when the longest length is reached. Each step computes one token
    /// of each target: keys and values of the earlier ones are kept.
    pub fn translate(
        &self,
        source: Tensor<2, Int>,
        real: &Tensor<2>,
        masks: Option<&CompiledMasks>,
        decoding: &Decoding,
    ) -> Vec<Vec<u32>> {
        let encoded = self.encode(source, real, &mut masks.map_or(Attention::Dense, Attention::Masked));
        let mut so_far = TargetSoFar::new(self, &encoded, real, masks);
        let search = |row| {
            let start = Beam { tokens: vec![self.config.start], log_probability: 0.0, row };
            Search { running: vec![start], finished: Vec::new() }
        };
        let mut searches: Vec<Search> = (0..real.dims()[0]).map(search).collect();
        for length in 1..=decoding.longest {
            // Every running beam of every sentence is one row.
            let running = || searches.iter().flat_map(|search| &search.running);
            let rows: Vec<usize> = running().map(|beam| beam.row).collect();
            if rows.is_empty() {
                break;
            }
            let last: Vec<i32> = running().map(|beam| beam.tokens[length - 1] as i32).collect();
            so_far.continue_from(&rows);
            let scores = so_far.push(self, Tensor::<1, Int>::from_data(last.as_slice(), &encoded.device()));
            let next: Vec<f32> = log_softmax(scores, 1).into_data().try_to_vec().expect("scores are f32");
            let mut next = next.chunks(self.config.vocabulary as usize).enumerate(); // by row
            for search in &mut searches {
                let beams: Vec<(Beam, &[f32])> = search
                    .running
                    .drain(..)
                    .zip(&mut next)
                    .map(|(beam, (row, words))| (Beam { row, ..beam }, words))
                    .collect();
                if !beams.is_empty() {
                    self.advance(search, &beams, length, decoding);
                }
            }
        }
        let best = |search: Search| search.finished.into_iter().next().map(|(tokens, _)| tokens).unwrap_or_default();
        searches.into_iter().map(best).collect()
    }

    /// One step of one sentence: `beams` with the log-probabilities of their next words, of which there are `length`
    /// then.
    fn advance(&self, search: &mut Search, beams: &[(Beam, &[f32])], length: usize, decoding: &Decoding) {
        let finish = |beam: &Beam, log_probability: f64| {
            (beam.tokens[1..].to_vec(), log_probability / (length as f64).powf(decoding.length_penalty))
        };
        if length == decoding.longest {
            // Whatever is still running ends here, at no cost.
            search.finished.extend(beams.iter().map(|(beam, _)| finish(beam, beam.log_probability)));
        } else {
            for (rank, (beam, word, log_probability)) in
                self.candidates(beams, 2 * decoding.beams).into_iter().enumerate()
            {
                if word == self.config.end {
                    if rank < decoding.beams {
                        search.finished.push(finish(beam, log_probability));
                    }
                } else if search.running.len() < decoding.beams {
                    let tokens = beam.tokens.iter().copied().chain([word]).collect();
                    search.running.push(Beam { tokens, log_probability, row: beam.row });
                }
            }
        }
        search.finished.sort_by(|a, b| b.1.total_cmp(&a.1)); // stable: of equals the earlier stays first
        search.finished.truncate(decoding.beams);
        if search.finished.len() == decoding.beams {
            search.running.clear();
        }
    }

    /// The `count` likeliest continuations of all beams by one word, likeliest first.
    fn candidates<'a>(&self, beams: &'a [(Beam, &[f32])], count: usize) -> Vec<(&'a Beam, u32, f64)> {
        let mut candidates: Vec<(&Beam, u32, f64)> = beams
            .iter()
            .flat_map(|(beam, words)| {
                let continued =
                    move |(word, log): (usize, &f32)| (beam, word as u32, beam.log_probability + f64::from(*log));
                words.iter().enumerate().map(continued)
            })
            .filter(|(_, word, _)| *word != self.config.padding)
            .collect();
        let order = |a: &(&Beam, u32, f64), b: &(&Beam, u32, f64)| b.2.total_cmp(&a.2);
        if candidates.len() > count {
            candidates.select_nth_unstable_by(count, order);
            candidates.truncate(count);
        }
        candidates.sort_by(|a, b| order(a, b).then(a.1.cmp(&b.1)));
        candidates
    }
}
