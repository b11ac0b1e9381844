//! The folder of blueprints.

use std::path::Path;

use maskwright_blueprint::{Blueprint, Joules, MaskLibrary, Predicted, Provenance, Seconds};

use crate::models::two_heads;

fn for_device(device: &str) -> Blueprint {
    let predicted = Predicted {
        device: device.into(),
        dataflow: "output-stationary".into(),
        batch: 1,
        seconds: Seconds(1e-3),
        speedup: 2.0,
        end_to_end_speedup: 1.25,
        joules: Joules(1e-2),
    };
    let mut blueprint = two_heads();
    blueprint.provenance =
        Provenance { task: Some("digits".into()), predicted: Some(predicted), ..Provenance::default() };
    blueprint
}

#[test]
fn a_stored_blueprint_is_found_by_model_task_device_density_and_digest() {
    let folder = tempfile::tempdir().unwrap();
    let library = MaskLibrary::new(folder.path());
    let blueprint = for_device("xavier");
    let path = library.store(&blueprint).unwrap();
    let name = format!("0.640-{}.ron", blueprint.digest().short());
    assert_eq!(path, folder.path().join("tiny/digits/xavier").join(name));
    assert_eq!(library.files().unwrap(), std::slice::from_ref(&path));
    assert_eq!(Blueprint::load(&path).unwrap(), blueprint);
}

#[test]
fn a_name_never_leaves_the_library() {
    let library = MaskLibrary::new("masks");
    for device in ["../../etc", "/root", "a\\b", "..", ""] {
        let path = library.place(&for_device(device));
        let parts: Vec<_> = path.components().collect();
        assert_eq!(parts.len(), 5, "{}", path.display());
        assert!(path.starts_with("masks/tiny/digits") && !path.components().any(|part| part.as_os_str() == ".."));
    }
    assert_eq!(
        library.place(&two_heads()).parent(),
        Some(Path::new("masks/tiny/any-task/any-device")),
        "without task and device"
    );
}
