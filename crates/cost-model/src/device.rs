use std::{collections::BTreeMap, path::Path};

use maskwright_blueprint::{BlockSize, Digest, Precision, RonError, nearest, parse_ron, read_ron, to_ron};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{CalibrationRecord, CostError, KernelTimes, host};

/// One number of a profile and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Not below zero.
    #[serde(deserialize_with = "not_below_zero")]
    pub value: f64,
    /// Data sheet and page, paper and table, "measured on ...", or "assumed, because ...".
    pub source: String,
    /// Whether someone has compared the number with its source, or measured it again.
    pub verified: bool,
}

/// A device as the cost model sees it: units, memory levels, energies, each number with its source.
///
/// A new device is a RON file, not code; `docs/devices.md` walks through one. What is read is consistent: every
/// supported precision has a rate and an energy, a finer one is never faster or cheaper, memory levels grow outwards.
///
/// ```
/// # use maskwright_blueprint::Precision;
/// # use maskwright_cost_model::DeviceProfile;
/// let board = DeviceProfile::named("rk3588s2")?;
/// assert!(board.supports(Precision::Int8));
/// assert!(DeviceProfile::named("rk3588").unwrap_err().to_string().contains("did you mean `rk3588s2`?"));
/// # Ok::<(), maskwright_cost_model::CostError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct DeviceProfile {
    pub name: String,
    /// For people: what it is, and what the profile leaves out.
    pub summary: String,
    pub clock_hz: Figure,
    /// Units below are counted for one core.
    pub cores: Figure,
    pub matrix: MatrixUnit,
    pub vector: VectorUnit,
    pub units: Units,
    pub flat_stages: FlatStages,
    pub overheads: Overheads,
    /// From the innermost outwards; the last one is DRAM.
    pub memory: Vec<MemoryLevel>,
    pub energy: Energy,
    /// Power modes; the profile itself is the fastest one.
    #[serde(default)]
    pub modes: Vec<Mode>,
    /// What our own kernels take, where they were timed; the `flash` dataflow then counts that instead of the units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<KernelTimes>,
    /// The same of heads that [`MatrixUnit::heads`] are not, where that says which are, and of those of single precision alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector_kernels: Option<KernelTimes>,
    /// On which machine and how well the profile was fitted, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrated: Option<CalibrationRecord>,
}

/// What computes `Q K^T`, `P V` and the linears.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixUnit {
    /// Multiply-accumulates of one core in one cycle, for each precision that the device computes at.
    pub macs_per_cycle: BTreeMap<Precision, Figure>,
    /// Query tokens that the unit computes at once; smaller groups cost the same.
    pub tile_queries: Figure,
    /// Key tokens that the unit computes at once; smaller groups cost the same.
    pub tile_keys: Figure,
    /// Share of the peak rate that a long dense product reaches at each precision, in (0, 1].
    pub utilisation: BTreeMap<Precision, Figure>,
    /// Which heads the unit multiplies, where vectors multiply the others; if it is absent, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<MatrixHeads>,
}

/// Heads that a matrix unit multiplies, if some of their blocks are not of single precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixHeads {
    /// Tokens that their blocks have at least.
    pub least_block: u32,
    /// What their dimension is a multiple of.
    pub head_dim_multiple: u32,
}

impl MatrixHeads {
    /// Whether a head of such blocks and of such a dimension is one of them.
    pub fn has(self, block_size: BlockSize, head_dim: u32) -> bool {
        block_size.tokens() >= self.least_block && head_dim.is_multiple_of(self.head_dim_multiple)
    }
}

/// What computes softmax and elementwise operations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorUnit {
    /// Lanes of one core.
    pub lanes: Figure,
    /// Cycles of one lane for one element of a softmax in floating point, conversions from and to 8 bit included.
    pub softmax_lane_cycles: Figure,
    /// The same for the integer softmax.
    pub integer_softmax_lane_cycles: Figure,
    /// Cycles of one lane for one element of a normalisation, activation or sum.
    pub elementwise_lane_cycles: Figure,
}

/// Whether matrix and vector work can run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Units {
    /// Two units, each busy on its own.
    Separate,
    /// The same lanes do both, one after the other: every CPU.
    Shared,
}

/// How the FLAT dataflow runs the stages of one band of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlatStages {
    /// `Q K^T`, softmax, `P V` and transfers of neighbouring bands overlap.
    Overlapped,
    /// Load, `Q K^T`, softmax, `P V`, store: one after the other.
    Sequential,
}

