use maskwright_blueprint::{BlockSize, Precision};

use crate::{
    Band, DeviceProfile, FlatStages, MatrixHeads, Scope, Softmax, Units, device::MOST_LEVELS, kernel_times::Rates,
};

/// A profile's numbers, ready to calculate with.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub hertz: f64,
    pub cores: f64,
    /// Multiply-accumulates a cycle and core after utilisation; zero where the device lacks the precision.
    macs_per_cycle: [f64; 3],
    peak_macs_per_cycle: [f64; 3],
    pub tile_queries: u32,
    pub tile_keys: u32,
    pub lanes: f64,
    softmax_lane_cycles: [f64; 2],
    pub elementwise_lane_cycles: f64,
    pub units: Units,
    pub flat_stages: FlatStages,
    pub block_cycles: f64,
    run_cycles: f64,
    pub row_cycles: f64,
    pub pack_cycles: f64,
    pub launch_seconds: f64,
    pub levels: Vec<Level>,
    /// Of our own kernels, where they were timed.
    pub kernels: Option<Rates>,
    /// The same of heads that the matrix unit does not multiply.
    vector_kernels: Option<Rates>,
    matrix_heads: Option<MatrixHeads>,
    pub joules_per_mac: [f64; 3],
    pub joules_per_lane_cycle: f64,
    pub static_watts: f64,
    pub limit_watts: f64,
    pub low_factor: f64,
    pub high_factor: f64,
}

/// A memory level as the whole device sees it.
#[derive(Debug, Clone)]
pub(crate) struct Level {
    pub name: String,
    /// Share of one core.
    pub core_bytes: f64,
    /// Of all cores together.
    pub bytes_per_s: f64,
    pub joules_per_byte: f64,
}

impl Machine {
    pub fn of(profile: &DeviceProfile) -> Self {
        let cores = profile.cores.value;
        let rate = |precision: &Precision| profile.matrix.macs_per_cycle.get(precision).map_or(0.0, |rate| rate.value);
        let peak_macs_per_cycle = Precision::ALL.each_ref().map(rate);
        let levels = profile.memory.iter().take(MOST_LEVELS).map(|level| {
            let (capacity, bandwidth) = match level.scope {
                Scope::PerCore => (1.0, cores),
                Scope::Shared => (1.0 / cores, 1.0),
            };
            Level {
                name: level.name.clone(),
                core_bytes: level.bytes.value * capacity,
                bytes_per_s: level.bytes_per_s.value * bandwidth,
                joules_per_byte: level.joules_per_byte.value,
            }
        });
        let (vector, energy) = (&profile.vector, &profile.energy);
        Self {
            hertz: profile.clock_hz.value,
            cores,
            macs_per_cycle: Precision::ALL.map(|precision| {
                let share = profile.matrix.utilisation.get(&precision).map_or(0.0, |share| share.value);
                peak_macs_per_cycle[precision.index()] * share
            }),
            peak_macs_per_cycle,
            tile_queries: profile.matrix.tile_queries.value as u32,
            tile_keys: profile.matrix.tile_keys.value as u32,
            lanes: vector.lanes.value,
            softmax_lane_cycles: [vector.softmax_lane_cycles.value, vector.integer_softmax_lane_cycles.value],
            elementwise_lane_cycles: vector.elementwise_lane_cycles.value,
            units: profile.units,
            flat_stages: profile.flat_stages,
            block_cycles: profile.overheads.block_cycles.value,
            run_cycles: profile.overheads.run_cycles.value,
            row_cycles: profile.overheads.row_cycles.value,
            pack_cycles: profile.overheads.pack_cycles.value,
            launch_seconds: profile.overheads.launch_seconds.value,
            levels: levels.collect(),
            kernels: profile.kernels.as_ref().map(Rates::of),
            vector_kernels: profile.vector_kernels.as_ref().map(Rates::of),
            matrix_heads: profile.matrix.heads,
            joules_per_mac: Precision::ALL
                .map(|precision| energy.joules_per_mac.get(&precision).map_or(0.0, |joules| joules.value)),
            joules_per_lane_cycle: energy.joules_per_lane_cycle.value,
            static_watts: energy.static_watts.value,
            limit_watts: energy.limit_watts.value,
            low_factor: energy.low_factor.value,
            high_factor: energy.high_factor.value,
        }
    }

    /// Whether the matrix unit leaves such heads to vectors; `single`: all of a head's blocks are of single precision.
    pub fn multiplies_by_vectors(&self, block_size: BlockSize, head_dim: u32, single: bool) -> bool {
        self.matrix_heads.is_some_and(|heads| single || !heads.has(block_size, head_dim))
    }

    /// What our own kernels take of such heads, where they were timed.
    pub fn kernels_of(&self, block_size: BlockSize, head_dim: u32, single: bool) -> Option<&Rates> {
        match self.multiplies_by_vectors(block_size, head_dim, single) {
            true => self.vector_kernels.as_ref().or(self.kernels.as_ref()),
            false => self.kernels.as_ref(),
        }
    }

