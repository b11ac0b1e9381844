use std::iter::Sum;

use maskwright_blueprint::AttentionShape;

use crate::{Band, HeadWork, Softmax, machine::Machine, traffic::tile_bytes};

/// What one head takes before it is put on cores: cycles of one core for one example.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stages {
    /// Of `Q K^T`, with half of the runs; `P V` takes as long.
    pub product: f64,
    pub softmax: f64,
    /// Beginning runs of blocks, which both products contain a half of.
    pub runs: f64,
    /// Finding and addressing blocks, and arranging rows for them.
    pub blocks: f64,
}

impl Stages {
    pub fn of(machine: &Machine, head: &HeadWork, shape: &AttentionShape, softmax: Softmax) -> Self {
        let mut stages = Self::of_bands(machine, head.bands_of(machine.tile_queries), shape, softmax);
        stages.blocks = machine.block_cycles * head.active_blocks() as f64
            + machine.row_cycles * native_rows(machine, head)
            + machine.pack_cycles * packed_elements(head, shape);
        stages
    }

    /// Of some of a head's native bands, without the cost of each block.
    pub fn of_bands(machine: &Machine, bands: &[Band], shape: &AttentionShape, softmax: Softmax) -> Self {
        let mut stages = Self::default();
        for band in bands {
            let product = machine.product(*band, shape.head_dim);
            stages.product += product.cycles;
            stages.runs += 2.0 * product.runs;
            stages.softmax += machine.softmax_cycles(*band, softmax);
        }
        stages
    }

    /// Both products and what precedes them.
    pub fn matrix(&self) -> f64 {
        2.0 * self.product + self.blocks
    }

    /// The plan in which nothing hides and nothing is transferred yet.
    pub fn in_sequence(&self) -> Plan {
        let product = self.product - self.runs / 2.0;
        Plan {
            qk: product,
            softmax: self.softmax,
            pv: product,
            blocks: self.runs + self.blocks,
            matrix_busy: 2.0 * product,
            vector_busy: self.softmax,
            ..Plan::default()
        }
    }
}

/// Native tiles of query rows.
pub(crate) fn native_rows(machine: &Machine, head: &HeadWork) -> f64 {
    let bands = head.bands_of(machine.tile_queries).iter();
    bands.map(|band| f64::from(band.queries.div_ceil(machine.tile_queries))).sum()
}

/// Elements of K and V that some block needs.
pub(crate) fn packed_elements(head: &HeadWork, shape: &AttentionShape) -> f64 {
    2.0 * f64::from(head.whole().keys[0]) * f64::from(shape.head_dim)
}

impl Sum for Stages {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::default(), |a, b| Self {
            product: a.product + b.product,
            softmax: a.softmax + b.softmax,
            runs: a.runs + b.runs,
            blocks: a.blocks + b.blocks,
        })
    }
}

/// Times by term and traffic of one head, before energies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// Cycles of one core: `Q K^T`, softmax, `P V`, blocks; what is hidden is zero here.
    pub qk: f64,
    pub softmax: f64,
    pub pv: f64,
    pub blocks: f64,
    /// Cycles of one core that wait for memory whatever else runs.
    pub memory: f64,
    /// Cycles of one core for transfers, and for the work that each runs behind; the stages of work that has them.
    pub behind: [(f64, f64); 3],
    /// Cycles of one core in which the units are busy.
    pub matrix_busy: f64,
    pub vector_busy: f64,
    /// Elementwise operations of the matrix unit for each score, by precision; each costs the energy of a MAC.
    pub elementwise: [f64; 3],
    /// Bytes that leave each level.
    pub bytes: Vec<f64>,
    /// How many levels, from the innermost on, take no time of their own: it is part of the cycles above.
    pub levels_in_time: usize,
}

impl Plan {
    /// Matrix work, vector work and transfers run at once.
    ///
    /// `combined` is what both units take together, overheads included: at least what each of them takes. Transfers hide
    /// behind it where two native tiles fit the innermost level, one in work and one on its way; else they add up.
    pub fn overlapped(
        machine: &Machine,
        head: &HeadWork,
        shape: &AttentionShape,
        stages: &Stages,
        (combined, vector_busy): (f64, f64),
        bytes: Vec<f64>,
    ) -> Self {
        let transfers = transfer_cycles(machine, &bytes);
        let tile = tile_bytes(machine, head, shape, machine.tile_queries);
        let double_buffered = 2.0 * tile <= machine.levels[0].core_bytes;
        let (memory, behind) = if double_buffered { (0.0, transfers) } else { (transfers, 0.0) };
        Self {
            softmax: (combined - stages.matrix()).max(0.0),
            memory,
            behind: [(behind, combined.max(stages.matrix())), (0.0, 0.0), (0.0, 0.0)],
            vector_busy,
            bytes,
            ..stages.in_sequence()
        }
    }
}

/// One core's cycles for the slowest level's transfers, if all cores do the same.
pub(crate) fn transfer_cycles(machine: &Machine, bytes: &[f64]) -> f64 {
    let seconds = bytes.iter().zip(&machine.levels).map(|(bytes, level)| bytes / level.bytes_per_s);
    seconds.fold(0.0, f64::max) * machine.hertz * machine.cores
}

/// One core's cycles for bytes from DRAM alone.
pub(crate) fn dram_cycles(machine: &Machine, bytes: f64) -> f64 {
    bytes / machine.dram().bytes_per_s * machine.hertz * machine.cores
}
