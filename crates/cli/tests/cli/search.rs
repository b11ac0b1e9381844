//! What `search` refuses, and what it leaves behind; how well it finds is tested where the search lives.

use std::{fs, time::Instant};

use maskwright_blueprint::Blueprint;

use crate::program::{Folder, NO_BETTER};

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let folder = Folder::new();
    let stderr = folder.run(["search", "gone.ron"]).refused();
    assert!(stderr.contains("gone.ron cannot be read"), "{stderr}");
    assert!(folder.entries().is_empty());
}

#[test]
fn a_set_that_does_not_ship_says_how_to_get_it() {
    let config = include_str!("../../../../search-configs/english-german.ron");
    let folder = Folder::new().with("c.ron", config);
    let stderr = folder.run(["search", "c.ron"]).refused();
    assert!(stderr.contains("downloads/english-german/train.tsv.gz cannot be read"), "{stderr}");
    assert!(stderr.contains("`maskwright data list` says how to get"), "{stderr}");
    assert_eq!(folder.entries(), ["c.ron"]);
}

#[test]
fn an_unknown_device_leaves_nothing_behind() {
    let folder = Folder::new().with("c.ron", "(version: 1, device: \"rk3588\")");
    let stderr = folder.run(["search", "c.ron"]).refused();
    assert!(stderr.contains("no device is called `rk3588`: did you mean `rk3588s2`?"), "{stderr}");
    assert_eq!(folder.entries(), ["c.ron"]);
}

#[test]
fn an_unknown_task_is_shown_where_it_stands() {
    let folder = Folder::new().with("c.ron", "(version: 1, task: BlockRecal)");
    let stderr = folder.run(["search", "c.ron"]).refused();
    assert!(stderr.contains("c.ron:1:20") && stderr.contains("did you mean `BlockRecall`?"), "{stderr}");
    assert_eq!(folder.entries(), ["c.ron"]);
}

#[cfg(not(feature = "libtorch"))]
#[test]
fn a_backend_that_was_not_built_says_how_to_get_it() {
    let folder = untrained();
    let stderr = folder.run(["search", "c.ron", "--backend", "libtorch"]).refused();
    for word in ["built without the backend libtorch", "--features libtorch", "needs libtorch 2.9.0", "at flex"] {
        assert!(stderr.contains(word), "no `{word}` in {stderr}");
    }
    assert_eq!(folder.entries(), ["c.ron"]);
}

#[cfg(feature = "libtorch")]
#[test]
fn libtorch_trains_calibrates_searches_and_evaluates() {
    let folder = untrained();
    let (training, fine_tune) = ("model.training.epochs=1", "fine_tune.epochs=1");
    let search = ["search", "c.ron", "--backend", "libtorch", "--set", training, "--set", fine_tune, "--json"];
    let result = folder.run(search).result("search");
    let manifest = fs::read_to_string(folder.path(result["run"].as_str().unwrap()).join("manifest.ron")).unwrap();
    assert!(manifest.contains("backend: libtorch"), "{manifest}");
    // Any backend evaluates what another one found.
    for backend in ["libtorch", "flex"] {
        let blueprint = result["best"]["blueprint"].as_str().unwrap();
        let found = folder.run(["eval", blueprint, "--backend", backend, "--json"]).result("eval");
        let (found, measured) = (found["masked"].as_f64().unwrap(), result["best"]["accuracy"].as_f64().unwrap());
        assert!((found - measured).abs() < 0.01, "{backend}: {found} instead of {measured}");
    }
}

#[test]
fn an_unknown_backend_is_refused_with_those_there_are() {
    let stderr = Folder::new().run(["search", "c.ron", "--backend", "torch"]).refused();
    assert!(stderr.contains("possible values: flex, libtorch, cuda, wgpu"), "{stderr}");
}

#[test]
fn a_block_size_of_24_is_refused() {
    let folder = Folder::new().with("c.ron", "(version: 1, space: (block_sizes: [8, 24], precisions: [1]))");
    let stderr = folder.run(["search", "c.ron"]).refused();
    assert!(stderr.contains("block size is 8, 16 or 32 tokens, not 24"), "{stderr}");
    assert_eq!(folder.entries(), ["c.ron"]);
}

