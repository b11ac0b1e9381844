//! Which of many timings, taken in turn, nothing else on the machine disturbed.
//!
//! What else runs comes and goes for longer than one sample takes. So the samples around one tell whether the machine was busy
//! then, although they are of other masks: each is held against the least of its own.

/// Samples before and after one that tell.
const AROUND: usize = 8;

/// Of all moments, the share that are taken to be quiet whatever they look like.
const QUIETEST: f64 = 0.02;

/// How much longer than in the quietest moments calls may take.
const QUIET: f64 = 1.1;

/// Samples of one mask that count at least, its quietest where the machine was hardly ever quiet.
const LEAST_SAMPLES: usize = 5;

/// What a call of one mask takes.
pub(crate) struct Undisturbed {
    /// The middle one of the samples that count. A single least one is now and then taken at a clock that the others did
    /// not have.
    pub(crate) seconds: f64,
    /// Whether as many as are needed seem to have been undisturbed.
    pub(crate) quiet: bool,
}

/// For each of `masks`, which were timed in turn, round after round; `samples` are those of whole rounds, in the order in
/// which they were taken.
pub(crate) fn undisturbed(samples: &[f64], masks: usize) -> Vec<Undisturbed> {
    let of_mask = |mask: usize| samples.iter().enumerate().skip(mask).step_by(masks.max(1));
    let least: Vec<f64> =
        (0..masks).map(|mask| of_mask(mask).map(|(_, &sample)| sample).fold(f64::INFINITY, f64::min)).collect();
    let relative: Vec<f64> = samples.iter().enumerate().map(|(at, sample)| sample / least[at % masks]).collect();
    let busy: Vec<f64> = (0..samples.len())
        .map(|at| {
            let around = at.saturating_sub(AROUND)..(at + AROUND + 1).min(samples.len());
            quantile(relative[around].to_vec(), 0.5)
        })
        .collect();
    let quiet = QUIET * quantile(busy.clone(), QUIETEST);
    (0..masks)
        .map(|mask| {
            let mut of_mask: Vec<(f64, f64)> = of_mask(mask).map(|(at, &sample)| (busy[at], sample)).collect();
            of_mask.sort_by(|a, b| a.0.total_cmp(&b.0));
            let undisturbed = of_mask.partition_point(|(busy, _)| *busy <= quiet);
            let counting = of_mask.into_iter().take(undisturbed.max(LEAST_SAMPLES)).map(|(_, sample)| sample);
            Undisturbed { seconds: quantile(counting.collect(), 0.5), quiet: undisturbed >= LEAST_SAMPLES }
        })
        .collect()
}

/// That below which `share` of `values` lie; zero of none.
fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    values.get((share * last).round() as usize).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_busy_stretches_nor_a_lucky_sample_change_what_is_found() {
        const MASKS: usize = 20;
        let seconds = |mask: usize| 1.0 + mask as f64;
        // Busy for 60 samples of 100, which hits each mask in other rounds; and now and then a faster clock.
        let sample = |at: usize| {
            let disturbed = if at % 100 < 60 { 1.6 } else { 1.0 };
            let lucky = if at.is_multiple_of(97) { 0.93 } else { 1.0 };
            seconds(at % MASKS) * disturbed * lucky
        };
        let samples: Vec<f64> = (0..MASKS * 43).map(sample).collect();
        for (mask, found) in undisturbed(&samples, MASKS).into_iter().enumerate() {
            assert_eq!((found.seconds, found.quiet), (seconds(mask), true));
        }
        assert!(undisturbed(&samples[..2 * MASKS], MASKS).iter().all(|found| !found.quiet), "two samples are too few");
    }

    #[test]
    fn a_machine_that_is_never_quiet_still_gives_a_time() {
        let samples: Vec<f64> = (0..4 * 10).map(|at| 1.0 + (at * 7 % 13) as f64).collect();
        assert!(undisturbed(&samples, 4).iter().all(|found| (1.0..14.0).contains(&found.seconds)));
        assert!(undisturbed(&[], 0).is_empty());
    }
}
