//! 8-bit scores as 16-bit integers, two queries a vector: half as many are stored, looked through for the largest, and turned into weights. Sums of
//! products are shifted right by as many bits as leave a unit below a 128th of an octave; where none are to be shifted, it may be up to a 64th. Where a
//! score is too far away for 16 bits, the largest one tells, and [floats](super::scores::Floats) take their place.

use super::{
    Int8, Numbers, Seen,
    scores::{Hide, Outcome, Products},
    splat,
    weights::{QUAD, ToWeights},
};
use crate::lanes::Lanes;

/// What 8-bit scores are as 16-bit integers.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairScale {
    /// Bits that sums of products are shifted right by.
    pub shift: u32,
    /// Of what is left, in powers of two: from 2^-8 to less than 2^-6.
    unit: f32,
    /// What rounding down takes from a score on average, in powers of two.
    floor: f32,
}

/// How large the largest score of a query may be, in powers of two. 16 bits reach 128 at least, so what is hidden, the least of all numbers, is 28
/// below any maximum; ten leave no weight.
const MOST: f32 = 100.0;

/// The least number, twice.
const LEAST: u32 = 0x8000_8000;

impl PairScale {
    /// For products that are scores in units of `scale`. None if such a unit is too large, or next to nothing, or no number.
    pub(super) fn of(scale: f32) -> Option<Self> {
        /// Exponents of the least unit where bits are shifted, and of the first one that is too large, as floats have them.
        const LEAST: u32 = 127 - 8;
        const TOO_LARGE: u32 = 127 - 6;
        const MOST_BITS: u32 = 31;
        // A sign or NaN makes it larger than any.
        let exponent = scale.to_bits() >> 23;
        if !(LEAST - MOST_BITS..TOO_LARGE).contains(&exponent) {
            return None;
        }
        let shift = LEAST.saturating_sub(exponent);
        let unit = scale * (1_u32 << shift) as f32;
        Some(Self { shift, unit, floor: (unit - scale) / 2.0 })
    }

    /// The largest score of each query, in powers of two, and as the integer it is. None if some are too far away.
    #[inline(always)]
    pub(super) fn max<L: Lanes>(self, lanes: L, seen: &Seen) -> Option<(L::Float, Numbers)> {
        let max = seen.max_of_pairs(lanes);
        let real = lanes.mul_add(lanes.convert(max), splat(lanes, self.unit), splat(lanes, self.floor));
        lanes.all_within(real, MOST).then(|| {
            let mut integers = Numbers::all(0.0);
            lanes.store(max, &mut integers.0);
            (real, integers)
        })
    }
}

/// Weights of pairs of scores.
pub(super) struct OfPairs {
    pub scale: PairScale,
    /// What scores are taken from, as integers.
    pub maxima: Numbers,
}

impl<L: Lanes> ToWeights<L> for OfPairs {
    type Operand = Int8;
    type Max = [L::Word; 2];

    #[inline(always)]
    fn max(&self, lanes: L, first: usize) -> [L::Word; 2] {
        let of = |query| lanes.splat(self.maxima.0[first + query]);
        [lanes.pack_i16(of(0), of(1)), lanes.pack_i16(of(2), of(3))]
    }

    #[inline(always)]
    fn weights(&self, lanes: L, scores: &[u32], [first, second]: [L::Word; 2]) -> [L::Word; 4] {
        let first = lanes.sub_i16(first, lanes.load(scores));
        let second = lanes.sub_i16(second, lanes.load(&scores[2 * L::WIDTH..]));
        let weights = lanes.weights_u8_of_distances([first, second], self.scale.unit);
        [weights, lanes.splat(0), lanes.splat(0), lanes.splat(0)]
    }
}

/// Scores of each two queries share a vector, which lies where those of the first would: see [`Lanes::pack_i16`].
pub(super) struct Pairs<const LOOKS: bool>;

impl<const LOOKS: bool> Outcome<Int8> for Pairs<LOOKS> {
    const TOGETHER: bool = true;
    const LOOKS: bool = LOOKS;

