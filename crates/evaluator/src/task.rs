use std::path::PathBuf;

use maskwright_blueprint::Digest;
use maskwright_transformer::{CheckpointError, Model, Reads, Tokeniser};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Examples, GlueError, GlueTask, IdxError, ImageFolder, ImageFolderError, ListOps, ListOpsError, ParallelFiles,
    ParallelTextError, SecondMeasure, SentencePair, TextTable, TextTableError, block_recall,
    fashion_mnist::FASHION_MNIST, idx_folder::IdxFolder, image_task, text_task, translation_task::TranslationFiles,
};

/// What a model is asked to do, and where the examples come from. Relative paths count from the working directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Task {
    /// Ten kinds of clothes, 28 x 28 grey images padded to 32 x 32. `folder` holds IDX files, plain or gzipped:
    /// `{train,validation,test}-{images-idx3,labels-idx1}-ubyte[.gz]`, or the whole set with `t10k` for the test files,
    /// whose last 5,000 training images, a tenth of fewer than 50,000, then are the validation examples.
    FashionMnist { folder: PathBuf },
    /// Square grey images in IDX files of the same names, MNIST and its relatives: with `t10k` for the test files the last
    /// 5,000 training images validate, a tenth of fewer than 50,000. Images smaller than the model's get background
    /// around them.
    Idx {
        /// For people and file names.
        name: String,
        folder: PathBuf,
        /// Of the training pixels, in [0, 1]; MNIST's is 0.1307.
        mean: f32,
        /// Standard deviation of the same; MNIST's is 0.3081.
        deviation: f32,
        /// Labels are whole numbers from 0, of so many classes.
        classes: u32,
    },
    /// Recall one symbol of a random sequence; the best mask is known. Generated from a fixed seed.
    BlockRecall,
    /// Values of nested list operations, generated.
    ListOps { sizes: ListOps },
    /// Images in folders, one folder a class. Without a folder `test` those of `val` test, as ImageNet's do. A tenth of the
    /// training images validates where no folder is left for that.
    Images {
        /// For people and file names.
        name: String,
        folder: PathBuf,
        #[serde(default)]
        preparation: ImageFolder,
    },
    /// Texts or pairs of texts to classify, from tables with named columns.
    Texts {
        /// For people and file names.
        name: String,
        train: PathBuf,
        /// By default a tenth of the training examples.
        #[serde(default)]
        validation: Option<PathBuf>,
        test: PathBuf,
        table: TextTable,
    },
    /// Sentences to translate. An answer is a token of the translation; BLEU and chrF are measured on the test split.
    Translation {
        /// For people and file names.
        name: String,
        train: ParallelFiles,
        /// By default a tenth of the training pairs.
        #[serde(default)]
        validation: Option<ParallelFiles>,
        test: ParallelFiles,
        /// Only so many training pairs, the first of their file; by default all.
        #[serde(default)]
        most: Option<u32>,
    },
    /// A task of GLUE. A tenth of its training examples validates; its dev split tests, for labels of GLUE's own test
    /// splits are not public. Beside accuracy, F1 is reported of MRPC, and accuracy on the mismatched dev split of MNLI.
    Glue { task: GlueTask, folder: PathBuf },
}

/// Which examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// What the model trains on.
    Train,
    /// What the search evaluates candidates on.
    Loop,
    /// What decides between finished candidates; disjoint from `Loop`.
    Selection,
    /// What is reported; the search never sees it.
    Test,
}

/// A task's examples, by split.
#[derive(Debug, Clone)]
pub struct TaskData {
    pub train: Examples,
    pub validation: Examples,
    pub test: Examples,
    /// What the task reports beside accuracy on `test`, if anything.
    pub second: Option<SecondMeasure>,
    /// Files of a folder of images whose names are not those of images; they were passed over.
    pub other_files: usize,
    /// Whether an image's mirror image is one of the same class: dense models train on both.
    pub mirrors: bool,
}

