use std::{fmt, str::FromStr};

use maskwright_blueprint::nearest;
use serde::{Deserialize, Serialize};

/// In which order a device computes `Q K^T`, softmax and `P V`, and where the scores lie in between.
///
/// Files and arguments write the name in lower case with dashes: `fuse-max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dataflow {
    /// One operator after the other; the score matrix passes DRAM four times.
    LayerWise,
    /// Softmax follows `Q K^T` in a pipeline; the probabilities pass DRAM twice.
    SoftPipe,
    /// Bands of whole rows, scores on chip while they fit (FLAT, arXiv 2107.06419).
    Flat,
    /// Fused row tiles whose stages follow one another, transfers hidden behind them (TileFlow, MICRO'23).
    TileFlow,
    /// Softmax computed online over blocks; no row has to fit (arXiv 2205.14135).
    #[default]
    Flash,
    /// Online softmax in a waterfall of phases on both units (FuseMax, arXiv 2406.10491).
    FuseMax,
    /// Matrix and vector unit as two streams over row tiles (MAS-Attention, arXiv 2411.17720).
    Mas,
}

impl Dataflow {
    pub const ALL: [Self; 7] =
        [Self::LayerWise, Self::SoftPipe, Self::Flat, Self::TileFlow, Self::Flash, Self::FuseMax, Self::Mas];

    /// As files and arguments write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LayerWise => "layer-wise",
            Self::SoftPipe => "soft-pipe",
            Self::Flat => "flat",
            Self::TileFlow => "tile-flow",
            Self::Flash => "flash",
            Self::FuseMax => "fuse-max",
            Self::Mas => "mas",
        }
    }
}

impl fmt::Display for Dataflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no dataflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no dataflow is called `{name}`: {help}")]
pub struct UnknownDataflow {
    name: String,
    help: String,
}

impl FromStr for Dataflow {
    type Err = UnknownDataflow;

    fn from_str(name: &str) -> Result<Self, UnknownDataflow> {
        Self::ALL
            .into_iter()
            .find(|dataflow| dataflow.name() == name)
            .ok_or_else(|| UnknownDataflow { name: name.into(), help: nearest(name, &Self::ALL.map(Self::name)) })
    }
}