#[test]
fn a_folder_that_is_no_run_cannot_be_resumed() {
    let folder = Folder::new().with("c.ron", "(version: 1)");
    let stderr = folder.run(["search", "c.ron", "--resume", "."]).refused();
    assert!(stderr.contains(". is no run directory"), "{stderr}");
}

#[test]
fn runs_that_cannot_be_written_are_named() {
    let folder = untrained().with("runs", "a file where a folder should be");
    let stderr = folder.run(["search", "c.ron"]).refused();
    assert!(stderr.contains("runs cannot be kept in runs: choose a folder that can be written"), "{stderr}");
}

#[test]
fn missing_pictures_are_named_with_the_folder() {
    let folder = Folder::new().with("c.ron", "(version: 1)");
    let stderr = folder.run(["search", "c.ron"]).refused();
    assert!(stderr.contains("no `train-images-idx3-ubyte` in data/fashion-mnist"), "{stderr}");
    assert_eq!(folder.entries(), ["c.ron"]);
}

#[test]
fn a_budget_that_no_mask_can_meet_says_what_the_least_is() {
    let stderr = untrained().run(["search", "c.ron", "--set", "budget=Density(0.01)"]).refused();
    // 64 tokens in blocks of 8: one block of each row of 8.
    assert!(stderr.contains("no mask keeps within density 0.01"), "{stderr}");
    assert!(stderr.contains("uses 0.1250"), "{stderr}");
}

#[test]
fn a_search_leaves_a_result_a_report_and_a_stored_blueprint() {
    let folder = untrained();
    let result = folder.run(["search", "c.ron", "--store", "--json"]).result("search");
    assert_eq!((result["evaluations"].as_u64(), result["stop_reason"].as_str()), (Some(3), Some("evaluations-used")));
    for figure in ["/dense/accuracy", "/dense/seconds", "/best/accuracy_drop", "/best/predicted/end_to_end_speedup"] {
        assert!(result.pointer(figure).is_some_and(|value| value.is_number()), "no {figure} in {result}");
    }
    assert_eq!(result["baselines"][0]["name"], "random");

    let run = result["run"].as_str().unwrap();
    assert!(folder.path(run).join("report.html").is_file());
    let searched = Blueprint::load(&folder.path(result["best"]["blueprint"].as_str().unwrap())).unwrap();
    let library = folder.path("masks/recall/block-recall/rk3588s2");
    let mut stored: Vec<_> = fs::read_dir(library).unwrap().map(|entry| entry.unwrap().path()).collect();
    stored.sort();
    assert_eq!(stored.len(), 2, "the blueprint and its weights");
    assert_eq!(Blueprint::load(&stored[0]).unwrap().digest(), searched.digest());
    assert_eq!(stored[1], stored[0].with_extension("safetensors"));
}

#[test]
fn a_summary_says_what_is_predicted_and_what_measured() {
    let text = untrained().run(["search", "c.ron"]).good();
    for word in
        ["speed-up", "predicted", "accuracy", "measured", "searched", "random", "density", "mask show", "report"]
    {
        assert!(text.contains(word), "no `{word}` in {text}");
    }
}

#[test]
fn eval_measures_what_the_search_measured_and_refuses_another_model() {
    let folder = untrained();
    let best = folder.run(["search", "c.ron", "--json"]).result("search")["best"].take();
    let blueprint = best["blueprint"].as_str().unwrap();
    let found = folder.run(["eval", blueprint, "--json"]).result("eval");
    assert_eq!((&found["masked"], &found["split"]), (&best["accuracy"], &"test".into()));
    assert_eq!((&found["drop"], &found["fine_tuned"]), (&best["accuracy_drop"], &true.into()));

    fs::copy(folder.path(blueprint), folder.path("alone.ron")).unwrap();

    // Without its weights a blueprint is measured on the dense model that it was made for, and on no other.
    let (alone, another) =
        (folder.run(["eval", "alone.ron", "--json"]), folder.run(["eval", "alone.ron", "--seed", "2"]));
    let alone = alone.result("eval");
    assert_eq!((&alone["fine_tuned"], &alone["weights_missing"]), (&false.into(), &true.into()));
    assert!(folder.run(["eval", "weights.safetensors"]).refused().contains("read a blueprint in RON form"));
    let stderr = another.refused();
    assert!(stderr.contains("this blueprint is for model `recall`"), "{stderr}");
}