    #[inline(always)]
    unsafe fn write<L: Lanes, const R: usize, const C: usize>(
        lanes: L,
        sums: [[L::Word; C]; R],
        first: usize,
        products: &mut Products<'_, L, Int8, C>,
    ) {
        assert!(R.is_multiple_of(2) && first.is_multiple_of(2), "no pair is only begun");
        let shift = products.shift;
        for r in 0..R / 2 {
            let mut pairs = [lanes.splat(0); C];
            for c in 0..C {
                let of = |r: usize| lanes.shift_right(sums[r][c], shift);
                pairs[c] = lanes.pack_i16(of(2 * r), of(2 * r + 1));
                // SAFETY: the caller's promise.
                lanes.store(pairs[c], unsafe { products.at(c, first + 2 * r) });
            }
            if products.whole {
                products.seen.add_pairs(lanes, first + 2 * r, pairs, products.first);
            }
        }
    }

    /// The least number for what is hidden.
    #[inline(always)]
    fn hide<L: Lanes, const C: usize>(lanes: L, hide: Hide<'_, '_, Int8, Self, C>) {
        let (hides, positions) = (hide.hides::<L>(), hide.positions(lanes));
        let Hide { tile, scores, seen, fresh, .. } = hide;
        for query in (0..tile.queries.len()).step_by(2) {
            let mut shown = [lanes.splat(0); C];
            for c in 0..C {
                let scores = &mut scores[c * L::OF_VECTOR + query * L::WIDTH..][..L::WIDTH];
                shown[c] = lanes.load(scores);
                if !hides[c] {
                    continue;
                }
                let mut limits = [lanes.splat(0); 2];
                for n in 0..2 {
                    let limit = lanes.min(tile.limit(lanes, query + n, positions[c]), splat(lanes, 1.0e5));
                    limits[n] = lanes.round(lanes.max(limit, splat(lanes, -1.0e5)));
                }
                let limit = lanes.pack_i16(limits[0], limits[1]);
                shown[c] = lanes.min_i16(shown[c], limit);
                lanes.store(shown[c], scores);
            }
            seen.add_pairs(lanes, query, shown, fresh);
        }
    }
}

impl Seen {
    /// Adds scores of a query and of the next, the `first` ones or more.
    #[inline(always)]
    fn add_pairs<L: Lanes, const C: usize>(&mut self, lanes: L, query: usize, pairs: [L::Word; C], first: bool) {
        let largest = self.of_query(query);
        let mut max = if first { lanes.splat(LEAST) } else { lanes.load(largest) };
        for c in 0..C {
            max = lanes.max_i16(max, pairs[c]);
        }
        lanes.store(max, largest);
    }

    /// The largest of each query.
    #[inline(always)]
    fn max_of_pairs<L: Lanes>(&self, lanes: L) -> L::Word {
        let mut quads = [lanes.splat(0); 4];
        for quad in 0..L::GROUPS {
            let of = |query: usize| lanes.load(self.words_of(QUAD * quad + query));
            // Two words of each query: [a, a, b, b] and [c, c, d, d].
            let [ac, bd] = lanes.interleave(of(0), of(2));
            let [first, second] = lanes.interleave(ac, bd);
            quads[quad] = lanes.max_i16(first, second);
        }
        let turned = lanes.turn_groups(quads);
        let mut max = turned[0];
        for group in 1..L::GROUPS {
            max = lanes.max_i16(max, turned[group]);
        }
        // A word of each query: [a, a, b, b] and [c, c, d, d] of both its halves. Of such words halves are compared, too.
        let [ab, cd] = lanes.unpack_i16(max);
        let [ac, bd] = lanes.interleave(ab, cd);
        let [first, second] = lanes.interleave(ac, bd);
        lanes.max_i16(first, second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_whose_units_sixteen_bits_can_have_are_pairs() {
        let below = |x: f32| f32::from_bits(x.to_bits() - 1);
        let power = |exponent| 2_f32.powi(exponent);
        for (scale, shift) in [
            (power(-39), 31),
            (below(power(-38)), 31),
            (3.2e-5, 7),
            (below(power(-8)), 1),
            (power(-8), 0),
            (power(-7), 0),
            (below(power(-6)), 0),
        ] {
            let pairs = PairScale::of(scale).unwrap_or_else(|| panic!("{scale:e} has pairs"));
            assert_eq!((pairs.shift, pairs.unit), (shift, scale * power(shift as i32)), "{scale:e}");
            assert!((power(-8)..power(-6)).contains(&pairs.unit) && (shift == 0) == (pairs.floor == 0.0), "{pairs:?}");
        }
        let none = [power(-6), below(power(-39)), 0.0, f32::MIN_POSITIVE, -1e-3, f32::INFINITY, f32::NAN, -f32::NAN];
        assert!(none.into_iter().all(|scale| PairScale::of(scale).is_none()));
    }
}
