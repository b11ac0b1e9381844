//! How much memory a folder of images takes, counted in bytes that the process has allocated.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use maskwright_evaluator::{ImageFolder, ImagePart, LabelledImages};

/// The system's allocator, and how many bytes are held.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promise is the one that is needed.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is the one that is needed.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const IMAGES: usize = 500;

/// Pixels of one image of 64 x 64, a byte each.
const PIXELS: usize = 3 * 64 * 64;

#[test]
fn an_image_that_is_not_kept_takes_its_path_and_little_more() {
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("train/cat");
    fs::create_dir_all(&class).unwrap();
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references/images/colour.jpg");
    for at in 0..IMAGES {
        fs::copy(&picture, class.join(format!("{at}.jpg"))).unwrap();
    }
    let read = |most_bytes| {
        let preparation = ImageFolder { shorter: 64, side: 64, most_bytes, ..ImageFolder::default() };
        preparation.read(folder.path(), ImagePart::Train).unwrap()
    };
    // The images are held with their mirror images, as in a training.
    let held = |most_bytes| {
        let before = HELD.load(Relaxed);
        let LabelledImages { examples, .. } = read(most_bytes);
        let examples = examples.with_mirrored();
        assert_eq!(examples.len(), 2 * IMAGES);
        HELD.load(Relaxed) - before
    };
    read(0); // threads of the pool, once and for all
    let path = class.as_os_str().len() + "/100.jpg".len();
    let (streamed, kept) = (held(0), held(u64::MAX));
    assert!(streamed < IMAGES * (path + 200), "{streamed} bytes for {IMAGES} images whose paths have {path} bytes");
    assert!((IMAGES * PIXELS..IMAGES * (PIXELS + path + 200)).contains(&kept), "{kept} bytes of {PIXELS} an image");
    // The last image that fits is kept; one byte less, and none is.
    let all = (IMAGES * PIXELS) as u64;
    assert_eq!((held(all) / PIXELS >= IMAGES, held(all - 1) / PIXELS >= IMAGES), (true, false));
}