/// Costs that no count of operations shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overheads {
    /// Cycles of one core to find and address one active block.
    pub block_cycles: Figure,
    /// Cycles of one core to begin a run of blocks of one precision in a row.
    pub run_cycles: Figure,
    /// Cycles of one core to load and arrange a native tile's query rows, and to finish and store their output.
    pub row_cycles: Figure,
    /// Cycles of one core to convert and pack one element of K or V for a head.
    pub pack_cycles: Figure,
    /// Seconds to start one attention module or linear.
    pub launch_seconds: Figure,
}

/// One level of memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryLevel {
    pub name: String,
    pub scope: Scope,
    pub bytes: Figure,
    pub bytes_per_s: Figure,
    pub joules_per_byte: Figure,
}

/// Whether every core has the level to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Capacity and bandwidth are those of one core.
    PerCore,
    /// Capacity and bandwidth are those of the whole device.
    Shared,
}

/// Energy and power.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Energy {
    /// Of one multiply-accumulate, operands from registers.
    pub joules_per_mac: BTreeMap<Precision, Figure>,
    /// Of one lane in one cycle.
    pub joules_per_lane_cycle: Figure,
    /// Drawn whatever happens.
    pub static_watts: Figure,
    /// Drawn at most: no predicted energy exceeds this times the predicted time.
    pub limit_watts: Figure,
    /// What the dynamic part may be too high by: the lower end of the band is this share of it, in (0, 1].
    pub low_factor: Figure,
    /// What the dynamic part may be too low by: the upper end of the band is this multiple of it, at least 1.
    pub high_factor: Figure,
}

/// A power mode: what it changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mode {
    pub name: String,
    pub clock_hz: Figure,
    pub dram_bytes_per_s: Figure,
    pub static_watts: Figure,
    pub limit_watts: Figure,
}

macro_rules! baked_in {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../devices/", $name, ".ron")))),*]
    };
}

/// Profiles that every build carries, by name.
const BAKED_IN: &[(&str, &str)] = baked_in![
    "asic-p1",
    "cortex-m7",
    "cpu-avx512",
    "flat-cloud",
    "flat-edge",
    "h200",
    "jetson-agx-xavier",
    "mas-edge",
    "myriad-x",
    "rk3588s2",
];

/// The name of the machine at hand.
const HOST: &str = "host";

/// The cost model keeps its sums in arrays of this length.
pub(crate) const MOST_LEVELS: usize = 4;

