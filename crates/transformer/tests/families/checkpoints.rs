//! Folders that hold no model, and what is said about them.

use std::{fs, path::Path};

use burn::tensor::Device;
use maskwright_transformer::{Attention, Checkpoint, CheckpointError, Inputs, Loading, Model, Text};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::reference::{Reference, folder};

/// A copy of the tiny BERT that can be spoiled.
fn copy() -> TempDir {
    let copy = copy_of("bert");
    fs::copy(folder("bert").join("tokenizer.json"), copy.path().join("tokenizer.json")).unwrap();
    copy
}

/// A copy of a family's tiny model, without what reads text.
fn copy_of(family: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(folder(family).join(file), copy.path().join(file)).unwrap();
    }
    copy
}

fn refusal(folder: &Path) -> String {
    Model::load(folder, &Loading::default(), &Device::flex()).unwrap_err().to_string()
}

fn edit_config(folder: &Path, key: &str, value: Value) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

fn remove_config(folder: &Path, key: &str) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().remove(key).unwrap();
    fs::write(path, config.to_string()).unwrap();
}

/// A safetensors file with this header and as many bytes of data.
fn write_tensors(path: &Path, header: &Value, data: &[u8]) {
    let header = header.to_string();
    let size = (header.len() as u64).to_le_bytes();
    fs::write(path, [&size, header.as_bytes(), data].concat()).unwrap();
}

/// Header and data of the tiny BERT's weights.
fn tensors() -> (Value, Vec<u8>) {
    let bytes = fs::read(folder("bert").join("model.safetensors")).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + size]).unwrap(), bytes[8 + size..].to_vec())
}

#[test]
fn a_folder_without_a_file_is_told_which_files_it_needs() {
    let folder = copy();
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert!(refusal(folder.path()).starts_with("no `model.safetensors` in "), "{}", refusal(folder.path()));
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(refusal(folder.path()).starts_with("no `config.json` in "));
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    let error = Checkpoint::open(folder.path()).unwrap().tokeniser().unwrap_err();
    assert!(matches!(error, CheckpointError::MissingFile { file: "tokenizer.json", .. }));
}

#[test]
fn an_architecture_that_is_not_built_here_is_refused_with_those_that_are() {
    let folder = copy();
    edit_config(folder.path(), "model_type", json!("gpt2"));
    let text = refusal(folder.path());
    assert!(
        text.starts_with("`gpt2` in ") && text.contains("bert, deit, distilbert, marian, roberta, swin, vit"),
        "{text}"
    );
}

#[test]
fn a_configuration_without_an_architecture_is_told_so() {
    let folder = copy();
    for config in ["{}", "[1, 2]", r#"{"model_type": 7}"#] {
        fs::write(folder.path().join("config.json"), config).unwrap();
        let text = refusal(folder.path());
        assert!(
            text.ends_with(
                "config.json names no `model_type`: those that are built here are bert, deit, distilbert, marian, roberta, \
                 swin, vit, xlm-roberta"
            ),
            "{config}: {text}"
        );
    }
}

#[test]
fn what_normalisation_adds_to_the_variance_is_the_librarys_where_the_configuration_says_nothing() {
    for (family, expected) in [("bert", 1e-12), ("roberta", 1e-12), ("vit", 1e-12), ("deit", 1e-12), ("swin", 1e-5)] {
        let folder = copy_of(family);
        let epsilon = || match Model::load(folder.path(), &Loading::default(), &Device::flex()).unwrap().model {
            Model::Bert(model) => model.config().norm_epsilon,
            Model::Vit(model) => model.config().norm_epsilon,
            Model::Swin(model) => model.config().norm_epsilon,
            _ => unreachable!("not in the list"),
        };
        edit_config(folder.path(), "layer_norm_eps", json!(1e-3));
        assert_eq!(epsilon(), 1e-3, "{family}");
        remove_config(folder.path(), "layer_norm_eps");
        assert_eq!(epsilon(), expected, "{family}");
    }
}

#[test]
fn weights_that_are_no_numbers_are_named_and_not_trained() {
    let folder = copy();
    let (header, mut data) = tensors();
    // The third of 1024 weights of a matrix.
    let start = header["bert.pooler.dense.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    for (value, told) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        data[start + 8..start + 12].copy_from_slice(&value.to_le_bytes());
        write_tensors(&folder.path().join("model.safetensors"), &header, &data);
        let text = refusal(folder.path());
        let faults: Vec<&str> = text.lines().skip(1).map(str::trim).collect();
        assert_eq!(faults, [format!("`bert.pooler.dense.weight` [32, 32] holds {told}, number 3 of 1024")]);
    }
}

