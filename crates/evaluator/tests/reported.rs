//! What a task reports beside accuracy, from a folder to a figure.

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use maskwright_blueprint::SecondMetric;
use maskwright_evaluator::{
    DenseModel, Evaluator, Examples, GlueTask, ImageFolder, ModelSource, SecondMeasure, Task, TestFigures, accuracy, f1,
};
use maskwright_transformer::{Attention, Backend, EncoderConfig, EncoderInput, Pooling};
use tempfile::TempDir;

/// A BERT with three classes that reads 16 tokens; a letter is one of them.
fn tiny_bert() -> ModelSource {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../transformer/tests/references/bert"));
    ModelSource::Pretrained { folder, length: Some(16), target_length: None, pooling: Pooling::Mean }
}

fn untrained(source: &ModelSource, task: &Task) -> DenseModel {
    DenseModel::untrained("tiny", source, task, Backend::Flex, 1).unwrap()
}

/// The class that the model finds for each example.
fn found(dense: &DenseModel, examples: &Examples) -> Vec<u32> {
    let all: Vec<usize> = (0..examples.len()).collect();
    let scores = dense.model.forward(examples.batch(&all, &Device::flex()).unwrap(), Attention::Dense);
    let found: Vec<i32> = scores.argmax(1).into_data().convert::<i32>().try_to_vec().unwrap();
    found.into_iter().map(|class| class as u32).collect()
}

fn reported(dense: DenseModel) -> TestFigures {
    let evaluator = Evaluator::new(dense, 1);
    evaluator.test(evaluator.dense(), None).unwrap()
}

fn second(name: &str, value: f64) -> Option<SecondMetric> {
    Some(SecondMetric { name: name.into(), value })
}

/// A table of pairs with these labels, whose texts are letters.
fn pairs(path: &Path, columns: &str, labels: &[&str]) {
    let letter = |at: usize| char::from(b'a' + (at % 26) as u8);
    let row = |(at, label): (usize, &&str)| format!("{label}\t{}\t{} {}\n", letter(at), letter(at * 7), letter(at * 3));
    let rows: String = labels.iter().enumerate().map(row).collect();
    fs::write(path, format!("{columns}\n{rows}")).unwrap();
}

#[test]
fn mrpc_reports_the_f1_of_class_one_on_its_dev_split() {
    let folder = tempfile::tempdir().unwrap();
    let columns = "Quality\t#1 String\t#2 String";
    pairs(&folder.path().join("train.tsv"), columns, &["0", "1"].repeat(10));
    // Whichever class is always found, F1 is neither the accuracy nor that of class 0.
    pairs(&folder.path().join("dev.tsv"), columns, &["1", "1", "0", "1", "0", "1", "0", "1"]);
    let task = Task::Glue { task: GlueTask::Mrpc, folder: folder.path().into() };
    let dense = untrained(&tiny_bert(), &task);
    assert_eq!((dense.data.train.len(), dense.data.validation.len(), dense.data.test.len()), (18, 2, 8));
    assert_eq!(dense.data.test.labels().iter().sum::<u32>(), 5);
    // The checkpoint's classifier of three classes is of no use, nor is its pooler: a weight and a bias each.
    assert_eq!((dense.drawn.join(" "), dense.ignored), ("classifier.weight classifier.bias".into(), 4));

    let (found, labels) = (found(&dense, &dense.data.test), dense.data.test.labels().to_vec());
    let figures = reported(dense);
    assert_eq!(figures.accuracy, accuracy(&found, &labels));
    assert_eq!(figures.second, second("F1", f1(&found, &labels, 1)));
}

