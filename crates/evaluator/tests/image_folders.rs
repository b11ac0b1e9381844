//! Folders of images as users bring them.

use std::{error::Error, fs, path::Path};

use burn::tensor::Device;
use maskwright_evaluator::{ImageFolder, ImagePart, LabelledImages};
use maskwright_transformer::Inputs;
use tempfile::TempDir;

/// A set of two classes: cats are `colour.png`, dogs `grey.png`, each under several names.
fn pets() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (picture, names) in [
        ("colour.png", ["train/cat/b.PNG", "train/cat/a.png", "val/cat/1.png"].as_slice()),
        ("grey.png", &["train/dog/z.png", "val/dog/2.jpg"]),
        ("colour.jpg", &["train/dog/y.JPEG"]),
    ] {
        for name in names {
            copy(picture, &folder.path().join(name));
        }
    }
    folder
}

fn copy(picture: &str, to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references/images").join(picture);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}

/// Pixels as they are, divided by 255.
fn small() -> ImageFolder {
    ImageFolder { shorter: 13, side: 13, mean: [0.0; 3], deviation: [1.0; 3], ..ImageFolder::default() }
}

/// `[images, 3, side, side]`
fn pixels(images: &LabelledImages) -> Vec<f32> {
    let all: Vec<usize> = (0..images.examples.len()).collect();
    let Inputs::Images(pixels) = images.examples.batch(&all, &Device::flex()).unwrap() else { panic!("of images") };
    pixels.into_data().try_to_vec().unwrap()
}

/// The refusal's text, with the folder cut out.
fn refusal(set: &ImageFolder, folder: &TempDir, part: ImagePart) -> String {
    let error = set.read(folder.path(), part).unwrap_err();
    let text = error.to_string();
    assert!(error.source().is_none_or(|cause| !text.contains(&cause.to_string())), "`{text}` tells its cause twice");
    text.replace(&folder.path().display().to_string(), "pets")
}

#[test]
fn images_come_by_class_and_name_with_the_classes_sorted() {
    let folder = pets();
    fs::write(folder.path().join("train/dog/notes.txt"), "barks").unwrap();
    fs::write(folder.path().join("train/dog/.hidden.png"), "").unwrap();
    let images = small().read(folder.path(), ImagePart::Train).unwrap();
    assert_eq!(images.classes, ["cat", "dog"]);
    assert_eq!(images.examples.labels(), [0, 0, 1, 1]);
    assert_eq!((pixels(&images).len(), images.others), (4 * 3 * 13 * 13, 1));
    // `y.JPEG` stands before `z.png`, whose channels are equal.
    let pixels = pixels(&images);
    let (y, z) = pixels[2 * 507..].split_at(507);
    assert_ne!(y[..169], y[169..338]);
    assert_eq!(z[..169], z[169..338]);

    let images = small().read(folder.path(), ImagePart::Validation).unwrap();
    assert_eq!(images.examples.labels(), [0, 1]);
}

#[test]
fn a_pixel_is_scaled_and_normalised_in_its_channel() {
    let folder = pets();
    let set = ImageFolder { mean: [0.0, 0.5, 0.0], deviation: [1.0, 0.25, 1.0], ..small() };
    let images = set.read(folder.path(), ImagePart::Validation).unwrap();
    // The picture is 19 pixels wide; 3 are cut off on each side. Pixel (x, y) is (13 x, 19 y, 8 (x + y)).
    let (x, y) = (5, 7);
    let pixels = pixels(&images);
    let pixel = |channel: usize| pixels[channel * 169 + y * 13 + x];
    assert_eq!(pixel(0), (13 * (x + 3)) as f32 / 255.0);
    assert_eq!(pixel(1), ((19 * y) as f32 / 255.0 - 0.5) / 0.25);
    assert_eq!(pixel(2), (8 * (x + 3 + y)) as f32 / 255.0);
}

#[test]
fn one_thread_and_many_give_the_same_bytes() {
    let folder = pets();
    let read = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| pixels(&ImageFolder::default().read(folder.path(), ImagePart::Train).unwrap()))
    };
    assert_eq!(read(1), read(3));
}

#[test]
fn the_first_of_each_class_may_be_asked_for() {
    let folder = pets();
    let set = ImageFolder { most_of_each_class: Some(1), ..small() };
    let few = set.read(folder.path(), ImagePart::Train).unwrap();
    assert_eq!(few.examples.labels(), [0, 1]);
    assert_eq!(pixels(&few)[..507], pixels(&small().read(folder.path(), ImagePart::Train).unwrap())[..507]);
}

#[test]
fn an_image_that_does_not_decode_is_named_with_the_way_out() {
    let folder = pets();
    let way_out = "save it anew in another program, or take it out of the folder";
    fs::write(folder.path().join("train/dog/aa.png"), "not a picture").unwrap();
    // Both are broken; the first by order is named.
    fs::write(folder.path().join("train/dog/b.jpg"), b"\xff\xd8\xff").unwrap();
    assert_eq!(
        refusal(&small(), &folder, ImagePart::Train),
        format!("pets/train/dog/aa.png is neither JPEG nor PNG: it starts with the bytes [6e, 6f, 74, 20]; {way_out}")
    );
    fs::remove_file(folder.path().join("train/dog/aa.png")).unwrap();
    let text = refusal(&small(), &folder, ImagePart::Train);
    assert!(text.starts_with("pets/train/dog/b.jpg does not decode: "), "{text}");
    assert!(text.ends_with(way_out), "{text}");
    fs::create_dir(folder.path().join("train/dog/ab.png")).unwrap();
    let text = refusal(&small(), &folder, ImagePart::Train);
    assert!(text.starts_with("pets/train/dog/ab.png cannot be read: ") && text.ends_with(way_out), "{text}");
}

#[test]
fn folders_that_are_laid_out_otherwise_are_refused_with_what_is_missing() {
    let folder = pets();
    assert_eq!(
        refusal(&small(), &folder, ImagePart::Test),
        "no test in pets: a folder of images holds train and, to test on, test or else val (or validation), in each of \
         them one folder a class, in those the images"
    );
    copy("grey.png", &folder.path().join("val/cow/3.png"));
    assert_eq!(
        refusal(&small(), &folder, ImagePart::Validation),
        "pets/val/cow is no class of the training images; those have `cat`, `dog`"
    );
    fs::create_dir(folder.path().join("train/emu")).unwrap();
    assert_eq!(
        refusal(&small(), &folder, ImagePart::Train),
        "pets/train/emu holds no image: put some there whose names end in jpg, jpeg or png, or remove the folder"
    );
    fs::create_dir(folder.path().join("test")).unwrap();
    assert_eq!(
        refusal(&small(), &folder, ImagePart::Test),
        "pets/test holds no folders: one is needed for each class, named as the class"
    );
}

#[test]
fn settings_that_make_no_images_are_refused() {
    let folder = pets();
    let text = |set| refusal(&set, &folder, ImagePart::Train);
    assert_eq!(text(ImageFolder { side: 0, ..small() }), "side is 0; 1 to 4096 pixels");
    assert_eq!(
        text(ImageFolder { side: 14, ..small() }),
        "shorter is 13; at least `side`, from which it is cut, and at most 4096 pixels"
    );
    assert_eq!(
        text(ImageFolder { deviation: [1.0, 0.0, 1.0], ..small() }),
        "deviation is 0; a number above 0, which pixels are divided by"
    );
}
