use std::{collections::BTreeMap, time::Instant};

use maskwright_blueprint::{Digest, Provenance};
use maskwright_evaluator::{Effect, Evaluator};

use crate::{
    Candidate, EpisodeRecord, Evaluated, Limit, Reward, SearchError, Stage, Watch,
    archive::Archive,
    environment::Environment,
    finalists::nats,
    run_directory::RunDirectory,
    searcher::{Proposal, Searcher},
};

/// Candidates that are evaluated together; a searcher learns between batches. Part of what a run is: another number
/// gives another run.
pub(crate) const BATCH: usize = 8;

/// The distortion, in nats, that a failed evaluation counts with: as if every answer were wrong and certain.
const FAILED: f64 = 100.0;

/// Proposals in a row of which none is new, after which a searcher has nothing more to say.
const MOST_REPEATS: u32 = 40;

/// What one searcher found.
pub(crate) struct Found {
    /// `search` or a baseline's name.
    pub name: String,
    /// In the order of evaluation.
    pub evaluated: Vec<Evaluated>,
    /// On the selection split, with the index of the evaluation: all candidates of a scan, none of a search.
    pub selected: Vec<(usize, Effect)>,
    /// Origins of those that improved the best, in order.
    pub improvements: Vec<&'static str>,
    /// Those evaluated now, and not known from before a stop or from another searcher.
    pub measured: usize,
    /// Whether the searcher had nothing more to propose.
    pub exhausted: bool,
}

/// Evaluates candidates, each once, and writes down every evaluation; or follows what was written down before.
pub(crate) struct Trials<'a> {
    pub evaluator: &'a Evaluator,
    pub environment: &'a Environment<'a>,
    pub run: &'a mut RunDirectory,
    pub known: BTreeMap<Digest, Effect>,
    pub selected: BTreeMap<Digest, Effect>,
}

