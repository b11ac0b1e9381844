use std::fs;

use crate::program::Folder;

#[test]
fn the_default_is_a_configuration() {
    let folder = Folder::new();
    let default = folder.run(["config", "default"]).good();
    let folder = folder.with("default.ron", &default);
    assert!(folder.run(["config", "check", "default.ron"]).good().starts_with("ok  default.ron: a search for "));
}

#[test]
fn check_prints_the_resolved_configuration() {
    let folder = Folder::new();
    let default = folder.run(["config", "default"]).good();
    let folder = folder.with("c.ron", &default);
    let config = folder
        .run(["config", "check", "c.ron", "--set", "evaluations=7", "--set", "seed=3", "--seed", "4", "--json"])
        .result("config check");
    assert_eq!((config["evaluations"].as_u64(), config["seed"].as_u64()), (Some(7), Some(4)));
}

#[test]
fn check_refuses_what_a_search_would_refuse_before_it_reads_data() {
    let folder = Folder::new();
    let default = folder.run(["config", "default"]).good();
    let folder = folder.with("c.ron", &default);
    for (set, told) in [
        ("budget=Blocks(1)", "even one block a row of every head uses 24"),
        ("task=BlockRecall", "the model reads images"),
    ] {
        let stderr = folder.run(["config", "check", "c.ron", "--set", set]).refused();
        assert!(stderr.contains(told), "{set}: {stderr}");
    }
    let model = "model.source=New(encoder: (input: Tokens(length: 64, vocabulary: 16), width: 8, layers: 1, heads: 1, mlp: 8, \
                 classes: 10))";
    let task = "task=ListOps(sizes: (shortest: 10, longest: 50, train: 10, validation: 5, test: 10, seed: 1))";
    let stderr = folder.run(["config", "check", "c.ron", "--set", model, "--set", task]).refused();
    assert!(stderr.contains("there are 5 validation examples"), "{stderr}");
    if cfg!(not(feature = "cuda")) {
        assert!(folder.run(["config", "check", "c.ron", "--backend", "cuda"]).refused().contains("cuda"));
    }
}

#[test]
fn check_asks_for_the_configuration_of_a_pretrained_model() {
    let folder = Folder::new();
    let default = folder.run(["config", "default"]).good();
    let folder = folder.with("c.ron", &default);
    fs::create_dir(folder.path("bert")).unwrap();
    let check = || folder.run(["config", "check", "c.ron", "--set", "model.source=Pretrained(folder: \"bert\")"]);
    let stderr = check().refused();
    assert!(stderr.contains("no `config.json` in bert: a model's folder holds config.json"), "{stderr}");
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../transformer/tests/references/bert/config.json");
    fs::copy(config, folder.path("bert/config.json")).unwrap();
    assert!(check().good().starts_with("ok  c.ron: "));
}

#[test]
fn the_schema_names_the_fields() {
    let schema: serde_json::Value = serde_json::from_str(&Folder::new().run(["config", "schema"]).good()).unwrap();
    for field in ["seed", "device", "budget", "tolerance", "evaluations"] {
        assert!(schema["properties"].get(field).is_some(), "no `{field}` in {schema}");
    }
}

#[test]
fn a_mistyped_key_is_shown_where_it_stands() {
    let folder = Folder::new().with("typo.ron", "(\n  version: 1,\n  evaluation: 80,\n)\n");
    let stderr = folder.run(["config", "check", "typo.ron"]).refused();
    assert!(stderr.contains("typo.ron:3:3") && stderr.contains("did you mean `evaluations`?"), "{stderr}");
}

#[test]
fn of_an_endless_line_only_the_place_is_shown() {
    let long = "é".repeat(50_000);
    for (before, after) in [(format!("a{long}"), "é"), (format!("ab{long}"), &long[..]), ("c".into(), &long)] {
        for key in ["evaluation", "evaluations_that_are_not_a_key_of_this_program_and_never_were"] {
            let line = format!("  /*{before}*/ {key}: 80, /*{after}*/");
            let folder = Folder::new().with("long.ron", &format!("(\n  version: 1,\n{line}\n)\n"));
            let stderr = folder.run(["config", "check", "long.ron"]).refused();
            let column = before.chars().count() + 8;
            let shown = ["long.ron:3:", &key[..10], &format!("here, at column {column}")];
            assert!(shown.iter().all(|shown| stderr.contains(shown)) && stderr.len() < 2500, "{key}: {stderr}");
        }
    }
}

#[test]
fn an_override_without_a_value_is_refused() {
    let stderr = Folder::new().run(["config", "check", "c.ron", "--set", "seed"]).refused();
    assert!(stderr.contains("write PATH=VALUE"), "{stderr}");
}