#[test]
fn mnli_reports_accuracy_on_the_mismatched_split_where_that_is_there() {
    const NAMES: [&str; 3] = ["entailment", "neutral", "contradiction"];
    let [e, n, c] = NAMES;
    let folder = tempfile::tempdir().unwrap();
    let columns = "gold_label\tsentence1\tsentence2";
    pairs(&folder.path().join("train.tsv"), columns, &NAMES.repeat(10));
    // Whichever class is always found, the two splits differ in accuracy.
    pairs(&folder.path().join("dev_matched.tsv"), columns, &[e, n, n, c, c, c]);
    let mismatched = folder.path().join("dev_mismatched.tsv");
    pairs(&mismatched, columns, &[e, e, n, c]);
    let rows = fs::read_to_string(&mismatched).unwrap();
    fs::write(&mismatched, format!("{rows}neutral\tabc abc abc abc abc\tabc\n")).unwrap();
    let task = Task::Glue { task: GlueTask::Mnli, folder: folder.path().into() };

    let dense = untrained(&tiny_bert(), &task);
    let data = &dense.data;
    assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (27, 3, 6));
    assert_eq!(data.truncated(), Some((1, 30 + 6 + 5)));
    assert!(dense.drawn.is_empty(), "the checkpoint has three classes");
    let (both, Some(SecondMeasure::Mismatched(others))) = (data.digest(), &data.second) else {
        panic!("{:?}", data.second)
    };
    assert_eq!(others.len(), 5);
    let [expected, on_others] =
        [&data.test, others].map(|examples| accuracy(&found(&dense, examples), examples.labels()));
    let figures = reported(dense);
    assert_eq!((figures.accuracy, figures.second), (expected, second("accuracy, mismatched", on_others)));

    fs::remove_file(mismatched).unwrap();
    let dense = untrained(&tiny_bert(), &task);
    assert_ne!(dense.data.digest(), both, "other inputs");
    assert_eq!(reported(dense).second, None);
}

/// So many classes of the same picture, each with two to train on and one to test, and two files that are no pictures.
fn flags(classes: usize) -> (TempDir, Task) {
    let folder = tempfile::tempdir().unwrap();
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references/images/colour.png");
    for class in 0..classes {
        for (part, names) in [("train", &["1.png", "2.png"][..]), ("test", &["3.png"])] {
            let class = folder.path().join(part).join(format!("class-{class}"));
            fs::create_dir_all(&class).unwrap();
            for name in names {
                fs::copy(&picture, class.join(name)).unwrap();
            }
        }
    }
    fs::write(folder.path().join("train/class-0/notes.txt"), "blue").unwrap();
    fs::write(folder.path().join("test/class-1/notes.txt"), "red").unwrap();
    let preparation = ImageFolder { shorter: 12, side: 12, ..ImageFolder::default() };
    let task = Task::Images { name: "flags".into(), folder: folder.path().into(), preparation };
    (folder, task)
}

fn tiny_vit(classes: u32) -> ModelSource {
    let input = EncoderInput::Image { side: 12, patch: 4, channels: 3, overlap: 0 };
    ModelSource::New { encoder: EncoderConfig { input, width: 8, layers: 1, heads: 1, mlp: 8, classes } }
}

#[test]
fn images_without_a_test_part_are_tested_on_the_validation_part_as_imagenet_is() {
    let (folder, task) = flags(6);
    let with_test = untrained(&tiny_vit(6), &task).data;
    for name in ["val", "validation"] {
        let before = if name == "val" { "test" } else { "val" };
        fs::rename(folder.path().join(before), folder.path().join(name)).unwrap();
        let data = untrained(&tiny_vit(6), &task).data;
        assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (10, 2, 6));
        assert_eq!(data.digest(), with_test.digest(), "the same images train, validate and test");
    }
    // With a part for each, none is taken from another.
    fs::create_dir_all(folder.path().join("test/class-1")).unwrap();
    fs::rename(folder.path().join("validation/class-1/3.png"), folder.path().join("test/class-1/3.png")).unwrap();
    let data = untrained(&tiny_vit(6), &task).data;
    assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (12, 5, 1));
}

#[test]
fn images_of_more_than_five_classes_report_top_5_and_files_that_were_passed_over() {
    let (_folder, task) = flags(6);
    let dense = untrained(&tiny_vit(6), &task);
    assert_eq!((dense.data.train.len(), dense.data.validation.len(), dense.data.test.len()), (10, 2, 6));
    let told = ["2 files in the folder of images were passed over because their names do not end in jpg, jpeg or png"];
    assert_eq!(dense.caveats().sentences(), told);
    // The same picture gets the same scores: five labels of six are among the five highest, one is the highest.
    let figures = reported(dense);
    assert_eq!((figures.accuracy, figures.second), (1.0 / 6.0, second("top-5", 5.0 / 6.0)));

    let (_folder, task) = flags(5);
    assert_eq!(reported(untrained(&tiny_vit(5), &task)).second, None);
}
