//! What would this mask cost on that device?
//!
//! [`Work`] counts a blueprint once. A [`DeviceProfile`] is a file of numbers, each with its source. A [`CostModel`]
//! prices work on a device under a [`Dataflow`]; its answer, a [`Cost`], is a prediction and says so.

mod alternative;
mod break_even;
mod calibration;
mod calibration_record;
mod cost;
mod curve;
mod dataflow;
mod device;
mod device_check;
mod error;
mod flash;
mod flat;
mod fuse_max;
mod head_cost;
mod head_work;
mod host;
mod kernel_times;
mod layered;
mod least_squares;
mod machine;
mod mas;
mod model;
mod plan;
mod schedule;
mod svg;
mod timeline;
mod traffic;
mod work;

pub use alternative::Alternative;
pub use calibration::{Calibration, PredictionError, Sample, calibrate, calibrate_kernels};
pub use calibration_record::{BreakEven, CalibrationRecord, HeldOutShape};
pub use cost::{Bound, Cost, EnergyBand, Kind, Term, Traffic};
pub use curve::{Curve, Quantity, curves_to_svg};
pub use dataflow::{Dataflow, UnknownDataflow};
pub use device::{
    DeviceProfile, Energy, Figure, FlatStages, MatrixHeads, MatrixUnit, MemoryLevel, Mode, Overheads, Scope, Units,
    VectorUnit,
};
pub use error::CostError;
pub use head_cost::HeadCost;
pub use head_work::{Band, HeadWork};
pub use kernel_times::KernelTimes;
pub use model::CostModel;
pub use timeline::{Span, Timeline, Unit};
pub use work::{ModuleWork, Softmax, Work};
