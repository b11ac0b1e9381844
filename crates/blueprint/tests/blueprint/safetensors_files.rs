//! The safetensors form as a foreign reader sees it, and each refusal with its words.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
};

use maskwright_blueprint::{AttentionKind, BlockSize, Blueprint, Provenance};
use safetensors::{
    Dtype, SafeTensors,
    tensor::{TensorView, serialize},
};

use crate::models::{mask, model, shape, two_heads};

/// A file taken apart, to be changed and put together again by safetensors' own writer.
#[derive(Clone)]
struct Parts {
    strings: HashMap<String, String>,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Parts {
    fn of(blueprint: &Blueprint) -> Self {
        let bytes = blueprint.to_safetensors();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        Self {
            strings: header.metadata().clone().unwrap(),
            tensors: tensors
                .iter()
                .map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
                .collect(),
        }
    }

    fn tensor(&self, name: &str) -> (Dtype, &[usize], &[u8]) {
        let (dtype, shape, data) = &self.tensors[name];
        (*dtype, shape, data)
    }

    fn read(&self) -> Result<Blueprint, String> {
        let views = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        let bytes = serialize(views, Some(self.strings.clone())).unwrap();
        Blueprint::from_safetensors(&bytes).map_err(|error| {
            let text = error.to_string();
            assert!(
                error.source().is_none_or(|cause| !text.contains(&cause.to_string())),
                "`{text}` tells its cause twice"
            );
            text
        })
    }

    /// What is said of the file after one change.
    fn refused(&self, change: impl FnOnce(&mut Self)) -> String {
        let mut changed = self.clone();
        change(&mut changed);
        changed.read().unwrap_err()
    }
}

fn set(parts: &mut Parts, name: &str, at: usize, byte: u8) {
    parts.tensors.get_mut(name).unwrap().2[at] = byte;
}

#[test]
fn a_coarser_head_fills_the_finer_blocks_that_it_covers() {
    let parts = Parts::of(&two_heads());
    assert_eq!(parts.tensor("tokens"), (Dtype::U32, [1, 2].as_slice(), [20, 0, 0, 0, 20, 0, 0, 0].as_slice()));
    assert_eq!(parts.tensor("block_size"), (Dtype::U16, [1, 2].as_slice(), [16, 0, 8, 0].as_slice()));
    #[rustfmt::skip]
    let blocks = [
        1, 1, 0, // head 0: "1." over "41", blocks of 16 on a grid of 8
        1, 1, 0,
        4, 4, 1,
        2, 0, 0, // head 1: as it is
        0, 2, 0,
        4, 0, 1,
    ];
    assert_eq!(parts.tensor("mask.l0"), (Dtype::U8, [2, 3, 3].as_slice(), blocks.as_slice()));
}

#[test]
fn behind_the_last_head_of_a_smaller_module_stand_zeros() {
    let shapes = [1, 2].map(|heads| shape(AttentionKind::CrossAttention, heads, 16, 40));
    let head = mask(BlockSize::B16, "1.2");
    let masks = vec![vec![head.clone()], vec![head.clone(), head]];
    let blueprint = Blueprint::new(model(shapes), masks, Provenance::default()).unwrap();
    let parts = Parts::of(&blueprint);
    assert_eq!(parts.tensor("block_size"), (Dtype::U16, [2, 2].as_slice(), [16, 0, 0, 0, 16, 0, 16, 0].as_slice()));
    assert_eq!(parts.tensor("mask.l0").1, [1, 1, 3]);
    assert_eq!(
        parts.refused(|parts| set(parts, "block_size", 2, 8)),
        "block_size[0, 1] is 8, behind the last of 1 heads; 0 stands there"
    );
}

#[test]
fn another_writer_may_order_the_file_as_it_likes() {
    assert_eq!(Parts::of(&two_heads()).read(), Ok(two_heads()));
}

#[test]
fn the_strings_name_format_model_and_digests() {
    let blueprint = two_heads();
    let mut strings: Vec<_> = Parts::of(&blueprint).strings.into_iter().collect();
    strings.sort();
    strings.retain(|(key, _)| key != "model" && key != "provenance"); // RON, tested elsewhere
    let expected = [
        ("blueprint_digest", blueprint.digest().to_string()),
        ("format", "maskwright blueprint".into()),
        ("model_digest", blueprint.model().digest.to_string()),
        ("model_name", "tiny".into()),
        ("version", "1".into()),
    ];
    assert_eq!(strings, expected.map(|(key, value)| (key.to_owned(), value)));
}

#[test]
fn a_file_of_another_kind_is_refused() {
    let weights = TensorView::new(Dtype::U8, vec![2], &[1, 2]).unwrap();
    let bytes = serialize([("weights", weights)], None).unwrap();
    assert_eq!(
        Blueprint::from_safetensors(&bytes).unwrap_err().to_string(),
        "the metadata have no `format`: blueprints that maskwright wrote have"
    );
    assert_eq!(
        Blueprint::from_safetensors(b"PK\x03\x04").unwrap_err().to_string(),
        "these bytes are no whole safetensors file: get it again, or write it anew"
    );
    assert_eq!(
        Blueprint::from_safetensors(b"(version: 1)").unwrap_err().to_string(),
        "no safetensors file: its first eight bytes make the header 7957695011148363304 bytes long, a blueprint's has at \
         most 8388608"
    );
}

#[test]
fn strings_that_are_wrong_are_refused() {
    let parts = Parts::of(&two_heads());
    let with = |key: &str, value: &str| {
        parts.refused(|parts| {
            parts.strings.insert(key.into(), value.into());
        })
    };
    assert_eq!(with("format", "pt"), "the metadata say format `pt`; a blueprint says `maskwright blueprint`");
    assert_eq!(with("version", "2"), "this program reads version 1 of the safetensors form, the file says `2`");
    assert_eq!(with("model", "()"), "`model` in the metadata cannot be read");
    assert_eq!(with("model_name", "large"), "`model_name` says large, the content gives tiny: the file was changed");
    assert!(with("model_digest", "").starts_with("`model_digest` says , the content gives sha256:227cc5f9"));
    assert!(with("blueprint_digest", "sha256:0").starts_with("`blueprint_digest` says sha256:0, the content gives "));
}

#[test]
fn tensors_that_do_not_fit_the_model_are_refused() {
    let parts = Parts::of(&two_heads());
    assert_eq!(
        parts.refused(|parts| drop(parts.tensors.remove("mask.l0"))),
        "there are 2 tensors, the model has 3: `tokens`, `block_size` and one for each module"
    );
    assert_eq!(
        parts.refused(|parts| {
            let mask = parts.tensors.remove("mask.l0").unwrap();
            parts.tensors.insert("mask.0".into(), mask);
        }),
        "there is no tensor `mask.l0`"
    );
    assert_eq!(
        parts.refused(|parts| parts.tensors.get_mut("mask.l0").unwrap().1 = vec![1, 2, 9]),
        "tensor `mask.l0` is U8 [1, 2, 9], the model takes U8 [2, 3, 3]"
    );
    assert_eq!(
        parts.refused(|parts| parts.tensors.get_mut("mask.l0").unwrap().0 = Dtype::I8),
        "tensor `mask.l0` is I8 [2, 3, 3], the model takes U8 [2, 3, 3]"
    );
    assert_eq!(
        parts.refused(|parts| set(parts, "tokens", 0, 21)),
        "module 0 has [20, 20] query and key tokens in `model`, but [21, 20] in `tokens`"
    );
}

#[test]
fn cells_and_block_sizes_that_are_none_are_refused() {
    let parts = Parts::of(&two_heads());
    assert_eq!(
        parts.refused(|parts| set(parts, "block_size", 0, 24)),
        "module 0 head 0: block size is 8, 16 or 32 tokens, not 24"
    );
    assert_eq!(
        parts.refused(|parts| set(parts, "mask.l0", 9, 3)),
        "module 0 head 1: precision is 1, 2 or 4 bytes per element, not 3"
    );
    assert_eq!(
        parts.refused(|parts| set(parts, "mask.l0", 9, 0)),
        "module 0 head 1: query block 0 attends to no key block: its softmax has no terms; keep at least one block a row"
    );
    assert_eq!(
        parts.refused(|parts| set(parts, "mask.l0", 4, 2)),
        "module 0 head 0 has blocks of 16 tokens, but `mask.l0` differs within the one of row 0, column 0"
    );
}