    pub fn supports(&self, precision: Precision) -> bool {
        self.peak_macs_per_cycle[precision.index()] > 0.0
    }

    /// Multiply-accumulates a cycle and core at the peak.
    pub fn peak_rate(&self, precision: Precision) -> f64 {
        self.peak_macs_per_cycle[precision.index()]
    }

    /// The finest precision that the device computes at.
    pub fn finest(&self) -> Precision {
        Precision::ALL.into_iter().rfind(|precision| self.supports(*precision)).unwrap_or(Precision::Single)
    }

    /// DRAM.
    pub fn dram(&self) -> &Level {
        self.levels.last().expect("a checked profile has at least two levels")
    }

    /// Seconds that `macs` take on all cores at the full peak rate.
    pub fn ideal_seconds(&self, macs: [f64; 3]) -> f64 {
        let cycles: f64 = macs
            .iter()
            .zip(self.peak_macs_per_cycle)
            .filter(|(macs, _)| **macs > 0.0)
            .map(|(macs, rate)| macs / rate)
            .sum();
        cycles / self.cores / self.hertz
    }

    /// Seconds of all cores for `macs` at the rate a dense product reaches.
    pub fn mac_seconds(&self, macs: f64, precision: Precision) -> f64 {
        macs / self.macs_per_cycle[precision.index()] / self.cores / self.hertz
    }

    /// Query tokens that the matrix unit computes for `queries`: whole native tiles.
    pub fn padded_queries(&self, queries: u32) -> f64 {
        f64::from(queries.next_multiple_of(self.tile_queries))
    }

    /// Seconds of all cores for some cycles of one lane each.
    pub fn lane_seconds(&self, lane_cycles: f64) -> f64 {
        lane_cycles / self.lanes / self.cores / self.hertz
    }

    pub fn float_softmax_lane_cycles(&self) -> f64 {
        self.softmax_lane_cycles[0]
    }

    /// One core's cycles for one of the two products of a band, with half of what beginning its runs of blocks takes.
    ///
    /// The keys that the band needs are gathered into native tiles. A tile is computed at the finest precision in it, and
    /// coarse keys fill up the last tile of a finer precision; a whole run may be computed at a finer one where that saves
    /// more than it costs. The cheapest choice is taken, which is why a cost never falls when a precision is raised.
    pub fn product(&self, band: Band, head_dim: u32) -> Product {
        let per_tile = self.padded_queries(band.queries) * f64::from(head_dim) * f64::from(self.tile_keys);
        let [any, half, single] = band.keys.map(|keys| keys.div_ceil(self.tile_keys));
        let price = |[any, half, single]: [u32; 3]| {
            let mut product = Product { cycles: 0.0, runs: 0.0 };
            let tiles = [any - half, half - single, single];
            for (tiles, rate) in tiles.into_iter().zip(self.macs_per_cycle).filter(|(tiles, _)| *tiles > 0) {
                product.cycles += f64::from(tiles) * per_tile / rate;
                product.runs += self.run_cycles / 2.0;
            }
            product.cycles += product.runs;
            product
        };
        // A device without one of the precisions would take for ever: its rate is zero.
        let promoted = [[any, any, single], [any, half, half], [any, any, any]];
        let cheaper = |best: Product, next: Product| if next.cycles < best.cycles { next } else { best };
        promoted.into_iter().map(price).fold(price([any, half, single]), cheaper)
    }

    /// One core's cycles for some operations on each score of a band, by precision, done by the matrix unit's processing
    /// elements.
    pub fn elementwise_on_matrix(&self, band: Band, operations: [f64; 3]) -> f64 {
        let keys = band.keys_by_precision().into_iter().zip(self.macs_per_cycle).zip(operations);
        let per_query: f64 = keys
            .filter(|((keys, _), _)| *keys > 0)
            .map(|((keys, rate), operations)| f64::from(keys) * operations / rate)
            .sum();
        per_query * self.padded_queries(band.queries)
    }

    /// Cycles of one lane for one element of a softmax, by the precision of its scores.
    pub fn softmax_lane_cycles(&self, softmax: Softmax) -> [f64; 3] {
        let [float, integer] = self.softmax_lane_cycles;
        match softmax {
            Softmax::Float => [float; 3],
            Softmax::Integer => [integer, float, float],
        }
    }

    /// One core's cycles for the softmax of a band.
    pub fn softmax_cycles(&self, band: Band, softmax: Softmax) -> f64 {
        let cycles = self.softmax_lane_cycles(softmax);
        let keys = band.keys_by_precision().into_iter().zip(cycles);
        let per_query: f64 = keys.map(|(keys, cycles)| f64::from(keys) * cycles).sum();
        self.padded_queries(band.queries) * per_query / self.lanes
    }

    /// Times of two pieces of work that want to run at once: the matrix unit's and the vector unit's.
    pub fn together(&self, matrix: f64, vector: f64) -> f64 {
        match self.units {
            Units::Separate => matrix.max(vector),
            Units::Shared => matrix + vector,
        }
    }
}

/// What one of the two products of a band takes on one core.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    pub cycles: f64,
    /// The part of them that begins runs.
    pub runs: f64,
}
