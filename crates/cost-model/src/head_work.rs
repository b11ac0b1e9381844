use maskwright_blueprint::{AttentionShape, BlockSize, HeadMask, Precision};

/// What one head computes under its mask: counts only, nothing of a device. Blocks that causality empties are none of it; one on the
/// diagonal is computed whole.
///
/// Bands of 1, 2, 4, ... block rows say which keys a device touches that computes so many rows at once. Adding a block or
/// raising a precision never lowers any count here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadWork {
    pub block_size: BlockSize,
    /// Active blocks, in the order of [`Precision::ALL`].
    pub blocks: [u64; 3],
    /// Active scores by precision; ragged edges counted exactly.
    pub scores: [u64; 3],
    /// `bands[k]`: the head cut into bands of `2^k` block rows; the last level is one band.
    pub bands: Vec<Vec<Band>>,
}

/// Some neighbouring block rows of one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Band {
    /// Query tokens.
    pub queries: u32,
    /// Key tokens that some row needs: at any precision, at 16 bit or finer, at 32 bit. Never increasing.
    pub keys: [u32; 3],
}

impl Band {
    /// Key tokens by the finest precision that some row of the band needs them at.
    pub const fn keys_by_precision(&self) -> [u32; 3] {
        let [any, half, single] = self.keys;
        [any - half, half - single, single]
    }

    /// The finest precision in the band.
    pub const fn finest(&self) -> Precision {
        match self.keys {
            [_, 0, 0] => Precision::Int8,
            [_, _, 0] => Precision::Half,
            _ => Precision::Single,
        }
    }
}

impl HeadWork {
    /// Counts one mask. The mask must fit `shape`, as every mask of a [`maskwright_blueprint::Blueprint`] does.
    pub fn of(mask: &HeadMask, shape: &AttentionShape) -> Self {
        let (size, grid) = (mask.block_size, &mask.blocks);
        let (rows, columns) = (grid.rows(), grid.columns());
        let words = columns.div_ceil(64);
        let last_key = size.extent(columns as u32 - 1, shape.keys);
        let (mut blocks, mut scores) = ([0; 3], [0; 3]);
        // [row][precision or finer][words]
        let mut bits = vec![0u64; rows * 3 * words];
        for row in 0..rows {
            let queries = u64::from(size.extent(row as u32, shape.queries));
            let row_bits = &mut bits[row * 3 * words..(row + 1) * 3 * words];
            let mut at_least = [0u64; 3];
            let seen = &grid.row(row)[..shape.kind.columns_of(row, columns)];
            for (word, cells) in seen.chunks(64).enumerate() {
                let mut levels = [0u64; 3];
                for (bit, cell) in cells.iter().enumerate() {
                    let active = cell.map_or(0, |precision| precision.index() + 1);
                    for (level, bits) in levels.iter_mut().enumerate() {
                        *bits |= u64::from(active > level) << bit;
                    }
                }
                for (level, bits) in levels.into_iter().enumerate() {
                    row_bits[level * words + word] = bits;
                    at_least[level] += u64::from(bits.count_ones());
                }
            }
            let [any, half, single] = at_least;
            let in_row = [any - half, half - single, single];
            let missing = u64::from(size.tokens() - last_key);
            let at_edge = seen.get(columns - 1).copied().flatten();
            for precision in Precision::ALL {
                let count = in_row[precision.index()];
                let ragged = if at_edge == Some(precision) { missing } else { 0 };
                blocks[precision.index()] += count;
                scores[precision.index()] += queries * (count * u64::from(size.tokens()) - ragged);
            }
        }
        let keys_of = |bits: &[u64]| {
            let count: u32 = bits.iter().map(|word| word.count_ones()).sum();
            let edge = bits[(columns - 1) / 64] >> ((columns - 1) % 64) & 1;
            count * size.tokens() - edge as u32 * (size.tokens() - last_key)
        };
        let mut bands: Vec<Vec<Band>> = Vec::new();
        let mut queries: Vec<u32> = (0..rows).map(|row| size.extent(row as u32, shape.queries)).collect();
        loop {
            let level = queries.iter().enumerate().map(|(at, &queries)| {
                let band = &bits[at * 3 * words..(at + 1) * 3 * words];
                let mut keys = band.chunks(words).map(keys_of);
                Band { queries, keys: [(); 3].map(|()| keys.next().expect("three precisions")) }
            });
            bands.push(level.collect());
            if queries.len() == 1 {
                return Self { block_size: size, blocks, scores, bands };
            }
            queries = queries.chunks(2).map(|pair| pair.iter().sum()).collect();
            bits = bits
                .chunks(2 * 3 * words)
                .flat_map(|pair| {
                    let (first, second) = pair.split_at(3 * words);
                    (0..3 * words).map(move |at| first[at] | second.get(at).copied().unwrap_or(0))
                })
                .collect();
        }
    }