impl DeviceProfile {
    /// Names of the profiles that every build carries, in alphabetical order.
    pub fn names() -> Vec<&'static str> {
        BAKED_IN.iter().map(|(name, _)| *name).collect()
    }

    /// A profile that every build carries; `name@mode` selects a power mode: `jetson-agx-xavier@15W`. `host` is the machine
    /// at hand: the file `host.ron` that a calibration left in the current folder, or else in the user's configuration
    /// folder, `$XDG_CONFIG_HOME/maskwright` or `~/.config/maskwright`.
    pub fn named(name: &str) -> Result<Self, CostError> {
        let (device, mode) = name.split_once('@').map_or((name, None), |(device, mode)| (device, Some(mode)));
        if device == HOST {
            let profile = host::load()?;
            return mode.map_or(Ok(profile.clone()), |mode| profile.in_mode(mode));
        }
        let Some((_, text)) = BAKED_IN.iter().find(|(known, _)| *known == device) else {
            return Err(CostError::UnknownDevice { name: name.into(), help: nearest(device, &Self::names()) });
        };
        let profile: Self = parse_ron(text, Path::new(device))?;
        mode.map_or(Ok(profile.clone()), |mode| profile.in_mode(mode))
    }

    /// One that ships, by name, or, where the name ends in `.ron`, that file.
    pub fn open(device: &str) -> Result<Self, CostError> {
        match device.ends_with(".ron") {
            true => Ok(Self::load(Path::new(device))?),
            false => Self::named(device),
        }
    }

    /// Reads and checks a RON file.
    pub fn load(path: &Path) -> Result<Self, RonError> {
        read_ron(path)
    }

    /// The RON form that [`DeviceProfile::load`] reads.
    pub fn to_ron(&self) -> String {
        to_ron(self)
    }

    /// The same device in one of its power modes.
    pub fn in_mode(&self, mode: &str) -> Result<Self, CostError> {
        let Some(found) = self.modes.iter().find(|known| known.name == mode) else {
            let names: Vec<_> = self.modes.iter().map(|mode| mode.name.as_str()).collect();
            let help = if names.is_empty() { "it has no modes".into() } else { nearest(mode, &names) };
            return Err(CostError::UnknownMode { device: self.name.clone(), mode: mode.into(), help });
        };
        let mut profile = self.clone();
        profile.name = format!("{}@{mode}", self.name);
        profile.clock_hz = found.clock_hz.clone();
        profile.energy.static_watts = found.static_watts.clone();
        profile.energy.limit_watts = found.limit_watts.clone();
        if let Some(dram) = profile.memory.last_mut() {
            dram.bytes_per_s = found.dram_bytes_per_s.clone();
        }
        profile.modes = Vec::new();
        Ok(profile)
    }

    /// Precisions that the device computes at, coarsest first.
    pub fn precisions(&self) -> Vec<Precision> {
        self.matrix.macs_per_cycle.keys().copied().collect()
    }

    pub fn supports(&self, precision: Precision) -> bool {
        self.matrix.macs_per_cycle.contains_key(&precision)
    }

    /// Of every number, mode and name: two profiles with equal fingerprints give equal costs.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(["device 1".as_bytes(), self.to_ron().as_bytes()])
    }

    /// Every number with its place in the file, in the file's order.
    pub fn figures(&self) -> Vec<(String, &Figure)> {
        let mut all: Vec<(String, &Figure)> = Vec::new();
        let mut add = |place: String, figure| all.push((place, figure));
        add("clock_hz".into(), &self.clock_hz);
        add("cores".into(), &self.cores);
        for (precision, figure) in &self.matrix.macs_per_cycle {
            add(format!("matrix.macs_per_cycle.{}", precision.bytes()), figure);
        }
        add("matrix.tile_queries".into(), &self.matrix.tile_queries);
        add("matrix.tile_keys".into(), &self.matrix.tile_keys);
        for (precision, figure) in &self.matrix.utilisation {
            add(format!("matrix.utilisation.{}", precision.bytes()), figure);
        }
        add("vector.lanes".into(), &self.vector.lanes);
        add("vector.softmax_lane_cycles".into(), &self.vector.softmax_lane_cycles);
        add("vector.integer_softmax_lane_cycles".into(), &self.vector.integer_softmax_lane_cycles);
        add("vector.elementwise_lane_cycles".into(), &self.vector.elementwise_lane_cycles);
        add("overheads.block_cycles".into(), &self.overheads.block_cycles);
        add("overheads.run_cycles".into(), &self.overheads.run_cycles);
        add("overheads.row_cycles".into(), &self.overheads.row_cycles);
        add("overheads.pack_cycles".into(), &self.overheads.pack_cycles);
        add("overheads.launch_seconds".into(), &self.overheads.launch_seconds);
        for level in &self.memory {
            add(format!("memory.{}.bytes", level.name), &level.bytes);
            add(format!("memory.{}.bytes_per_s", level.name), &level.bytes_per_s);
            add(format!("memory.{}.joules_per_byte", level.name), &level.joules_per_byte);
        }
        for (precision, figure) in &self.energy.joules_per_mac {
            add(format!("energy.joules_per_mac.{}", precision.bytes()), figure);
        }
        add("energy.joules_per_lane_cycle".into(), &self.energy.joules_per_lane_cycle);
        add("energy.static_watts".into(), &self.energy.static_watts);
        add("energy.limit_watts".into(), &self.energy.limit_watts);
        add("energy.low_factor".into(), &self.energy.low_factor);
        add("energy.high_factor".into(), &self.energy.high_factor);
        for (place, figure) in self.kernels.iter().flat_map(|kernels| kernels.figures("kernels")) {
            add(place, figure);
        }
        for (place, figure) in self.vector_kernels.iter().flat_map(|kernels| kernels.figures("vector_kernels")) {
            add(place, figure);
        }
        for mode in &self.modes {
            add(format!("modes.{}.clock_hz", mode.name), &mode.clock_hz);
            add(format!("modes.{}.dram_bytes_per_s", mode.name), &mode.dram_bytes_per_s);
            add(format!("modes.{}.static_watts", mode.name), &mode.static_watts);
            add(format!("modes.{}.limit_watts", mode.name), &mode.limit_watts);
        }
        all
    }
}

/// Figures beyond these are no device's; within them prices stay finite.
const LEAST: f64 = 1e-24;
const MOST: f64 = 1e24;

/// Refuses what no figure can be while its place in the file is known; [`DeviceProfile::problems`] knows what its key allows.
fn not_below_zero<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(from)?;
    if value == 0.0 || (LEAST..=MOST).contains(&value) {
        return Ok(value);
    }
    Err(de::Error::custom(format!("{value} is no figure of a device: each is zero, or from {LEAST:e} to {MOST:e}")))
}

impl<'de> Deserialize<'de> for DeviceProfile {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let profile = Self::deserialize(from)?;
        let problems = profile.problems();
        if problems.is_empty() { Ok(profile) } else { Err(de::Error::custom(problems.join("; "))) }
    }
}

impl Serialize for DeviceProfile {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, to)
    }
}