/// Why a task's data could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    #[error(
        "no `{name}` in {}: a folder of IDX files holds images and labels of train, validation and test, or of train and \
         t10k (`data/fashion-mnist` ships with the program)",
        folder.display()
    )]
    MissingFile { folder: PathBuf, name: String },
    #[error(transparent)]
    Idx(#[from] IdxError),
    #[error(transparent)]
    ListOps(#[from] ListOpsError),
    #[error(transparent)]
    ImageFolder(#[from] ImageFolderError),
    #[error(transparent)]
    TextTable(#[from] TextTableError),
    #[error(transparent)]
    ParallelText(#[from] ParallelTextError),
    #[error(transparent)]
    Glue(#[from] GlueError),
    #[error(transparent)]
    Tokeniser(#[from] CheckpointError),
    #[error("{} holds {found}, expected {expected}", path.display())]
    Content { path: PathBuf, expected: String, found: String },
    #[error("{task} has no {split} examples: each split needs one or more")]
    Empty { task: String, split: &'static str },
    #[error(
        "{found} training examples are too few to take a tenth of them for validation: bring a validation part, or more of them"
    )]
    TooFew { found: usize },
    #[error(
        "the model's tokenizer.json does not end each text with token {end}, which ends a translation: save it with a \
         post-processor that does"
    )]
    Unended { end: u32 },
    #[error("the model reads {model}, the task gives {task}: change `model.source` or `task`")]
    Unfit { model: String, task: String },
}

impl Task {
    /// The name that blueprints and folders carry.
    pub fn name(&self) -> &str {
        match self {
            Self::FashionMnist { .. } => "fashion-mnist",
            Self::BlockRecall => "block-recall",
            Self::ListOps { .. } => "list-ops",
            Self::Idx { name, .. }
            | Self::Texts { name, .. }
            | Self::Images { name, .. }
            | Self::Translation { name, .. } => name,
            Self::Glue { task: GlueTask::Mrpc, .. } => "mrpc",
            Self::Glue { task: GlueTask::Sst2, .. } => "sst-2",
            Self::Glue { task: GlueTask::Mnli, .. } => "mnli",
        }
    }

    /// How many classes there are to tell apart; none where the answer is a text.
    pub fn classes(&self) -> Result<Option<u32>, TaskError> {
        Ok(Some(match self {
            Self::FashionMnist { .. } | Self::ListOps { .. } => 10,
            Self::BlockRecall => 8,
            Self::Idx { classes, .. } => *classes,
            Self::Images { folder, preparation, .. } => preparation.classes(folder)?.len() as u32,
            Self::Texts { table, .. } => table.labels.classes(),
            Self::Glue { task, .. } => task.classes(),
            Self::Translation { .. } => return Ok(None),
        }))
    }

    /// The training pairs of a translation task.
    pub(crate) fn training_pairs(&self) -> Result<Vec<SentencePair>, TaskError> {
        match self.translation_files() {
            Some(files) => files.training_pairs(),
            None => {
                Err(TaskError::Unfit { model: TO_TRANSLATE.into(), task: format!("`{}`, something else", self.name()) })
            }
        }
    }

    fn translation_files(&self) -> Option<TranslationFiles<'_>> {
        match self {
            Self::Translation { train, validation, test, most, .. } => {
                Some(TranslationFiles { train, validation: validation.as_ref(), test, most: *most })
            }
            _ => None,
        }
    }

    /// Reads or generates the examples as `model` takes them; texts through its tokeniser.
    pub fn load(&self, model: &Model, tokeniser: Option<&Tokeniser>) -> Result<TaskData, TaskError> {
        let data = match self {
            Self::FashionMnist { folder } => TaskData { mirrors: true, ..FASHION_MNIST.load(folder)? },
            Self::Idx { folder, mean, deviation, classes, .. } => {
                let Reads::Images { side, .. } = model.reads() else {
                    let task = format!("images and {classes} classes");
                    return Err(TaskError::Unfit { model: describe(model.reads(), model.classes()), task });
                };
                let side = side as usize;
                let of =
                    IdxFolder { sides: 1..=side, padded: side, mean: *mean, deviation: *deviation, classes: *classes };
                of.load(folder)?
            }
            Self::BlockRecall => block_recall::generate(),
            Self::ListOps { sizes } => sizes.generate()?,
            Self::Images { folder, preparation, .. } => image_task::read(folder, preparation)?,
            Self::Texts { .. } | Self::Glue { .. } => {
                let (Some(tokeniser), Reads::Text { length, padding, .. }) = (tokeniser, model.reads()) else {
                    let task = format!(
                        "texts, which take a model with a tokeniser, and {} classes",
                        self.classes()?.unwrap_or(0)
                    );
                    return Err(TaskError::Unfit { model: describe(model.reads(), model.classes()), task });
                };
                text_task::read(self, &|texts| tokeniser.encode(texts, length as usize, padding))?
            }
            Self::Translation { .. } => {
                let (Some(tokeniser), Model::Marian(translator), Some(files)) =
                    (tokeniser, model, self.translation_files())
                else {
                    let model = describe(model.reads(), model.classes());
                    return Err(TaskError::Unfit { model, task: TO_TRANSLATE.into() });
                };
                files.read(translator.config(), tokeniser)?
            }
        };
        data.check(model, self.classes()?)?;
        for (split, examples) in [("training", &data.train), ("validation", &data.validation), ("test", &data.test)] {
            if examples.is_empty() {
                return Err(TaskError::Empty { task: self.name().into(), split });
            }
        }
        Ok(data)
    }
}

impl TaskData {
    /// The splits of a task that reports accuracy alone.
    pub fn new(train: Examples, validation: Examples, test: Examples) -> Self {
        Self { train, validation, test, second: None, other_files: 0, mirrors: false }
    }

    /// What a dense model is trained on: some training examples and, where that helps, their mirror images.
    pub(crate) fn augmented(&self, train: &Examples) -> Examples {
        if self.mirrors { train.clone().with_mirrored() } else { train.clone() }
    }

    /// How many examples [`TaskData::augmented`] gives.
    pub(crate) fn count_augmented(&self, train: &Examples) -> usize {
        if self.mirrors { 2 * train.len() } else { train.len() }
    }

    /// Every split, the second test split as well, if there is one.
    fn splits(&self) -> Vec<&Examples> {
        let mismatched = match &self.second {
            Some(SecondMeasure::Mismatched(examples)) => Some(examples),
            Some(SecondMeasure::F1 | SecondMeasure::Top5) | None => None,
        };
        [&self.train, &self.validation, &self.test].into_iter().chain(mismatched).collect()
    }

    /// Of all examples.
    pub fn digest(&self) -> Digest {
        Digest::of(self.splits().iter().map(|examples| examples.digest().to_string()))
    }

    /// Texts that were cut because they are longer than the model reads, of all texts; none where none was.
    pub fn truncated(&self) -> Option<(usize, usize)> {
        let splits = self.splits();
        let truncated = splits.iter().map(|examples| examples.truncated()).sum();
        (truncated > 0).then(|| (truncated, splits.iter().map(|examples| examples.count_texts()).sum()))
    }

    /// Pairs of sentences that were passed over because one side is empty, of all splits.
    pub fn empty_pairs(&self) -> usize {
        self.splits().iter().map(|examples| examples.empty_pairs()).sum()
    }

    /// Refuses a model that cannot read these examples or name their classes, also those of which there is no example.
    fn check(&self, model: &Model, declared: Option<u32>) -> Result<(), TaskError> {
        let needs = self.splits().into_iter().map(Examples::needs);
        let (needed, classes) = needs.reduce(most_of).expect("there are three splits or four");
        let classes = classes.max(declared.unwrap_or(0));
        let fits = match (model.reads(), needed) {
            (Reads::Text { length, vocabulary, .. }, Reads::Text { length: l, vocabulary: v, .. }) => {
                length >= l && vocabulary >= v
            }
            (
                Reads::Translations { source, target, vocabulary },
                Reads::Translations { source: s, target: t, vocabulary: v },
            ) => source >= s && target >= t && vocabulary >= v,
            (model, task) => model == task,
        };
        if fits && model.classes() >= classes {
            return Ok(());
        }
        Err(TaskError::Unfit { model: describe(model.reads(), model.classes()), task: describe(needed, classes) })
    }
}

/// What reads both one split of a task and another one.
fn most_of((reads, classes): (Reads, u32), (others, other_classes): (Reads, u32)) -> (Reads, u32) {
    let reads = match (reads, others) {
        (Reads::Text { length, vocabulary, padding }, Reads::Text { length: l, vocabulary: v, .. }) => {
            Reads::Text { length: length.max(l), vocabulary: vocabulary.max(v), padding }
        }
        (
            Reads::Translations { source, target, vocabulary },
            Reads::Translations { source: s, target: t, vocabulary: v },
        ) => Reads::Translations { source: source.max(s), target: target.max(t), vocabulary: vocabulary.max(v) },
        (reads, _) => reads,
    };
    (reads, classes.max(other_classes))
}

/// What a translator reads, and a translation task gives.
const TO_TRANSLATE: &str = "texts to translate";

fn describe(reads: Reads, classes: u32) -> String {
    match reads {
        Reads::Images { side, channels } => {
            format!("images of {side} x {side} in {channels} channels and {classes} classes")
        }
        Reads::Text { length, vocabulary, .. } => {
            format!("at most {length} tokens out of {vocabulary} and {classes} classes")
        }
        Reads::Translations { .. } => TO_TRANSLATE.into(),
    }
}
