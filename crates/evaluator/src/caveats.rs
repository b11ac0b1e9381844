use serde::{Deserialize, Serialize};

use crate::DenseModel;

/// What a reader of a model's figures is to know of what went into them: counts over all splits, and names of tensors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caveats {
    /// Texts that were cut because they are longer than the model reads.
    pub cut_texts: usize,
    /// Of so many texts; a sentence and its translation are two. 0 where none was cut.
    pub texts: usize,
    /// Pairs of sentences that were passed over because one side is empty.
    pub empty_pairs: usize,
    /// Files of a folder of images that were passed over because their names are not those of images.
    pub other_files: usize,
    /// Tensors that the checkpoint lacks, or has for other classes, and that were drawn before training: a classifier's.
    pub drawn_tensors: Vec<String>,
    /// Tensors of the checkpoint that the model has no use for.
    pub ignored_tensors: usize,
}

impl Caveats {
    pub(crate) fn of(dense: &DenseModel) -> Self {
        let (cut_texts, texts) = dense.data.truncated().unwrap_or_default();
        Self {
            cut_texts,
            texts,
            empty_pairs: dense.data.empty_pairs(),
            other_files: dense.data.other_files,
            drawn_tensors: dense.drawn.clone(),
            ignored_tensors: dense.ignored,
        }
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What there is to tell, each as a line for a person.
    pub fn sentences(&self) -> Vec<String> {
        let Self { cut_texts, texts, empty_pairs, other_files, drawn_tensors, ignored_tensors } = self;
        let mut told = Vec::new();
        if *cut_texts > 0 {
            told.push(format!("{cut_texts} of {texts} texts are longer than the model reads and were cut"));
        }
        if *empty_pairs > 0 {
            told.push(format!("{empty_pairs} pairs were passed over because one side is empty"));
        }
        if *other_files > 0 {
            told.push(format!(
                "{other_files} files in the folder of images were passed over because their names do not end in jpg, jpeg \
                 or png"
            ));
        }
        if !drawn_tensors.is_empty() {
            told.push(format!(
                "drawn from the seed before training, because the checkpoint lacks them or has them for other classes: {}",
                drawn_tensors.join(", ")
            ));
        }
        if *ignored_tensors > 0 {
            told.push(format!("{ignored_tensors} tensors of the checkpoint are of no use to this model"));
        }
        told
    }
}
