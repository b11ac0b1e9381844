use std::{env, fs, thread};

use maskwright_blueprint::Precision;
use maskwright_kernels::{Kernel, KernelError, peak};
use serde::Serialize;

/// The machine that figures were measured on.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Host {
    /// As the system names it.
    pub(crate) cpu: String,
    /// CPUs that this process may use.
    pub(crate) logical_cpus: usize,
    /// Which instructions attention is computed with.
    pub(crate) kernel: &'static str,
    /// How the system chooses the clock, where it says so.
    pub(crate) governor: Option<String>,
}

/// What one core reached at most in this run.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Peaks {
    pub(crate) clock_hertz: f64,
    pub(crate) int8_operations_per_s: f64,
    pub(crate) bf16_operations_per_s: f64,
    pub(crate) fp32_operations_per_s: f64,
}

/// Measurements of each peak in one go; the best one counts.
const TRIES: usize = 5;

impl Host {
    pub(crate) fn of(kernel: Kernel) -> Self {
        let cpus = thread::available_parallelism().map_or(1, |count| count.get());
        let governor = fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").ok();
        Self {
            cpu: cpu_name(),
            logical_cpus: cpus,
            kernel: kernel.name(),
            governor: governor.map(|text| text.trim().to_owned()),
        }
    }
}

fn cpu_name() -> String {
    let described = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |key: &str| {
        let line = described.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    match (of("model name"), of("cpu family"), of("model")) {
        (Some(name), Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        (Some(name), ..) => name,
        _ => format!("a CPU of the architecture {}", env::consts::ARCH),
    }
}

impl Peaks {
    /// Measures again and keeps what is better.
    pub(crate) fn improve(&mut self, kernel: Kernel) -> Result<(), KernelError> {
        for _ in 0..TRIES {
            self.clock_hertz = self.clock_hertz.max(peak::clock_hertz());
            for precision in Precision::ALL {
                let found = peak::operations_per_second(kernel, precision)?;
                let best = self.of_mut(precision);
                *best = best.max(found);
            }
        }
        Ok(())
    }

    /// Operations a second; two for each multiply-accumulate.
    pub(crate) fn of(&self, precision: Precision) -> f64 {
        match precision {
            Precision::Int8 => self.int8_operations_per_s,
            Precision::Half => self.bf16_operations_per_s,
            Precision::Single => self.fp32_operations_per_s,
        }
    }

    /// The highest of that precision and the finer ones: what no block exceeds that is computed as finely as its mask says, or
    /// more finely.
    pub(crate) fn at_least(&self, precision: Precision) -> f64 {
        Precision::ALL.into_iter().filter(|finer| *finer >= precision).map(|of| self.of(of)).fold(0.0, f64::max)
    }

    fn of_mut(&mut self, precision: Precision) -> &mut f64 {
        match precision {
            Precision::Int8 => &mut self.int8_operations_per_s,
            Precision::Half => &mut self.bf16_operations_per_s,
            Precision::Single => &mut self.fp32_operations_per_s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_a_precision_or_finer_is_the_highest_that_fulfils_a_mask() {
        let [int8_operations_per_s, bf16_operations_per_s, fp32_operations_per_s] = [4.0, 2.0, 3.0];
        let peaks = Peaks { clock_hertz: 1.0, int8_operations_per_s, bf16_operations_per_s, fp32_operations_per_s };
        assert_eq!(Precision::ALL.map(|precision| peaks.at_least(precision)), [4.0, 3.0, 3.0]);
    }
}