#[test]
fn missing_misshapen_and_unknown_tensors_are_all_named_at_once() {
    let folder = copy();
    let (mut header, data) = tensors();
    let header_map = header.as_object_mut().unwrap();
    let moved = header_map.remove("bert.encoder.layer.1.output.dense.bias").unwrap();
    header_map.insert("surplus".into(), moved);
    header_map["bert.pooler.dense.weight"]["shape"] = json!([16, 64]);
    write_tensors(&folder.path().join("model.safetensors"), &header, &data);
    let text = refusal(folder.path());
    let faults: Vec<&str> = text.lines().skip(1).map(str::trim).collect();
    assert_eq!(
        faults,
        [
            "`bert.encoder.layer.1.output.dense.bias` [32] is missing",
            "`bert.pooler.dense.weight` has shape [16, 64] instead of [32, 32]",
            "`surplus` is no tensor of this model",
        ]
    );
}

#[test]
fn shards_give_the_same_model_as_one_file() {
    let folder = copy();
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let (header, data) = tensors();
    let mut map = serde_json::Map::new();
    for shard in 0..2 {
        let name = format!("model-{shard}.safetensors");
        let mut part = header.clone();
        let entries = part.as_object_mut().unwrap();
        entries.remove("__metadata__");
        let names: Vec<String> = entries.keys().skip(1 - shard).step_by(2).cloned().collect();
        for gone in names {
            entries.remove(&gone);
        }
        map.extend(entries.keys().map(|tensor| (tensor.clone(), json!(name))));
        write_tensors(&folder.path().join(&name), &part, &data);
    }
    let index = folder.path().join("model.safetensors.index.json");
    fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    let digest = |path: &Path| {
        let loaded = Model::load(path, &Loading::default(), &Device::flex()).unwrap();
        maskwright_transformer::weights_digest(&loaded.model)
    };
    assert_eq!(digest(folder.path()), digest(copy().path()));

    fs::remove_file(folder.path().join("model-1.safetensors")).unwrap();
    let text = refusal(folder.path());
    let told = "and `model.safetensors.index.json` there names it: get the missing file again";
    assert!(text.starts_with("no `model-1.safetensors` in ") && text.ends_with(told), "{text}");

    fs::write(index, json!({"weight_map": {"a": "../../etc/passwd"}}).to_string()).unwrap();
    assert!(refusal(folder.path()).contains("`../../etc/passwd` is no file name"));
}

#[test]
fn half_precision_weights_and_names_from_tensorflow_are_read() {
    let folder = copy();
    let (header, data) = tensors();
    let mut renamed = serde_json::Map::new();
    for (name, entry) in header.as_object().unwrap() {
        let name = match name.strip_suffix("LayerNorm.weight") {
            Some(start) => format!("{start}LayerNorm.gamma"),
            None => name.clone(),
        };
        renamed.insert(name, entry.clone());
    }
    // bf16 keeps the upper half of an f32: every tensor takes half as many bytes.
    for entry in renamed.values_mut().filter(|entry| entry.get("dtype").is_some()) {
        entry["dtype"] = json!("BF16");
        let offsets = entry["data_offsets"].as_array().unwrap();
        let halved: Vec<u64> = offsets.iter().map(|at| at.as_u64().unwrap() / 2).collect();
        entry["data_offsets"] = json!(halved);
    }
    let halves: Vec<u8> = data.chunks(4).flat_map(|bytes| [bytes[2], bytes[3]]).collect();
    write_tensors(&folder.path().join("model.safetensors"), &Value::Object(renamed), &halves);
    let model = Model::load(folder.path(), &Loading::default(), &Device::flex()).unwrap().model;
    let reference = Reference::of("bert");
    let scores = model.forward(Inputs::Text(reference.text()), Attention::Dense);
    let moved: f32 = (scores - reference.floats("logits")).abs().max().into_scalar();
    assert!(moved > 0.0 && moved < 0.1, "{moved}"); // eight bits of mantissa, truncated
}

