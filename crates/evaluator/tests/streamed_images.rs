//! Images that are decoded when a batch asks for them, beside the same images kept in memory.

use std::{fs, ops::ControlFlow, path::Path};

use burn::tensor::Device;
use maskwright_blueprint::{BlockSize, Blueprint, Precision};
use maskwright_evaluator::{
    DenseModel, Evaluator, EvaluatorError, ImageFolder, ImageFolderError, ImagePart, ModelSource, Recipe, Task,
    TrainingError, TrainingProgress,
};
use maskwright_transformer::{Backend, EncoderConfig, EncoderInput, weights_digest};
use tempfile::TempDir;

const PICTURES: [&str; 4] = ["colour.png", "colour.jpg", "grey.png", "subsampled.jpg"];

/// Two classes with ten pictures to train on and four to test on each; all are the same four, under many names.
fn set() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (part, count) in [("train", 10), ("val", 4)] {
        for class in ["cat", "dog"] {
            let of_class = folder.path().join(part).join(class);
            fs::create_dir_all(&of_class).unwrap();
            for at in 0..count {
                let picture = PICTURES[(at + class.len() * usize::from(class == "dog")) % 4];
                let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references/images").join(picture);
                let ending = picture.rsplit('.').next().unwrap();
                fs::copy(from, of_class.join(format!("{at}.{ending}"))).unwrap();
            }
        }
    }
    folder
}

fn preparation(most_bytes: u64) -> ImageFolder {
    ImageFolder { shorter: 14, side: 12, most_bytes, ..ImageFolder::default() }
}

const KEPT: u64 = 1 << 20;
const STREAMED: u64 = 0;

fn untrained(folder: &TempDir, most_bytes: u64) -> DenseModel {
    let (folder, preparation) = (folder.path().into(), preparation(most_bytes));
    let task = Task::Images { name: "pets".into(), folder, preparation };
    let input = EncoderInput::Image { side: 12, patch: 4, channels: 3, overlap: 0 };
    let encoder = EncoderConfig { input, width: 8, layers: 2, heads: 2, mlp: 8, classes: 2 };
    DenseModel::untrained("tiny", &ModelSource::New { encoder }, &task, Backend::Flex, 1).unwrap()
}

fn train(
    model: DenseModel,
    cache: &TempDir,
    watch: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
) -> Result<DenseModel, EvaluatorError> {
    let recipe = Recipe { epochs: 2, batch: 8, learning_rate: 1e-2, patience: Some(2), ..Recipe::default() };
    model.trained(&recipe, 3, cache.path(), watch)
}

