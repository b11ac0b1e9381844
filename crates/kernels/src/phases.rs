use std::{
    ops::AddAssign,
    time::{Duration, Instant},
};

/// Where the time of one call went, as [`AttentionPlan::run_in_phases`](crate::AttentionPlan::run_in_phases) measures it.
///
/// A look at the clock stands between any two phases of every chunk of a row's keys (at most 256 of a precision), so the sum is a few per cent more than
/// [`run`](crate::AttentionPlan::run) takes: shares are what it is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// Converting and arranging queries, keys and values, once a call.
    pub packing: Duration,
    /// Products of queries and keys; at 16 and 32 bit their weights, too, as a rule.
    pub scores: Duration,
    /// From scores to weights, where that is a step of its own: maxima, exponentials or their table, sums, rounding.
    pub softmax: Duration,
    /// Products of weights and values, and scaling what has been summed before.
    pub values: Duration,
    /// What each row costs besides: arranging its queries, choosing keys, writing its output.
    pub rows: Duration,
}

impl Phases {
    pub fn total(&self) -> Duration {
        self.packing + self.scores + self.softmax + self.values + self.rows
    }

    /// The part of the total that `phase` is, from 0 to 1; 0 of nothing.
    pub fn share(&self, phase: Duration) -> f64 {
        let total = self.total().as_secs_f64();
        if total > 0.0 { phase.as_secs_f64() / total } else { 0.0 }
    }
}

impl AddAssign for Phases {
    fn add_assign(&mut self, other: Self) {
        self.packing += other.packing;
        self.scores += other.scores;
        self.softmax += other.softmax;
        self.values += other.values;
        self.rows += other.rows;
    }
}

/// Told at the end of each phase; adds up the time since the last one, or does nothing.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    pub phases: Phases,
    last: Option<Instant>,
}

impl Stopwatch {
    /// One that measures, from now on; [`Stopwatch::default`] does not.
    pub(crate) fn start() -> Self {
        Self { last: Some(Instant::now()), ..Self::default() }
    }

    #[inline(always)]
    pub(crate) fn lap(&mut self, phase: fn(&mut Phases) -> &mut Duration) {
        if self.last.is_some() {
            self.end_lap(phase);
        }
    }

    #[cold]
    fn end_lap(&mut self, phase: fn(&mut Phases) -> &mut Duration) {
        let now = Instant::now();
        let last = self.last.replace(now).unwrap_or(now);
        *phase(&mut self.phases) += now - last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_total_and_nothing_has_none() {
        let seconds = Duration::from_secs;
        let mut phases = Phases { packing: seconds(1), scores: seconds(2), softmax: seconds(4), ..Phases::default() };
        phases += Phases { values: seconds(1), ..Phases::default() };
        assert_eq!((phases.total(), phases.share(phases.softmax)), (seconds(8), 0.5));
        assert_eq!(Phases::default().share(Duration::ZERO), 0.0);
    }

    #[test]
    fn a_lap_belongs_to_the_phase_that_it_ends() {
        let mut laps = Stopwatch::start();
        std::thread::sleep(Duration::from_millis(2));
        laps.lap(|phases| &mut phases.values);
        assert!(laps.phases.values >= Duration::from_millis(2));
        assert_eq!(laps.phases.total(), laps.phases.values);
    }
}
