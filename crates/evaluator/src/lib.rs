//! What a mask does to a model's accuracy: tasks and their data, training and masked fine-tuning, calibration
//! statistics of the attention, and the distortion that a search steers by.
//!
//! Three kinds of examples never meet: the model trains on `train`; the search sees `validation` only (its first
//! examples in the loop, the others to select); `test` is for the figures that are reported.

mod bleu;
mod block_recall;
mod calibration;
mod caveats;
mod chrf;
mod class_scores;
mod classification;
mod evaluator;
mod examples;
mod fashion_mnist;
mod folder_images;
mod folds;
mod glue;
mod gzip;
mod idx;
mod idx_folder;
mod image_file;
mod image_folder;
mod image_task;
mod list_ops;
mod model_source;
mod paired;
mod parallel_text;
mod recipe;
mod resize;
mod second_measure;
mod shared_layers;
mod splits;
mod statistics;
mod study;
mod task;
mod test_figures;
mod text_table;
mod text_task;
mod training;
mod training_checkpoint;
mod translated;
mod translation_task;
mod translations;
mod treatment;

pub use bleu::Bleu;
pub use calibration::{BlockStatistics, Calibration, HeadStatistics};
pub use caveats::Caveats;
pub use chrf::chrf;
pub use classification::{accuracy, f1, top_k};
pub use evaluator::{DenseModel, Effect, Evaluator, EvaluatorError};
pub use examples::Examples;
pub use folds::Fold;
pub use glue::{GlueError, GlueSplit, GlueTask};
pub use idx::{Idx, IdxError};
pub use image_file::ImageFault;
pub use image_folder::{ImageFolder, ImageFolderError, ImagePart, LabelledImages};
pub use list_ops::{Expression, ListOps, ListOpsError};
pub use model_source::ModelSource;
pub use paired::{DropInterval, McNemar};
pub use parallel_text::{ParallelFiles, ParallelText, ParallelTextError, SentencePair};
pub use recipe::{Decay, Recipe};
pub use second_measure::SecondMeasure;
pub use statistics::{Regression, mean, standard_deviation};
pub use study::{Study, StudyProgress, Trial};
pub use task::{Split, Task, TaskData, TaskError};
pub use test_figures::TestFigures;
pub use text_table::{Labels, ParquetFault, RowFault, TextExample, TextRows, TextTable, TextTableError};
pub use training::{Judge, Kept, Store, Teacher, Trained, Training, TrainingError, TrainingProgress};
pub use translated::Translated;
pub use treatment::Treatment;