fn to_its_end(model: DenseModel, cache: &TempDir) -> DenseModel {
    train(model, cache, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn weights_and_figures_are_to_the_bit_those_of_images_kept_in_memory() {
    let (folder, caches) = (set(), [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()]);
    let [kept, streamed] = [(KEPT, &caches[0]), (STREAMED, &caches[1])]
        .map(|(most_bytes, cache)| to_its_end(untrained(&folder, most_bytes), cache));
    assert!(!kept.cached && !streamed.cached);
    assert_eq!(kept.data.digest(), streamed.data.digest());
    assert_eq!(weights_digest(&kept.model), weights_digest(&streamed.model));
    // Their trainings have one name, so that what one way trained is taken from the cache by the other.
    assert!(to_its_end(untrained(&folder, STREAMED), &caches[0]).cached);

    let masks = Blueprint::dense(kept.shape.clone(), BlockSize::B8, Precision::Int8);
    let [kept, streamed] = [kept, streamed].map(|dense| Evaluator::new(dense, 1));
    let masks = std::slice::from_ref(&masks);
    assert_eq!(kept.measure(masks).unwrap(), streamed.measure(masks).unwrap());
    let [of_kept, of_streamed] = [&kept, &streamed].map(|of| of.select(of.dense(), &masks[0]).unwrap());
    assert_eq!(of_kept, of_streamed);
    let [of_kept, of_streamed] = [&kept, &streamed].map(|of| of.test(of.dense(), Some(&masks[0])).unwrap());
    assert_eq!(of_kept, of_streamed);
}

#[test]
fn a_training_that_was_stopped_ends_with_the_same_bits_wherever_its_images_are() {
    let (folder, caches) = (set(), [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()]);
    let whole = to_its_end(untrained(&folder, STREAMED), &caches[0]);
    let stopped = train(untrained(&folder, STREAMED), &caches[1], &mut |progress| match progress.step {
        4 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(stopped, Err(EvaluatorError::Training(TrainingError::Interrupted { step: 4, .. }))));
    let mut steps = Vec::new();
    let stopped = train(untrained(&folder, KEPT), &caches[1], &mut |progress| {
        steps.push(progress.step);
        if progress.step == 6 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(EvaluatorError::Training(TrainingError::Interrupted { step: 6, .. }))));
    let resumed = train(untrained(&folder, STREAMED), &caches[1], &mut |progress| {
        steps.push(progress.step);
        ControlFlow::Continue(())
    });
    assert_eq!(weights_digest(&resumed.unwrap().model), weights_digest(&whole.model));
    assert_eq!(steps, [5, 6, 7, 8, 9, 10]);
}

#[test]
fn an_image_that_changes_during_a_training_stops_it_and_the_same_image_lets_it_go_on() {
    let (folder, caches) = (set(), [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()]);
    let whole = to_its_end(untrained(&folder, STREAMED), &caches[0]);
    // Trained on whichever of the ten it is.
    let paths = (0..10).flat_map(|at| ["png", "jpg"].map(|ending| format!("train/cat/{at}.{ending}")));
    let paths: Vec<_> = paths.map(|name| folder.path().join(name)).filter(|path| path.exists()).collect();
    let contents: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let stopped = train(untrained(&folder, STREAMED), &caches[1], &mut |progress| {
        if progress.step == 2 {
            paths.iter().for_each(|path| fs::write(path, "not a picture").unwrap());
        }
        ControlFlow::Continue(())
    });
    let text = stopped.unwrap_err().to_string();
    let told = " has changed since this command began, which read other bytes there: run it again; the state after ";
    assert!(text.contains("/train/cat/") && text.contains(told), "{text}");
    paths.iter().zip(&contents).for_each(|(path, content)| fs::write(path, content).unwrap());
    let mut first = None;
    let resumed = train(untrained(&folder, STREAMED), &caches[1], &mut |progress| {
        first.get_or_insert(progress.step);
        ControlFlow::Continue(())
    });
    assert!(first > Some(2), "{first:?}");
    assert_eq!(weights_digest(&resumed.unwrap().model), weights_digest(&whole.model));
}

#[test]
fn whichever_image_changes_the_training_goes_on_to_the_same_bits_when_it_is_back() {
    let (folder, of_whole) = (set(), tempfile::tempdir().unwrap());
    let whole = weights_digest(&to_its_end(untrained(&folder, STREAMED), &of_whole).model);
    let mut kept_at = Vec::new();
    // Nine of the ten are trained on; the other one judges an epoch, of which there are five steps.
    for entry in fs::read_dir(folder.path().join("train/cat")).unwrap() {
        let (path, cache) = (entry.unwrap().path(), tempfile::tempdir().unwrap());
        let content = fs::read(&path).unwrap();
        let stopped = train(untrained(&folder, STREAMED), &cache, &mut |progress| {
            if progress.step == 4 {
                fs::write(&path, "not a picture").unwrap();
            }
            ControlFlow::Continue(())
        });
        let Err(EvaluatorError::Training(TrainingError::Images { checkpoint: Some(kept), .. })) = stopped else {
            panic!("{}", path.display())
        };
        kept_at.push(kept.steps);
        fs::write(&path, &content).unwrap();
        let resumed = to_its_end(untrained(&folder, STREAMED), &cache);
        assert_eq!(weights_digest(&resumed.model), whole, "{}", path.display());
    }
    // That of the judge's: the state before the last step of its first epoch.
    assert!(kept_at.contains(&4) && kept_at.iter().all(|steps| (4..10).contains(steps)), "{kept_at:?}");
}

#[test]
fn an_image_that_does_not_decode_is_named_wherever_it_stands() {
    let folder = set();
    let path = folder.path().join("val/dog/2.jpg");
    let mut content = fs::read(&path).unwrap();
    let scan = content.windows(2).position(|pair| pair == b"\xff\xda").unwrap();
    let middle = (scan + content.len()) / 2;
    content[middle..middle + 2].copy_from_slice(b"\xff\xc4"); // a table within the picture; its header and end are right
    fs::write(&path, content).unwrap();
    let broken =
        |error: &ImageFolderError| error.to_string().starts_with(&format!("{} does not decode: ", path.display()));
    assert!(broken(&preparation(KEPT).read(folder.path(), ImagePart::Validation).err().unwrap()));

    // Streamed, it is found by the first batch that holds it, and by no other.
    let examples = preparation(STREAMED).read(folder.path(), ImagePart::Validation).unwrap().examples;
    assert!(examples.batch(&[0, 1, 2, 3, 4, 5, 7], &Device::flex()).is_ok());
    assert!(broken(&examples.batch(&[5, 6, 7], &Device::flex()).err().unwrap()));
    let evaluator = Evaluator::new(untrained(&folder, STREAMED), 1);
    let Err(EvaluatorError::Images(error)) = evaluator.test(evaluator.dense(), None) else { panic!("it is tested on") };
    assert!(broken(&error), "{error}");

    // What is cut off is named before anything is computed.
    let whole =
        fs::read(folder.path().join("val/dog/0.png")).or(fs::read(folder.path().join("val/dog/0.jpg"))).unwrap();
    fs::write(&path, &whole[..whole.len() - 2]).unwrap();
    assert!(broken(&preparation(STREAMED).read(folder.path(), ImagePart::Validation).err().unwrap()));
}
