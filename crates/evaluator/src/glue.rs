use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Labels, TextExample, TextRows, TextTable, TextTableError, text_table::Format};

/// A task of GLUE (Wang et al. 2019, arXiv 1804.07461), read from its folder of TSV files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GlueTask {
    /// Do two sentences say the same? 0 no, 1 yes. Reported: F1 of class 1, and accuracy.
    Mrpc,
    /// Is a sentence of a movie review 0 negative or 1 positive? Reported: accuracy.
    Sst2,
    /// Does a premise 0 entail a hypothesis, 1 neither, or 2 contradict it? Reported: accuracy on both dev splits, on the
    /// mismatched one where its file is there.
    Mnli,
}

/// The splits of a GLUE task whose labels are public: figures are reported on the dev splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GlueSplit {
    Train,
    /// Of MNLI: genres that the training split has, too.
    Dev,
    /// Of MNLI alone: genres that the training split does not have.
    DevMismatched,
}

/// Why a GLUE folder could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GlueError {
    #[error("no {} in {}: get the task's folder from gluebenchmark.com", names.join(" or "), folder.display())]
    Missing { folder: PathBuf, names: Vec<String> },
    #[error("{task:?} has no mismatched split: only MNLI has")]
    NoSplit { task: GlueTask },
    #[error(transparent)]
    Table(#[from] TextTableError),
}

impl GlueTask {
    /// How many classes there are.
    pub fn classes(self) -> u32 {
        self.table().labels.classes()
    }

    /// A split's examples one by one.
    pub fn rows(self, folder: &Path, split: GlueSplit) -> Result<TextRows, GlueError> {
        let names = self.files(split).ok_or(GlueError::NoSplit { task: self })?;
        let path = names.iter().map(|name| folder.join(name)).find(|path| path.exists());
        let missing =
            || GlueError::Missing { folder: folder.into(), names: names.iter().map(|&name| name.into()).collect() };
        Ok(self.table().rows_of(&path.ok_or_else(missing)?, Format::Tsv)?)
    }

    /// All examples of a split.
    pub fn read(self, folder: &Path, split: GlueSplit) -> Result<Vec<TextExample>, GlueError> {
        Ok(self.rows(folder, split)?.read_all()?)
    }

    /// The columns as the files name them.
    pub fn table(self) -> TextTable {
        let table = |text: &str, second: Option<&str>, label: &str, labels| TextTable {
            text: text.into(),
            second: second.map(str::to_owned),
            label: label.into(),
            labels,
        };
        match self {
            Self::Mrpc => table("#1 String", Some("#2 String"), "Quality", Labels::Numbers(2)),
            Self::Sst2 => table("sentence", None, "label", Labels::Numbers(2)),
            Self::Mnli => {
                let names = ["entailment", "neutral", "contradiction"].map(str::to_owned);
                table("sentence1", Some("sentence2"), "gold_label", Labels::Names(names.into()))
            }
        }
    }

    /// What a split's file may be called. MRPC also comes as its authors published it, where the second file is the test
    /// split, with labels.
    fn files(self, split: GlueSplit) -> Option<&'static [&'static str]> {
        match (self, split) {
            (Self::Mrpc, GlueSplit::Train) => Some(&["train.tsv", "msr_paraphrase_train.txt"]),
            (Self::Mrpc, GlueSplit::Dev) => Some(&["dev.tsv", "msr_paraphrase_test.txt"]),
            (Self::Sst2 | Self::Mnli, GlueSplit::Train) => Some(&["train.tsv"]),
            (Self::Sst2, GlueSplit::Dev) => Some(&["dev.tsv"]),
            (Self::Mnli, GlueSplit::Dev) => Some(&["dev_matched.tsv"]),
            (Self::Mnli, GlueSplit::DevMismatched) => Some(&["dev_mismatched.tsv"]),
            (Self::Mrpc | Self::Sst2, GlueSplit::DevMismatched) => None,
        }
    }
}