impl Trials<'_> {
    /// Lets one searcher evaluate `evaluations` candidates. Without a limit nothing is scored, and every candidate
    /// is measured on the selection split too: that is the scan from which the limit comes.
    pub(crate) fn run(
        &mut self,
        name: &str,
        searcher: &mut dyn Searcher,
        evaluations: usize,
        scoring: Option<(Reward, Limit)>,
        watch: &mut dyn Watch,
    ) -> Result<Found, SearchError> {
        watch.begin(&Stage::Search(name.into()), evaluations as u64);
        let begun = Instant::now();
        let mut found = Found {
            name: name.into(),
            evaluated: Vec::new(),
            selected: Vec::new(),
            improvements: Vec::new(),
            measured: 0,
            exhausted: false,
        };
        let mut best = Archive::default();
        let mut had: BTreeMap<Digest, Evaluated> = BTreeMap::new();
        let mut repeats = 0;
        while found.evaluated.len() < evaluations {
            let most = BATCH.min(evaluations - found.evaluated.len());
            let proposals = searcher.ask(self.environment, most)?;
            if proposals.is_empty() {
                found.exhausted = true;
                break;
            }
            // What this searcher had before costs it nothing: it is told again, and neither recorded nor counted.
            let digests: Vec<Digest> = proposals.iter().map(|proposal| proposal.candidate.digest()).collect();
            let is_fresh = |at: &usize| !had.contains_key(&digests[*at]) && !digests[..*at].contains(&digests[*at]);
            let fresh: Vec<Proposal> = (0..proposals.len()).filter(is_fresh).map(|at| proposals[at].clone()).collect();
            repeats = if fresh.is_empty() { repeats + 1 } else { 0 };
            if repeats == MOST_REPEATS {
                found.exhausted = true;
                break;
            }
            for result in self.evaluate(name, &fresh, scoring, &mut best, &mut found)? {
                had.insert(result.candidate.digest(), result);
            }
            let results: Vec<Evaluated> = digests.iter().map(|digest| had[digest].clone()).collect();
            searcher.tell(self.environment, &results);
            watch.advance(found.evaluated.len() as u64, &best.best().map_or(String::new(), describe));
            if watch.is_interrupted() {
                return Err(SearchError::Interrupted { run: self.run.path().into() });
            }
        }
        let best = best.best().map_or_else(|| "nothing".into(), describe);
        let rate = found.measured as f64 / begun.elapsed().as_secs_f64();
        let reused = 100.0 * self.evaluator.reused_layers();
        watch.end(&format!("{best}; {rate:.1} evaluations a second, {reused:.0} % of all layers so far were known"));
        Ok(found)
    }

    fn evaluate(
        &mut self,
        name: &str,
        proposals: &[Proposal],
        scoring: Option<(Reward, Limit)>,
        best: &mut Archive,
        found: &mut Found,
    ) -> Result<Vec<Evaluated>, SearchError> {
        if proposals.is_empty() {
            return Ok(Vec::new());
        }
        let digests: Vec<Digest> = proposals.iter().map(|proposal| proposal.candidate.digest()).collect();
        let recorded = self.follow(name, &digests)?;
        found.measured += self.measure(proposals, &digests)?;
        let mut records = Vec::with_capacity(proposals.len());
        let mut results = Vec::with_capacity(proposals.len());
        for (proposal, digest) in proposals.iter().zip(&digests) {
            let Effect { accuracy, distortion } = self.known[digest];
            let speed = self.environment.pricing.speed(&proposal.candidate)?;
            // A distortion that is no number is a failed evaluation: recorded, and told as far beyond every limit.
            let finite = distortion.is_finite();
            let counted = if finite { distortion } else { FAILED };
            let reward = scoring.map(|(reward, limit)| reward.score(speed, counted, limit));
            let before = best.best().map(|best| best.reward);
            let improves = finite && reward.is_some_and(|reward| before.is_none_or(|before| reward > before));
            let evaluated = Evaluated {
                candidate: proposal.candidate.clone(),
                speed,
                distortion: counted,
                reward: reward.unwrap_or(speed.ln()),
            };
            let scanned = finite && reward.is_none();
            let selection = scanned.then(|| self.selected(&proposal.candidate, *digest)).transpose()?;
            let selection = selection.filter(|effect| effect.distortion.is_finite());
            if improves {
                found.improvements.push(proposal.origin);
            }
            if finite {
                best.insert(evaluated.clone());
            }
            found.selected.extend(selection.map(|selection| (found.evaluated.len(), selection)));
            records.push(EpisodeRecord {
                episode: found.evaluated.len() as u64,
                searcher: name.into(),
                origin: proposal.origin.into(),
                candidate: *digest,
                density: proposal.candidate.density(self.environment.shape),
                speed,
                distortion: finite.then_some(distortion),
                reward: reward.filter(|_| finite),
                best_reward: reward.and_then(|_| best.best().map(|best| best.reward)),
                accuracy: finite.then_some(accuracy),
                selection,
                failure: (!finite).then(|| "the distortion is not finite".into()),
            });
            found.evaluated.push(evaluated.clone());
            results.push(evaluated);
        }
        match recorded {
            Some(recorded) if recorded == records => Ok(results),
            Some(_) => Err(self.astray()),
            None => {
                self.run.record(&records)?;
                Ok(results)
            }
        }
    }

    /// What was recorded of these candidates before, now known; none when the record has come to its end.
    fn follow(&mut self, name: &str, digests: &[Digest]) -> Result<Option<Vec<EpisodeRecord>>, SearchError> {
        if self.run.left_to_follow() == 0 {
            return Ok(None);
        }
        let mut records = Vec::with_capacity(digests.len());
        for digest in digests {
            let record = self.run.next_recorded().ok_or_else(|| self.astray())?;
            if record.searcher != name || record.candidate != *digest {
                return Err(self.astray());
            }
            let effect = Effect {
                accuracy: record.accuracy.unwrap_or(f64::NAN),
                distortion: record.distortion.unwrap_or(f64::NAN),
            };
            self.known.insert(*digest, effect);
            if let Some(selection) = record.selection {
                self.selected.insert(*digest, selection);
            }
            records.push(record);
        }
        Ok(Some(records))
    }

    fn astray(&self) -> SearchError {
        let why = "its record does not follow from this configuration, data and program".into();
        SearchError::Checkpoint { run: self.run.path().into(), why }
    }

    /// Measures what is not known yet, side by side, and says how much that was.
    fn measure(&mut self, proposals: &[Proposal], digests: &[Digest]) -> Result<usize, SearchError> {
        let mut fresh: Vec<(Digest, &Candidate)> = Vec::new();
        for (proposal, digest) in proposals.iter().zip(digests) {
            if !self.known.contains_key(digest) && !fresh.iter().any(|(other, _)| other == digest) {
                fresh.push((*digest, &proposal.candidate));
            }
        }
        let shape = self.environment.shape;
        let blueprints: Vec<_> =
            fresh.iter().map(|(_, candidate)| candidate.blueprint(shape, Provenance::default())).collect();
        let (measured, effects) = (blueprints.len(), self.evaluator.measure(&blueprints)?);
        self.known.extend(fresh.into_iter().map(|(digest, _)| digest).zip(effects));
        Ok(measured)
    }

    /// A candidate on the selection split without fine-tuning, measured once.
    pub(crate) fn selected(&mut self, candidate: &Candidate, digest: Digest) -> Result<Effect, SearchError> {
        if let Some(known) = self.selected.get(&digest) {
            return Ok(*known);
        }
        let blueprint = candidate.blueprint(self.environment.shape, Provenance::default());
        let effect = self.evaluator.select(self.evaluator.dense(), &blueprint)?;
        self.selected.insert(digest, effect);
        Ok(effect)
    }
}

fn describe(best: &Evaluated) -> String {
    format!("best {:.2}x predicted, distortion {}, reward {:.3}", best.speed, nats(best.distortion), best.reward)
}
