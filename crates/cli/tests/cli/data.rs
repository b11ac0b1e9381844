use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::program::Folder;

/// A folder that ships with the program.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data").join(name)
}

/// A folder with the files of a set that ships.
fn copy_of(name: &str) -> Folder {
    let folder = Folder::new();
    for entry in fs::read_dir(shipped(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path(entry.file_name().to_str().unwrap())).unwrap();
    }
    folder
}

#[test]
fn the_list_says_how_each_set_is_got() {
    insta::assert_snapshot!(Folder::new().run(["data", "list"]).good());
}

#[test]
fn the_lists_document_has_every_file_with_its_digest() {
    let sets = Folder::new().run(["data", "list", "--json"]).result("data list");
    let sets = sets.as_array().unwrap();
    let listops = sets.iter().find(|set| set["name"] == "listops").unwrap();
    assert_eq!((&listops["files"], &listops["command"]), (&json!([]), &json!(null)));
    for file in sets.iter().flat_map(|set| set["files"].as_array().unwrap()) {
        assert!(file["bytes"].as_u64() > Some(0), "{file}");
        assert!(file["sha256"].as_str().is_some_and(|digest| digest.len() == 64), "{file}");
    }
}

#[test]
fn the_sets_that_ship_are_whole() {
    for (name, files) in [("fashion-mnist", 6), ("movie-sentences", 3)] {
        let folder = shipped(name).display().to_string();
        let text = Folder::new().run(["data", "check", name, "--folder", &folder]).good();
        assert_eq!(text, format!("ok       {name}: {files} files in {folder}\n"));
    }
}

#[test]
fn a_set_that_is_named_and_missing_fails_and_says_how_it_is_got() {
    let finished = Folder::new().run(["data", "check", "20-newsgroups", "listops"]);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(2), ""));
    insta::assert_snapshot!(finished.stdout);
}

#[test]
fn without_names_a_missing_set_is_told_of_and_is_no_failure() {
    let text = Folder::new().run(["data", "check"]).good();
    assert!(text.contains("missing  minilm: no downloads/minilm/model.safetensors\n"), "{text}");
}

#[test]
fn a_file_with_other_bytes_is_wrong_whoever_asked() {
    let folder = copy_of("movie-sentences");
    let file = folder.path("test.tsv.gz");
    let mut content = fs::read(&file).unwrap();
    content[2000] ^= 1;
    fs::write(&file, &content).unwrap();
    let check = || folder.run(["data", "check", "movie-sentences", "--folder", "."]);
    let text = check().stdout;
    assert!(text.starts_with("wrong    movie-sentences: ./test.tsv.gz has the SHA-256 "), "{text}");
    assert!(text.contains(", not 573ce36c157421ba28b35a4304bf26e7a92920dffb5308a3c9c8e2c2cc0c6c47\n"), "{text}");

    content.truncate(2000);
    fs::write(&file, &content).unwrap();
    fs::remove_file(folder.path("train.tsv.gz")).unwrap();
    let finished = check();
    assert_eq!(finished.code, Some(2));
    assert_eq!(
        finished.stdout,
        "wrong    movie-sentences: no ./train.tsv.gz\n\
         wrong    movie-sentences: ./test.tsv.gz has 2000 bytes, not 50678\n         \
         it ships with the program: get the repository's folder again, or run in the repository\n"
    );
}

#[test]
fn the_checks_document_says_how_each_set_stands() {
    let finished = Folder::new().run(["data", "check", "minilm", "--folder", "nowhere", "--json"]);
    assert_eq!(finished.code, Some(2));
    let document: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    let faults = ["config.json", "model.safetensors", "tokenizer.json"].map(|file| format!("no nowhere/{file}"));
    let expected = json!([{ "name": "minilm", "folder": "nowhere", "state": "missing", "faults": faults }]);
    assert_eq!(document["result"], expected);
}

#[test]
fn one_folder_is_for_one_set_and_unknown_sets_are_answered_with_those_that_are_known() {
    let folder = Folder::new();
    let two = folder.run(["data", "check", "minilm", "english-german", "--folder", "."]).refused();
    assert!(two.contains("`--folder` says where one set lies, not 2: check them one by one"), "{two}");
    let unknown = folder.run(["data", "check", "minilmm"]).refused();
    assert!(unknown.contains("minilm"), "{unknown}");
}
