/// What a search is busy with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Training the dense model; unit: steps.
    Train,
    /// Probing the dense model's attention; one unit.
    Calibrate,
    /// One searcher's evaluations (`search` or a baseline's name).
    Search(String),
    /// Measuring one searcher's fastest candidates on the selection split; unit: candidates.
    Select(String),
    /// Fine-tuning one finalist; unit: steps.
    FineTune(String),
    /// Measuring on the test split; unit: blueprints.
    Test,
    /// Training one model of a cross-validation, named; unit: steps.
    Study(String),
}

/// Follows a search while it runs. The search crate never prints; whoever calls it may.
pub trait Watch: Send {
    /// A stage begins, of `total` units.
    fn begin(&mut self, stage: &Stage, total: u64);
    /// `done` units of the stage are done; `note` says the best so far.
    fn advance(&mut self, done: u64, note: &str);
    /// The stage ends; `note` says what it found.
    fn end(&mut self, note: &str);
    /// Something that makes what follows worth less than it seems, told before it is computed.
    fn warn(&mut self, _sentence: &str) {}
    /// Whether the search shall stop at the next checkpoint (Ctrl-C).
    fn is_interrupted(&self) -> bool;
}

/// Follows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Watch for Silent {
    fn begin(&mut self, _: &Stage, _: u64) {}
    fn advance(&mut self, _: u64, _: &str) {}
    fn end(&mut self, _: &str) {}
    fn is_interrupted(&self) -> bool {
        false
    }
}
