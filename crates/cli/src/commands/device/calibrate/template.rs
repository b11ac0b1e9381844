use std::{fs, num::NonZeroUsize};

use maskwright_blueprint::Precision;
use maskwright_cost_model::{CostError, DeviceProfile, Figure, MatrixHeads, Scope};
use maskwright_kernels::Kernel;

use super::{cores, rounds::Measured};

/// A cache as the system describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cache {
    pub(super) level: u32,
    pub(super) bytes: usize,
}

/// Data caches of the first core, innermost first; typical ones where the system says nothing.
pub(super) fn caches() -> Vec<Cache> {
    let described = (0..8).filter_map(|index| {
        let of = |name: &str| {
            let text = fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}")).ok()?;
            Some(text.trim().to_owned())
        };
        let kib: usize = of("size")?.strip_suffix('K')?.parse().ok()?;
        let cache = Cache { level: of("level")?.parse().ok()?, bytes: kib << 10 };
        (of("type")? != "Instruction" && (16..1 << 20).contains(&kib)).then_some(cache)
    });
    let mut caches: Vec<Cache> = described.collect();
    caches.sort_by_key(|cache| cache.bytes);
    caches.dedup_by_key(|cache| cache.bytes);
    caches.truncate(3);
    match caches.is_empty() {
        true => vec![Cache { level: 1, bytes: 32 << 10 }, Cache { level: 2, bytes: 1 << 20 }],
        false => caches,
    }
}

/// The profile before its kernels are fitted: measured peaks, clock and bandwidths; energies, which nothing here measures,
/// are those of `cpu-avx512`.
pub(super) fn template(
    measured: &Measured,
    kernel: Kernel,
    threads: NonZeroUsize,
    note: &str,
) -> Result<DeviceProfile, CostError> {
    let mut profile = DeviceProfile::named("cpu-avx512")?;
    let figure = |value: f64, how: &str| Figure { value, source: format!("measured: {how}; {note}"), verified: true };
    let assumed = |value: f64, why: &str| Figure { value, source: format!("assumed: {why}"), verified: false };
    let peaks = &measured.peaks;
    let (tile, lanes) = (f64::from(kernel.tile_queries()), f64::from(kernel.vector_words()));
    profile.name = "host".into();
    profile.summary = format!("This machine as `device calibrate` measured it, {note}; energies are assumed");
    profile.clock_hz = figure(peaks.clock_hertz, "a chain of dependent additions, the best of many");
    profile.cores = assumed(cores(threads), "the threads that it was calibrated with, each on a core");
    for precision in Precision::ALL {
        let rate = peaks.of(precision) / 2.0 / peaks.clock_hertz;
        profile.matrix.macs_per_cycle.insert(precision, figure(rate, "the kernel's products in registers alone"));
    }
    profile.matrix.tile_queries = assumed(tile, "queries that the kernel computes at once");
    profile.matrix.heads =
        kernel.matrix_heads().map(|[least_block, head_dim_multiple]| MatrixHeads { least_block, head_dim_multiple });
    profile.vector.lanes = assumed(lanes, "32-bit lanes of the kernel's vectors");
    let levels = profile.memory.clone();
    let (Some(inner), Some(shared), Some(dram)) = (levels.first(), levels.get(2), levels.last()) else {
        return Ok(profile);
    };
    profile.memory.clear();
    let last = measured.caches.len().saturating_sub(1);
    for (at, (cache, bytes_per_s)) in measured.caches.iter().enumerate() {
        let mut level = if at == last && at > 0 { shared.clone() } else { levels.get(at).unwrap_or(inner).clone() };
        level.name = format!("L{}", cache.level);
        level.scope = if at == last && at > 0 { Scope::Shared } else { Scope::PerCore };
        level.bytes = assumed(cache.bytes as f64, "as the system describes its caches");
        level.bytes_per_s = figure(*bytes_per_s, "reading five eighths of it, over and over");
        profile.memory.push(level);
    }
    let mut dram = dram.clone();
    dram.bytes_per_s = figure(measured.memory_bytes_per_s, "one core reading 256 MiB, over and over");
    profile.memory.push(dram);
    Ok(profile)
}