#[test]
fn tune_takes_masks_of_the_pareto_set_and_those_of_another_seed() {
    let folder = untrained();
    let recipe = ["--set", "fine_tune.epochs=1"];
    let mut outcome = folder.run(["search", "c.ron", recipe[0], recipe[1], "--json"]).result("search");
    let (best, rows) = (outcome["best"].take(), outcome["table"].take());
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == "searched").unwrap();
    let searched = best["blueprint"].as_str().unwrap();
    let (best, _) = searched.rsplit_once('/').unwrap();
    let mut pareto = fs::read_dir(folder.path(best)).unwrap().map(|entry| entry.unwrap().file_name());
    let pareto = pareto.find(|name| name.to_string_lossy().starts_with("pareto-")).unwrap();
    let pareto = format!("{best}/{}", pareto.display());

    // As the search tuned it: the same weights.
    let found = folder.run(["tune", searched, "--to", "again.ron", "--json"]).result("tune");
    assert_eq!(
        fs::read(folder.path("again.safetensors")).unwrap(),
        fs::read(folder.path(searched).with_extension("safetensors")).unwrap()
    );
    let again = Blueprint::load(&folder.path("again.ron")).unwrap();
    let before = Blueprint::load(&folder.path(searched)).unwrap();
    assert_eq!((again.masks(), &again.provenance.accuracy), (before.masks(), &before.provenance.accuracy));
    assert_eq!(again.provenance.tuned_weights, before.provenance.tuned_weights);
    assert!(found["selection_distortion"].as_f64().unwrap() > 0.0 && found["selection_examples"].as_u64() > Some(0));
    assert_eq!(found["selection_distortion"], row["selection_distortion"]);
    assert_eq!(found["selection_drop"], row["selection_drop"]);

    // What nobody has tuned, and under another seed's model, which `eval` alone would refuse.
    let stderr = folder.run(["eval", &pareto, "--seed", "2"]).refused();
    assert!(stderr.contains("this blueprint is for model `recall`"), "{stderr}");
    let text = folder.run(["tune", &pareto, "--to", "tuned.ron", "--seed", "2"]).good();
    assert!(text.contains("eval tuned.ron --set seed=2\n"), "{text}");
    for word in
        ["for 1 epoch", "selection examples", "distortion", "test examples", "tuned.safetensors", "eval tuned.ron"]
    {
        assert!(text.contains(word), "no `{word}` in {text}");
    }
    let tuned = Blueprint::load(&folder.path("tuned.ron")).unwrap();
    assert_eq!(
        (tuned.provenance.seed, tuned.masks()),
        (Some(2), Blueprint::load(&folder.path(&pareto)).unwrap().masks())
    );
    let measured = folder.run(["eval", "tuned.ron", "--json"]).result("eval");
    let accuracy = tuned.provenance.accuracy.unwrap();
    assert_eq!((measured["masked"].as_f64(), &measured["fine_tuned"]), (Some(accuracy.masked), &true.into()));

    let refusals = [
        ([searched, "seed=1"], "`--to` names the blueprint that is read"),
        (["new.ron/", "seed=1"], "name the blueprint to be written"),
        (["tuned.json", "seed=1"], "name the blueprint to be written"),
        (["gone/tuned.ron", "seed=1"], "gone/tuned.ron cannot be written"),
        (["x.ron", "model.source.New.encoder.layers=3"], "masks for other attention modules"),
    ];
    let entries = folder.entries();
    for ([to, set], why) in refusals {
        let stderr = folder.run(["tune", searched, "--to", to, "--set", set]).refused();
        assert!(stderr.contains(why), "no `{why}` in {stderr}");
    }
    assert_eq!(folder.entries(), entries);
}

