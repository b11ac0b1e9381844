use std::collections::BTreeMap;

use maskwright_blueprint::Precision;

use crate::{DeviceProfile, Figure, KernelTimes, device::MOST_LEVELS};

impl DeviceProfile {
    /// What is impossible in this profile, one sentence each; empty for every profile that was read from a file.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (place, figure) in self.figures() {
            let may_be_zero =
                ["joules", "overheads", "static_watts", "kernels"].iter().any(|part| place.contains(part));
            let value = figure.value;
            if !value.is_finite() || value < 0.0 || (value == 0.0 && !may_be_zero) {
                let allowed = if may_be_zero { "zero or more" } else { "more than zero" };
                problems.push(format!("{place} is {value}; it has to be {allowed} and finite"));
            }
            if figure.source.trim().is_empty() {
                problems.push(format!(
                    "{place} has no source: name the data sheet, the paper, the measurement or the assumption"
                ));
            }
        }
        self.precisions_hang_together(&mut problems);
        self.memory_grows_outwards(&mut problems);
        for (name, kernels) in [("kernels", &self.kernels), ("vector_kernels", &self.vector_kernels)] {
            let problems_of = |kernels: &KernelTimes| kernels.problems(name, &self.matrix.macs_per_cycle);
            problems.extend(kernels.iter().flat_map(problems_of));
        }
        if self.vector_kernels.is_some() != (self.kernels.is_some() && self.matrix.heads.is_some()) {
            problems.push(
                "vector_kernels are those of heads that matrix.heads leaves out: both are there beside kernels, or neither"
                    .into(),
            );
        }
        if self.matrix.heads.is_some_and(|heads| heads.head_dim_multiple == 0) {
            problems.push("matrix.heads.head_dim_multiple is 0; it has to be one or more".into());
        }
        let mut expect = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.into());
            }
        };
        let energy = &self.energy;
        expect(
            self.vector.integer_softmax_lane_cycles.value <= self.vector.softmax_lane_cycles.value,
            "vector.integer_softmax_lane_cycles is above softmax_lane_cycles: give both the same value where the \
             integer softmax gains nothing",
        );
        expect(energy.low_factor.value <= 1.0, "energy.low_factor is a share: at most 1");
        expect(energy.high_factor.value >= 1.0, "energy.high_factor is a multiple: at least 1");
        expect(
            energy.static_watts.value < energy.limit_watts.value,
            "energy.static_watts is not below energy.limit_watts: nothing is left for the work",
        );
        expect(!self.name.chars().any(char::is_control), "name holds a control character");
        for mode in &self.modes {
            expect(
                mode.static_watts.value < mode.limit_watts.value,
                &format!("mode {}: static_watts is not below limit_watts: nothing is left for the work", mode.name),
            );
        }
        for (place, figure) in [
            ("cores", &self.cores),
            ("matrix.tile_queries", &self.matrix.tile_queries),
            ("matrix.tile_keys", &self.matrix.tile_keys),
        ] {
            expect(figure.value.fract() == 0.0, &format!("{place} is a count: a whole number"));
            expect(figure.value <= 65536.0, &format!("{place} is at most 65536"));
        }
        problems
    }

    /// What a reader should know before trusting a prediction: numbers that nobody has compared with their source.
    pub fn unverified(&self) -> Vec<(String, &Figure)> {
        self.figures().into_iter().filter(|(_, figure)| !figure.verified).collect()
    }

    fn precisions_hang_together(&self, problems: &mut Vec<String>) {
        let (matrix, energies) = (&self.matrix, &self.energy.joules_per_mac);
        let rates = &matrix.macs_per_cycle;
        if rates.is_empty() {
            problems
                .push("matrix.macs_per_cycle names no precision: a device computes at 1, 2 or 4 bytes at least".into());
        }
        let names = |of: &BTreeMap<Precision, Figure>| {
            of.keys().map(|precision| precision.bytes().to_string()).collect::<Vec<_>>().join(", ")
        };
        for (place, other) in [("energy.joules_per_mac", energies), ("matrix.utilisation", &matrix.utilisation)] {
            if !rates.keys().eq(other.keys()) {
                problems.push(format!(
                    "matrix.macs_per_cycle has precisions {}, {place} has {}: both list the same ones",
                    names(rates),
                    names(other)
                ));
            }
        }
        if matrix.utilisation.values().any(|share| share.value > 1.0) {
            problems.push("matrix.utilisation is a share: at most 1".into());
        }
        let pairs = |of: &BTreeMap<Precision, Figure>| {
            let figures: Vec<_> = of.iter().map(|(precision, figure)| (precision.bytes(), figure.value)).collect();
            figures.windows(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>()
        };
        let reached = rates.iter().map(|(precision, rate)| {
            let share = matrix.utilisation.get(precision).map_or(1.0, |share| share.value);
            (*precision, Figure { value: rate.value * share, ..rate.clone() })
        });
        for ((coarse, slow), (fine, fast)) in pairs(&reached.collect()) {
            // A fitted share times its rate may be off by a rounding.
            if fast > slow * (1.0 + 1e-9) {
                problems.push(format!(
                    "matrix.macs_per_cycle times utilisation is higher at {fine} bytes than at {coarse}: give {coarse} the same rate, \
                     coarser blocks can always be computed at the finer precision"
                ));
            }
        }
        for ((coarse, dear), (fine, cheap)) in pairs(energies) {
            if cheap < dear {
                problems.push(format!("energy.joules_per_mac is lower at {fine} bytes than at {coarse}"));
            }
        }
    }

    fn memory_grows_outwards(&self, problems: &mut Vec<String>) {
        if !(2..=MOST_LEVELS).contains(&self.memory.len()) {
            problems.push(format!(
                "memory has {} levels: it takes 2 to {MOST_LEVELS}, from the innermost to DRAM",
                self.memory.len()
            ));
        }
        for pair in self.memory.windows(2) {
            if pair[1].bytes.value <= pair[0].bytes.value {
                problems.push(format!(
                    "memory level {} is not larger than {}, which lies inside it",
                    pair[1].name, pair[0].name
                ));
            }
        }
    }
}
