//! Arguments of the commands that run attention on the machine at hand.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use maskwright_blueprint::BlockSize;
use serde::Serialize;

use super::SoftmaxOf8Bit;
use crate::measure::{Inputs, Precisions};

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    Attention(BenchAttentionArguments),
}

/// Time the attention kernels on this machine.
///
/// Every case is one call from f32 inputs to f32 output, under random masks. Cases of one length are timed in turn, over
/// and over, so that a disturbance hits all of them. The environment variable `MASKWRIGHT_KERNEL` chooses the
/// instructions: portable, avx2, avx512-vnni, avx512 or amx.
#[derive(Debug, Args)]
pub(crate) struct BenchAttentionArguments {
    /// Heads of the module.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) heads: u32,
    /// Tokens, as many queries as keys.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "128,512,2048", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) tokens: Vec<u32>,
    /// Width of a head, a multiple of 8.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) head_dim: u32,
    /// Block sizes: 8, 16 or 32.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "16", value_parser = block_size)]
    pub(crate) block_sizes: Vec<BlockSize>,
    /// Shares of the blocks that are computed, above 0 and at most 1; every row keeps one block at least.
    #[arg(long, value_name = "SHARE,..", value_delimiter = ',', default_value = "1,0.5,0.1", value_parser = density)]
    pub(crate) densities: Vec<f64>,
    /// Precisions of the blocks: fp32, bf16, int8, mixed (which is 40/40/20), or the shares of 8, 16 and 32 bit in a
    /// hundred.
    #[arg(long, value_name = "P,..", value_delimiter = ',', default_value = "fp32,bf16,int8,mixed")]
    pub(crate) precisions: Vec<Precisions>,
    /// Threads that one call uses.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1")]
    pub(crate) threads: Vec<NonZeroUsize>,
    /// What the caches hold when a call begins: its own inputs, or something else.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "hot")]
    pub(crate) inputs: Vec<Inputs>,
    /// Arithmetic of the softmax over 8-bit scores.
    #[arg(long, value_enum, default_value_t = SoftmaxOf8Bit::Float)]
    pub(crate) softmax: SoftmaxOf8Bit,
    /// Whether blocks may be computed at a finer precision than the mask says.
    #[arg(long, value_enum, default_value_t = PromotionOfBlocks::WhereFaster)]
    pub(crate) promotion: PromotionOfBlocks,
    /// Samples of each case; median and percentiles are over them.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) repetitions: u32,
    /// Say where the time goes, too: shares of packing, scores, softmax, values and rows, on one thread. A look at the clock
    /// stands between any two of them.
    #[arg(long)]
    pub(crate) phases: bool,
    /// Of the masks and inputs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print one JSON document instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whether blocks may be computed at a finer precision than the mask says.
#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PromotionOfBlocks {
    /// Where that is faster on the kernel at hand, as plans do unless told otherwise.
    WhereFaster,
    /// Every block as the mask says.
    Never,
}

/// Measure this machine and write its profile.
///
/// Times a thousand masks with the attention kernels, over and over in turn, fits the cost model to the times of
/// undisturbed calls, and states how well it predicts masks that were not in the fit. `--device host` finds the file in the
/// folder that a command runs in. Some three minutes on a quiet machine with AVX-512, longer on a busy one, where these
/// times take longer to settle, or with slower instructions; `--at-most` bounds it. Keep the machine quiet meanwhile.
#[derive(Debug, Args)]
pub(crate) struct CalibrateArguments {
    /// The profile to write.
    #[arg(short, long, value_name = "FILE", default_value = "host.ron")]
    pub(crate) out: PathBuf,
    /// Threads that one call uses.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) threads: NonZeroUsize,
    /// A dense attention that was measured elsewhere on this machine, to state below which density a mask is faster:
    /// name, tokens of 12 heads of width 64, and seconds, such as `torch SDPA fp32=512:0.0107`; may be given repeatedly.
    #[arg(long, value_name = "NAME=TOKENS:SECONDS", value_parser = peer)]
    pub(crate) peer: Vec<Peer>,
    /// Measure at most this long, in seconds; the fit comes on top.
    #[arg(long, value_name = "SECONDS", default_value_t = 240, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) at_most: u32,
    /// Of the masks and inputs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print one JSON document instead of the summary.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A dense attention of another library, as the command line writes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) tokens: u32,
    pub(crate) seconds: f64,
}

fn block_size(text: &str) -> Result<BlockSize, String> {
    let tokens: u32 = text.parse().map_err(|_| format!("block size is 8, 16 or 32 tokens, not {text}"))?;
    BlockSize::try_from(tokens).map_err(|error| error.to_string())
}

fn density(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("a density is a share above 0 and at most 1".into()),
    }
}

fn peer(text: &str) -> Result<Peer, String> {
    let parsed = || {
        let (name, figures) = text.rsplit_once('=')?;
        let (tokens, seconds) = figures.split_once(':')?;
        let (tokens, seconds) = (tokens.parse().ok()?, seconds.parse().ok()?);
        let possible = !name.is_empty() && (1..=16_384).contains(&tokens) && seconds > 0.0 && f64::is_finite(seconds);
        possible.then(|| Peer { name: name.into(), tokens, seconds })
    };
    parsed()
        .ok_or_else(|| "write NAME=TOKENS:SECONDS with 1 to 16384 tokens, such as `torch SDPA fp32=512:0.0107`".into())
}