    /// Every block active at one precision, without a mask in memory.
    ///
    /// # Panics
    /// When `shape` has no query or no key.
    pub fn dense(shape: &AttentionShape, size: BlockSize, precision: Precision) -> Self {
        let (rows, columns) = (size.cover(shape.queries), size.cover(shape.keys));
        assert!(rows > 0 && columns > 0, "a head has at least one query and one key");
        let (mut blocks, mut scores) = ([0; 3], [0; 3]);
        let mut level: Vec<Band> = Vec::with_capacity(rows as usize);
        for row in 0..rows {
            let columns = shape.kind.columns_of(row as usize, columns as usize) as u32;
            let (queries, keys) = (size.extent(row, shape.queries), shape.keys.min(columns * size.tokens()));
            blocks[precision.index()] += u64::from(columns);
            scores[precision.index()] += u64::from(queries) * u64::from(keys);
            let keys = Precision::ALL.map(|level| if level <= precision { keys } else { 0 });
            level.push(Band { queries, keys });
        }
        let mut bands = Vec::new();
        loop {
            let whole = level.len() == 1;
            // A later row sees all that one before does.
            let of_two =
                |pair: &[Band]| Band { queries: pair.iter().map(|band| band.queries).sum(), ..pair[pair.len() - 1] };
            let next = level.chunks(2).map(of_two).collect();
            bands.push(std::mem::replace(&mut level, next));
            if whole {
                return Self { block_size: size, blocks, scores, bands };
            }
        }
    }

    /// Whether all active blocks are of single precision.
    pub fn is_single(&self) -> bool {
        self.blocks[..Precision::Single.index()] == [0, 0]
    }

    /// Active blocks of every precision.
    pub fn active_blocks(&self) -> u64 {
        self.blocks.iter().sum()
    }

    /// Active scores of every precision.
    pub fn active_scores(&self) -> u64 {
        self.scores.iter().sum()
    }

    /// Bands of at least `tokens` query tokens each, or the whole head.
    pub fn bands_of(&self, tokens: u32) -> &[Band] {
        let rows = tokens.div_ceil(self.block_size.tokens()).max(1);
        let level = rows.next_power_of_two().trailing_zeros() as usize;
        &self.bands[level.min(self.bands.len() - 1)]
    }

    /// The whole head as one band.
    pub fn whole(&self) -> Band {
        self.bands[self.bands.len() - 1][0]
    }
}

#[cfg(test)]
mod tests {
    use maskwright_blueprint::AttentionKind;

    use super::*;

    const SHAPE: AttentionShape =
        AttentionShape { kind: AttentionKind::SelfAttention, heads: 1, queries: 40, keys: 40, head_dim: 8, windows: 1 };
    const CAUSAL: AttentionShape = AttentionShape { kind: AttentionKind::CausalSelfAttention, ..SHAPE };

    #[test]
    fn a_band_needs_the_keys_of_all_its_rows_at_the_finest_precision() {
        let mask = HeadMask { block_size: BlockSize::B16, blocks: "1..\n.2.\n4.1".parse().unwrap() };
        let work = HeadWork::of(&mask, &SHAPE);
        assert_eq!(work.blocks, [2, 1, 1]);
        assert_eq!(work.scores, [16 * 16 + 8 * 8, 16 * 16, 8 * 16]);
        assert_eq!(work.bands[0][2], Band { queries: 8, keys: [24, 16, 16] });
        assert_eq!(work.bands[1][0], Band { queries: 32, keys: [32, 16, 0] });
        assert_eq!(work.whole(), Band { queries: 40, keys: [40, 32, 16] });
        assert_eq!(work.whole().keys_by_precision(), [8, 16, 16]);
    }

    #[test]
    fn a_dense_head_counts_the_same_with_and_without_a_mask() {
        // More columns than a word has bits.
        let long = AttentionShape { queries: 1100, keys: 1100, ..CAUSAL };
        for shape in [SHAPE, CAUSAL, long] {
            for size in BlockSize::ALL {
                for precision in Precision::ALL {
                    let mask = HeadMask::dense(&shape, size, precision);
                    assert_eq!(HeadWork::of(&mask, &shape), HeadWork::dense(&shape, size, precision));
                }
            }
        }
    }

    #[test]
    fn blocks_that_causality_empties_are_none_of_the_work() {
        let of = |blocks: &str, shape| {
            HeadWork::of(&HeadMask { block_size: BlockSize::B16, blocks: blocks.parse().unwrap() }, shape)
        };
        let work = of("144\n.24\n4.1", &CAUSAL);
        assert_eq!(work, of("1..\n.2.\n4.1", &CAUSAL));
        assert_eq!(work, of("1..\n.2.\n4.1", &SHAPE));
        assert_eq!(
            HeadWork::dense(&CAUSAL, BlockSize::B16, Precision::Half).scores,
            [0, 16 * 16 + 16 * 32 + 8 * 40, 0]
        );
    }
}
