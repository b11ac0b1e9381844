//! Small whole numbers as Parquet packs them: runs of one number, and groups of eight in as few bits as they need.

use super::{
    ParquetFault,
    thrift::{take, varint},
};

/// The numbers, one after another; none is unpacked before it is asked for, for a few bytes may stand for billions.
#[derive(Debug)]
pub(super) struct Runs {
    bytes: Vec<u8>,
    at: usize,
    /// Of a number, at most 32.
    bits: u32,
    run: Run,
}

#[derive(Debug)]
enum Run {
    Repeated {
        value: u32,
        left: u64,
    },
    /// The next number's first bit, counted from `at`.
    Packed {
        bit: u64,
        left: u64,
    },
}

impl Runs {
    pub(super) fn new(bytes: Vec<u8>, bits: u32) -> Result<Self, ParquetFault> {
        match bits {
            0..=32 => Ok(Self { bytes, at: 0, bits, run: Run::Repeated { value: 0, left: 0 } }),
            _ => Err(ParquetFault::Damaged { what: "numbers of more than 32 bits" }),
        }
    }

    pub(super) fn next(&mut self) -> Result<u32, ParquetFault> {
        loop {
            match &mut self.run {
                Run::Repeated { value, left } if *left > 0 => {
                    *left -= 1;
                    return Ok(*value);
                }
                Run::Packed { bit, left } if *left > 0 => {
                    let value = packed(&self.bytes[self.at..], *bit, self.bits).ok_or_else(ends_early)?;
                    *bit += u64::from(self.bits);
                    *left -= 1;
                    return Ok(value);
                }
                run => {
                    // Behind a group of packed numbers the next run starts with a whole byte.
                    if let Run::Packed { bit, .. } = run {
                        self.at += bit.div_ceil(8) as usize;
                    }
                    self.run = Run::Repeated { value: 0, left: 0 };
                    self.start_run().ok_or_else(ends_early)?;
                }
            }
        }
    }

    fn start_run(&mut self) -> Option<()> {
        let mut input = self.bytes.get(self.at..)?;
        let header = varint(&mut input)?;
        self.run = match header & 1 {
            1 => Run::Packed { bit: 0, left: (header >> 1).checked_mul(8)? },
            _ => {
                let bytes = take(&mut input, u64::from(self.bits.div_ceil(8)))?;
                let value = bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
                Run::Repeated { value, left: header >> 1 }
            }
        };
        self.at = self.bytes.len() - input.len();
        Some(())
    }
}

/// The number of `bits` bits that starts at a bit; the lowest bits come first.
fn packed(bytes: &[u8], bit: u64, bits: u32) -> Option<u32> {
    let (first, last) = (bit / 8, (bit + u64::from(bits)).div_ceil(8));
    let bytes = bytes.get(usize::try_from(first).ok()?..usize::try_from(last).ok()?)?;
    let word = bytes.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    Some(((word >> (bit % 8)) & ((1_u64 << bits) - 1)) as u32)
}

fn ends_early() -> ParquetFault {
    ParquetFault::Damaged { what: "a page that ends early" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(bytes: &[u8], bits: u32, count: usize) -> Vec<u32> {
        let mut runs = Runs::new(bytes.to_vec(), bits).unwrap();
        (0..count).map(|_| runs.next().unwrap()).collect()
    }

    #[test]
    fn runs_and_packed_groups_follow_each_other() {
        // The specification's example: 0 to 7 in three bits each. Before it four times 5, behind it once 6.
        let bytes = [8, 5, 3, 0b1000_1000, 0b1100_0110, 0b1111_1010, 2, 6];
        assert_eq!(numbers(&bytes, 3, 13), [5, 5, 5, 5, 0, 1, 2, 3, 4, 5, 6, 7, 6]);
    }

    #[test]
    fn numbers_of_no_bits_are_zeros_and_of_many_bits_cross_bytes() {
        assert_eq!(numbers(&[6], 0, 3), [0, 0, 0]);
        assert_eq!(numbers(&[2, 0x78, 0x56, 0x34, 0x12], 32, 1), [0x1234_5678]);
    }

    #[test]
    fn what_ends_early_is_refused() {
        for bytes in [[].as_slice(), &[0], &[3, 1], &[4]] {
            let mut runs = Runs::new(bytes.to_vec(), 3).unwrap();
            assert!((0..9).any(|_| runs.next().is_err()), "{bytes:?}");
        }
        assert!(Runs::new(Vec::new(), 33).is_err());
    }
}