#[test]
fn torn_and_hostile_files_are_refused() {
    let folder = copy();
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(refusal(folder.path()).contains("does not fit its shape or the file"));
    fs::write(&path, &whole[..100]).unwrap();
    assert!(refusal(folder.path()).contains("in a file of 100"));
    fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    assert!(refusal(folder.path()).contains("a header of 18446744073709551615 bytes in a file of 8"));
    write_tensors(
        &path,
        &json!({"a": {"dtype": "F32", "shape": [4_294_967_296_u64, 4_294_967_296_u64], "data_offsets": [0, 0]}}),
        &[],
    );
    assert!(refusal(folder.path()).contains("`a` lies at bytes 0 to 0"));
    // Neither the size nor the length is a number: that does not make them equal.
    write_tensors(
        &path,
        &json!({"a": {"dtype": "F32", "shape": [1_u64 << 63, 4], "data_offsets": [u64::MAX, 0]}}),
        &[],
    );
    assert!(refusal(folder.path()).contains("`a` lies at bytes 18446744073709551615 to 0"));
    write_tensors(&path, &json!({"a": {"dtype": "F8_E5M2", "shape": [1], "data_offsets": [0, 1]}}), &[0]);
    assert!(refusal(folder.path()).contains("`a` has type `F8_E5M2`"));

    let folder = copy();
    edit_config(folder.path(), "hidden_size", json!(4_000_000_000_u32));
    assert!(refusal(folder.path()).contains("a size of 4000000000"));
    edit_config(folder.path(), "hidden_size", json!(1 << 22));
    assert!(refusal(folder.path()).contains("at most 1073741824 are built"));
    edit_config(folder.path(), "hidden_size", json!(4096)); // would take memory, were it not for the file's shapes
    assert!(refusal(folder.path()).contains("has shape [60, 32] instead of [60, 4096]"));
    edit_config(folder.path(), "hidden_size", json!(32));
    edit_config(folder.path(), "num_hidden_layers", json!(1 << 20));
    assert!(refusal(folder.path()).ends_with("1048576 layers; at most 1024 are built"));
    edit_config(folder.path(), "num_hidden_layers", json!(2));
    edit_config(folder.path(), "pad_token_id", json!(60));
    assert!(refusal(folder.path()).ends_with("padding token 60 of a vocabulary of 60"));
    edit_config(folder.path(), "hidden_act", json!("quick_gelu"));
    assert!(refusal(folder.path()).ends_with(
        "`hidden_act` is `quick_gelu`; activations are gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, relu, silu, swish"
    ));
    edit_config(folder.path(), "hidden_size", json!(-1));
    assert!(refusal(folder.path()).ends_with("config.json is no JSON of the expected form"));
    fs::write(folder.path().join("config.json"), vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(refusal(folder.path()).contains("holds more than 1048576 bytes"));
}

#[test]
fn texts_longer_than_the_model_are_cut_and_counted() {
    let tokeniser = Checkpoint::open(&folder("bert")).unwrap().tokeniser().unwrap();
    let texts = [Text::One("abc"), Text::One("abcdefghijkl."), Text::Pair("ab", "abcdefghijkl")];
    let encoded = tokeniser.encode(&texts, 8, 0).unwrap();
    assert_eq!((encoded.length, encoded.truncated, &encoded.lengths[..]), (8, 2, &[5, 8, 8][..]));
    // [CLS] a ##b ##c [SEP]: specials are 0 to 4, letters begin at 5, their continuations at 31.
    assert_eq!(encoded.tokens[..8], [2, 5, 32, 33, 3, 0, 0, 0]);
    // [CLS] a ##b [SEP] a ##b ##c [SEP]
    assert_eq!(encoded.tokens[16..], [2, 5, 32, 3, 5, 32, 33, 3]);
    assert_eq!(encoded.token_types[16..], [0, 0, 0, 0, 1, 1, 1, 1]);
}

#[test]
fn a_length_beyond_the_positions_is_refused() {
    let loading = Loading { length: Some(25), ..Loading::default() };
    let told = |family: &str, loading: &Loading| {
        Model::load(&folder(family), loading, &Device::flex()).unwrap_err().to_string()
    };
    // RoBERTa counts positions from 2: of 26 rows 24 can be used.
    for family in ["bert", "roberta"] {
        let text = told(family, &loading);
        assert!(text.starts_with("`length` is 25, the model in "), "{text}");
        assert!(text.ends_with(&format!("{family} has 24 positions: lower it or leave it out")), "{text}");
    }
    let loading = Loading { target_length: Some(1000), ..Loading::default() };
    assert!(told("marian", &loading).starts_with("`target_length` is 1000, the model in "));
}

#[test]
fn a_tokeniser_with_more_pieces_than_the_model_is_refused() {
    let folder = copy();
    edit_config(folder.path(), "vocab_size", json!(50));
    let error = Checkpoint::open(folder.path()).unwrap().tokeniser().unwrap_err().to_string();
    assert!(error.contains("it gives tokens up to 58, the model knows 50"), "{error}");
}
