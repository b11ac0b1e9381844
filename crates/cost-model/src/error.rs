use std::path::PathBuf;

use maskwright_blueprint::{MaskError, Precision, RonError};

/// Why something has no price.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CostError {
    #[error("no device is called `{name}`: {help}; or give the path of a profile of your own")]
    UnknownDevice { name: String, help: String },
    #[error(
        "this machine has no profile yet: `maskwright device calibrate` writes `host.ron`; looked for {}",
        places.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
    )]
    NoHost { places: Vec<PathBuf> },
    #[error("`{device}` has no mode `{mode}`: {help}")]
    UnknownMode { device: String, mode: String, help: String },
    #[error(transparent)]
    Profile(#[from] RonError),
    #[error(
        "{device} does not compute at {precision}: it supports {supported}; choose one of these for the mask's blocks"
    )]
    Precision { device: String, precision: Precision, supported: String },
    #[error("a batch holds 1 to {limit} examples, not {batch}")]
    Batch { batch: u32, limit: u32 },
    #[error(
        "`{name}` makes no sense: sizes are above zero, shares lie in [0, 1] and those that leave add up to at most 1"
    )]
    Alternative { name: String },
    #[error(
        "a calibration takes a profile with shared units, {least} timings to fit and some to hold out, not {fit} and {held_out}"
    )]
    Calibration { fit: usize, least: usize, held_out: usize },
    #[error(
        "by its profile, dense attention costs {device} {what}, which nothing can be compared with: correct the profile's figures, or choose another `objective`"
    )]
    NoPrice { device: String, what: String },
    #[error("the mask does not fit its head")]
    Mask(#[from] MaskError),
    #[error("{what} is 1 to {limit}, not {found}")]
    Shape { what: &'static str, found: u64, limit: u64 },
}
