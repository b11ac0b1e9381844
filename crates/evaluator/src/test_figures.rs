use maskwright_blueprint::{
    Accuracy, AccuracyDrop, SecondAccuracy, SecondMetric, TranslationAccuracy, TranslationQuality,
};

/// What is reported of one model: *measured* on the test split.
#[derive(Debug, Clone, PartialEq)]
pub struct TestFigures {
    /// Share of answers that are right.
    pub accuracy: f64,
    /// Of tasks that report a figure beside accuracy.
    pub second: Option<SecondMetric>,
    /// Of tasks that ask for a translation, by greedy decoding.
    pub translation: Option<TranslationQuality>,
}

impl TestFigures {
    /// The dense model's, from where they were written down beside a masked model's.
    pub fn of_dense(recorded: &Accuracy) -> Self {
        let second = |of: &SecondAccuracy| SecondMetric { name: of.name.clone(), value: of.dense };
        Self {
            accuracy: recorded.dense,
            second: recorded.second.as_ref().map(second),
            translation: recorded.translation.map(|translation| translation.dense),
        }
    }

    /// A masked model's beside the dense model's, both of as many test examples. What only one of them has is left out.
    pub fn beside(self, dense: Self, examples: u64) -> Accuracy {
        let second = dense.second.zip(self.second).map(|(dense, masked)| SecondAccuracy {
            name: masked.name,
            dense: dense.value,
            masked: masked.value,
        });
        let translation = dense.translation.zip(self.translation);
        Accuracy {
            split: "test".into(),
            examples,
            dense: dense.accuracy,
            masked: self.accuracy,
            drop: AccuracyDrop(dense.accuracy - self.accuracy),
            second,
            translation: translation.map(|(dense, masked)| TranslationAccuracy { dense, masked }),
        }
    }
}
