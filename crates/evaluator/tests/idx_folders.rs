//! Folders of IDX files as a task: any side, any number of classes.

use std::{fs, path::Path};

use burn::tensor::Device;
use maskwright_evaluator::{Task, TaskData, TaskError};
use maskwright_transformer::{EncoderConfig, EncoderInput, Inputs, Model};

fn idx(shape: &[u32], bytes: &[u8]) -> Vec<u8> {
    let lengths = shape.iter().flat_map(|length| length.to_be_bytes());
    [0, 0, 8, shape.len() as u8].into_iter().chain(lengths).chain(bytes.iter().copied()).collect()
}

/// A part of `count` images: the pixels of image n are all n, its label is n modulo 3.
fn write(folder: &Path, part: &str, [count, height, width]: [u32; 3]) {
    let pixels: Vec<u8> = (0..count).flat_map(|at| vec![at as u8; (height * width) as usize]).collect();
    let labels: Vec<u8> = (0..count).map(|at| (at % 3) as u8).collect();
    fs::write(folder.join(format!("{part}-images-idx3-ubyte")), idx(&[count, height, width], &pixels)).unwrap();
    fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), idx(&[count], &labels)).unwrap();
}

fn task(folder: &Path, deviation: f32, classes: u32) -> Task {
    Task::Idx { name: "digits".into(), folder: folder.into(), mean: 0.5, deviation, classes }
}

/// As a model takes it that tells ten classes apart.
fn load(task: &Task, input: EncoderInput) -> Result<TaskData, TaskError> {
    let config = EncoderConfig { input, width: 2, layers: 1, heads: 1, mlp: 2, classes: 10 };
    task.load(&Model::Encoder(config.init(1, &Device::flex())), None)
}

const SIX: EncoderInput = EncoderInput::Image { side: 6, patch: 3, channels: 1, overlap: 0 };

#[test]
fn images_get_background_to_the_models_side_and_the_last_training_images_validate() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "train", [25, 3, 3]);
    write(folder.path(), "t10k", [4, 3, 3]);
    let data = load(&task(folder.path(), 0.25, 3), SIX).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (23, 4));
    assert_eq!(data.validation.labels(), [23 % 3, 24 % 3]); // a tenth of 25
    let Inputs::Images(images) = data.test.batch(&[3], &Device::flex()).unwrap() else { panic!("these are images") };
    let pixels: Vec<f32> = images.into_data().try_to_vec().unwrap();
    let (three, background) = ((3.0 / 255.0 - 0.5) / 0.25, -2.0);
    for (at, pixel) in pixels.iter().enumerate() {
        let inside = (1..4).contains(&(at / 6)) && (1..4).contains(&(at % 6));
        assert_eq!(*pixel, if inside { three } else { background }, "pixel {at}");
    }
}

#[test]
fn a_task_of_more_classes_than_the_model_has_is_refused_whatever_its_labels_are() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "train", [25, 3, 3]);
    write(folder.path(), "t10k", [4, 3, 3]);
    assert!(load(&task(folder.path(), 0.25, 10), SIX).is_ok());
    assert_eq!(
        load(&task(folder.path(), 0.25, 20), SIX).unwrap_err().to_string(),
        "the model reads images of 6 x 6 in 1 channels and 10 classes, the task gives images of 6 x 6 in 1 channels and \
         20 classes: change `model.source` or `task`"
    );
}

#[test]
fn fashion_mnist_is_such_a_folder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/fashion-mnist");
    let fashion = Task::FashionMnist { folder: folder.clone() };
    let digits = Task::Idx { name: "clothes".into(), folder, mean: 0.2860, deviation: 0.3530, classes: 10 };
    let input = EncoderInput::Image { side: 32, patch: 8, channels: 1, overlap: 0 };
    let [as_digits, as_fashion] = [&digits, &fashion].map(|task| load(task, input).unwrap());
    assert_eq!(as_digits.digest(), as_fashion.digest());
    assert!(as_fashion.mirrors && !as_digits.mirrors, "a mirrored shirt is a shirt, a mirrored 2 is no digit");
    // Its padding is part of what it is, whatever the model.
    let larger = EncoderInput::Image { side: 40, patch: 8, channels: 1, overlap: 0 };
    assert!(load(&digits, larger).is_ok());
    assert!(matches!(load(&fashion, larger), Err(TaskError::Unfit { .. })));
}

#[test]
fn a_folder_that_is_otherwise_gives_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |task: &Task, input| load(task, input).unwrap_err().to_string();
    let digits = task(folder.path(), 0.25, 3);
    let text = refusal(&digits, SIX);
    assert!(text.starts_with("no `train-images-idx3-ubyte` in "), "{text}");

    write(folder.path(), "t10k", [4, 3, 3]);
    for shape in [[20, 3, 4], [20, 7, 7]] {
        write(folder.path(), "train", shape);
        let text = refusal(&digits, SIX);
        let expected = format!(
            "holds an array of shape {shape:?}, expected square images of at most 6 x 6, which the model reads"
        );
        assert!(text.ends_with(&expected), "{text}");
    }
    write(folder.path(), "train", [20, 3, 3]);
    let text = refusal(&task(folder.path(), 0.25, 2), SIX);
    assert!(text.ends_with("train-labels-idx1-ubyte holds a label 2, expected labels 0 to 1"), "{text}");
    let text = refusal(&task(folder.path(), 0.0, 3), SIX);
    assert_eq!(text, "deviation is 0; a number above 0, which pixels are divided by");
    let text = refusal(&task(folder.path(), 0.25, 257), SIX);
    assert_eq!(text, "classes is 257; 1 to 256, for a label is one byte");

    let text = refusal(&digits, EncoderInput::Image { side: 6, patch: 3, channels: 3, overlap: 0 });
    assert!(text.starts_with("the model reads images of 6 x 6 in 3 channels"), "{text}");
    let text = refusal(&digits, EncoderInput::Tokens { length: 8, vocabulary: 5 });
    assert!(text.contains("the task gives images and 3 classes"), "{text}");
    assert!(load(&digits, SIX).is_ok());
}