#[test]
fn eval_reports_folds_and_seeds_beside_the_controls() {
    let folder = untrained();
    let best = folder.run(["search", "c.ron", "--json"]).result("search")["best"].take();
    let blueprint = best["blueprint"].as_str().unwrap();
    let study = ["eval", blueprint, "--report", "page.html", "--folds", "2", "--seeds", "1,2"];
    let [a, b, c, d, e, f, g, h] = study;
    let found = folder.run([a, b, c, d, e, f, g, h, "--json"]).result("eval")["cross_validation"].take();
    let rows = found["rows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["treatment"].as_str().unwrap()).collect();
    assert_eq!(names, ["dense", "dense-tuned", "masked", "shuffled", "identity"]);
    for row in rows {
        let held_out: Vec<f64> = row["held_out"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!(held_out.len(), 4, "two folds, two seeds");
        let mean = held_out.iter().sum::<f64>() / 4.0;
        assert!((row["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
    }
    assert!(rows[0]["drop"].is_null() && rows[0]["mcnemar"].as_array().unwrap().is_empty());
    let drop = &rows[2]["drop"];
    assert!(drop["low"].as_f64() <= drop["drop"].as_f64() && drop["drop"].as_f64() <= drop["high"].as_f64());
    assert_eq!(rows[2]["mcnemar"].as_array().unwrap().len(), 2, "one test a seed");
    // One label in eight is the commonest by chance.
    assert!((0.1..0.25).contains(&found["majority"].as_f64().unwrap()));

    let page = fs::read_to_string(folder.path("page.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 2, "box plots, and density against time");
    for word in ["2 folds", "2 seeds", "McNemar", "identity", "commonest class", "R²"] {
        assert!(page.contains(word), "no `{word}`");
    }
    let (again, text) = (folder.path("page.html"), folder.run(study).good());
    assert!(text.contains("shuffled") && text.contains("page.html"), "{text}");
    assert_eq!(fs::read_to_string(again).unwrap(), page, "the same study gives the same page");
}

#[test]
fn eval_knows_what_the_search_was_told_on_the_command_line() {
    let folder = untrained();
    let best =
        folder.run(["search", "c.ron", "--set", "model.training.epochs=1", "--json"]).result("search")["best"].take();
    let blueprint = best["blueprint"].as_str().unwrap();
    // Without its weights the dense model is needed, which `c.ron` alone would train for no epoch.
    fs::remove_file(folder.path(blueprint).with_extension("safetensors")).unwrap();
    let found = folder.run(["eval", blueprint, "--json"]).result("eval");
    assert_eq!(found["fine_tuned"], false);
    let (best, _) = blueprint.rsplit_once('/').unwrap();
    let beside = folder.run_below(best, ["eval", "searched.ron", "--runs", "../..", "--json"]).result("eval");
    assert_eq!(beside["masked"], found["masked"]);
    let stderr = folder.run(["eval", blueprint, "--config", "c.ron"]).refused();
    assert!(stderr.contains("this blueprint is for model `recall`"), "{stderr}");
}

#[test]
fn what_was_cut_and_drawn_and_f1_are_told_by_search_and_eval() {
    let cut = "inputs: 60 of 120 texts are longer than the model reads and were cut\n";
    let drawn = "for other classes: classifier.weight, classifier.bias\n";
    let folder = paraphrases();
    let result = folder.run(["search", "c.ron", "--json"]).result("search");
    let caveats = &result["caveats"];
    assert_eq!((&caveats["cut_texts"], &caveats["texts"]), (&60.into(), &120.into()), "{caveats}");
    assert_eq!(caveats["drawn_tensors"], serde_json::json!(["classifier.weight", "classifier.bias"]));
    for row in result["table"].as_array().unwrap().iter().chain([&result["dense"], &result["best"]]) {
        assert!(row["second"]["name"] == "F1" && row["second"]["value"].is_number(), "{row}");
    }
    let run = result["run"].as_str().unwrap();
    let summary = folder.run(["search", "c.ron", "--resume", run]).good();
    assert!(summary.contains(cut) && summary.contains(drawn) && summary.contains("F1"), "{summary}");
    let page = fs::read_to_string(folder.path(run).join("report.html")).unwrap();
    assert!(page.contains("Inputs: 60 of 120 texts are") && page.contains("<th>F1<small>measured</small></th>"));

    // The weights beside the blueprint are all its own: nothing of them was drawn.
    let blueprint = result["best"]["blueprint"].as_str().unwrap();
    let found = folder.run(["eval", blueprint, "--json"]).result("eval");
    assert_eq!((&found["fine_tuned"], &found["caveats"]["cut_texts"]), (&true.into(), &60.into()), "{found}");
    assert_eq!(found["caveats"]["drawn_tensors"], serde_json::json!([]));
    let second = [&found["second"]["dense"], &found["second"]["masked"]];
    assert_eq!(second, [&result["dense"]["second"]["value"], &result["best"]["second"]["value"]], "{found}");
    let text = folder.run(["eval", blueprint]).good();
    assert!(text.contains(cut) && text.contains("\nF1: ") && !text.contains("classifier"), "{text}");
}

#[test]
fn time_and_memory_of_each_stage_are_written_beside_the_answer() {
    // 16 x 500,000 weights, most of them of words that no text has, and one step over all examples.
    let encoder =
        "(input: Tokens(length: 64, vocabulary: 500000), width: 16, layers: 1, heads: 1, mlp: 16, classes: 8)";
    let config = short("recall", &format!("New(encoder: {encoder})"), "BlockRecall");
    let folder = Folder::new().with("c.ron", &config.replacen("epochs: 0, batch: 50", "epochs: 1, batch: 4000", 1));
    let begun = Instant::now();
    let result = folder.run(["search", "c.ron", "--json"]).result("search");
    let all = begun.elapsed().as_secs_f64();
    let lines = fs::read_to_string(folder.path(result["run"].as_str().unwrap()).join("stages.jsonl")).unwrap();
    let stages: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |name: &str| stages.iter().filter(|stage| stage["stage"] == name).count();
    let expected = ["dense training", "calibration", "search", "baseline: random", "measuring on test"];
    assert_eq!(expected.map(named), [1; 5], "{lines}");
    // Stages follow each other within the run; the training's one step takes more than 10^9 multiplications.
    let seconds = stages.iter().map(|stage| stage["seconds"].as_f64().unwrap());
    assert!(stages[0]["stage"] == "dense training" && stages[0]["seconds"].as_f64().unwrap() > 4e-3, "{lines}");
    assert!(seconds.clone().all(|seconds| seconds > 0.0) && seconds.sum::<f64>() <= all, "{all} s: {lines}");
    if cfg!(target_os = "linux") {
        // Training holds each weight, its gradient and AdamW's two moments, 4 bytes each.
        let peak = |stage: &serde_json::Value| stage["peak_bytes"].as_u64().unwrap();
        assert!(peak(&stages[0]) > 4 * 4 * 16 * 500_000, "{lines}");
        // Every stage holds the weights.
        assert!(stages.iter().all(|stage| peak(stage) > 4 * 16 * 500_000), "{lines}");
    }
}

#[test]
fn a_dense_model_that_only_guesses_is_warned_of_before_the_search() {
    let finished = untrained().run(["search", "c.ron", "-v"]);
    let (warning, search) = (finished.stderr.find(NO_BETTER), finished.stderr.find("search: best"));
    assert!(warning.is_some() && warning < search, "{}", finished.stderr);
    let line = finished.stderr.lines().find(|line| line.contains(NO_BETTER)).unwrap();
    assert!(line.contains("WARN the dense model answers 1") && line.contains("the commonest class alone 1"), "{line}");
}

#[test]
fn a_page_in_a_folder_that_is_not_there_is_refused_before_anything_is_trained() {
    let folder = untrained();
    let best = folder.run(["search", "c.ron", "--json"]).result("search")["best"].take();
    let blueprint = best["blueprint"].as_str().unwrap();
    let stderr = folder.run(["eval", blueprint, "--report", "nodir/x.html"]).refused();
    assert!(stderr.contains("there is no folder nodir") && !stderr.contains(".part-"), "{stderr}");
}

#[test]
fn a_run_is_resumed_with_its_own_configuration_by_one_process() {
    let folder = untrained();
    let result = folder.run(["search", "c.ron", "--json"]).result("search");
    let run = result["run"].as_str().unwrap();
    assert_eq!(folder.run(["search", "c.ron", "--resume", run, "--json"]).result("search"), result);

    let stderr = folder.run(["search", "c.ron", "--resume", run, "--seed", "2"]).refused();
    assert!(stderr.contains("was started with another configuration"), "{stderr}");
    let stderr = folder.run(["search", "c.ron", "--resume", run, "--backend", "libtorch"]).refused();
    assert!(stderr.contains("was started with another configuration"), "{stderr}");

    let lock = fs::File::open(folder.path(run).join("lock")).unwrap();
    lock.lock().unwrap();
    let stderr = folder.run(["search", "c.ron", "--resume", run]).refused();
    assert!(stderr.contains("another process works in"), "{stderr}");
    drop(lock);

    let head = folder.path(run).join("checkpoint/head.ron");
    let written = fs::read_to_string(&head).unwrap();
    let earlier = written.replacen("version:2", "version:1", 1).replacen("version: 2", "version: 1", 1);
    assert_ne!(earlier, written);
    fs::write(&head, &earlier).unwrap();
    let stderr = folder.run(["search", "c.ron", "--resume", run]).refused();
    assert!(stderr.contains("another version of"), "{stderr}");
    assert_eq!(fs::read_to_string(&head).unwrap(), earlier);
}

/// A folder with a search of some tenths of a second: a model of one head that is not trained at all. Its accuracy is
/// that of guessing, and its distortion means nothing; everything else is as in any search.
fn untrained() -> Folder {
    let encoder = "(input: Tokens(length: 64, vocabulary: 9), width: 16, layers: 1, heads: 1, mlp: 16, classes: 8)";
    Folder::new().with("c.ron", &short("recall", &format!("New(encoder: {encoder})"), "BlockRecall"))
}

/// A folder with a search as short for a tiny BERT, which has three classes, on a folder of MRPC. A word is three tokens
/// and 16 are read, three of them special: of every second pair, which has seven words, something is cut.
fn paraphrases() -> Folder {
    let bert = concat!(env!("CARGO_MANIFEST_DIR"), "/../transformer/tests/references/bert");
    let source = format!("Pretrained(folder: {bert:?}, length: 16, pooling: Mean)");
    let folder = Folder::new().with("c.ron", &short("tiny", &source, "Glue(task: Mrpc, folder: \"mrpc\")"));
    fs::create_dir(folder.path("mrpc")).unwrap();
    let row = |at: usize| {
        let text = vec!["the"; if at.is_multiple_of(2) { 6 } else { 1 }].join(" ");
        format!("{}\t1\t2\t{text}\tthe\n", at / 2 % 2)
    };
    let table = |rows: usize| {
        let rows: String = (0..rows).map(row).collect();
        format!("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n{rows}")
    };
    folder.with("mrpc/train.tsv", &table(100)).with("mrpc/dev.tsv", &table(20))
}

/// The configuration of a search that trains nothing and evaluates three candidates.
fn short(name: &str, source: &str, task: &str) -> String {
    let recipe = "(epochs: 0, batch: 50, learning_rate: 0.001, warmup: 0.1, weight_decay: 0.0, label_smoothing: 0.0, \
                  distillation: 0.0)";
    format!(
        "(
  version: 1,
  model: (
    name: {name:?},
    source: {source},
    training: {recipe},
  ),
  task: {task},
  space: (block_sizes: [8], precisions: [4]),
  budget: Density(1.0),
  tolerance: Absolute(1.0),
  agent: Write(start: Cold, features: Block),
  kappa: Fixed(0.05),
  evaluations: 3,
  loop_examples: 8,
  calibration_examples: 8,
  finalists: 1,
  fine_tune: {recipe},
  baselines: [Random],
)"
    )
}
