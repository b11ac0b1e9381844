//! A target refuses what it cannot express, with the reason and the way out.

use maskwright_blueprint::{
    AttentionKind::{CausalSelfAttention, SelfAttention},
    BlockSize, Blueprint, Precision, Provenance,
};
use maskwright_export::{Capability, SkipsWork, Target};

use crate::blueprints::{mask, model, shape, two_modules};

fn refused(capability: Capability) -> String {
    capability.check(&two_modules("tiny")).unwrap_err().to_string()
}

#[test]
fn a_block_size_that_the_target_lacks_is_refused() {
    let coarse = Capability { block_sizes: &[BlockSize::B16, BlockSize::B32], ..Capability::ANY_MASK };
    assert_eq!(
        refused(coarse),
        "the target takes blocks of 16 or 32 tokens, module 0 head 1 has blocks of 8: search with such block sizes, or \
         choose another target"
    );
}

#[test]
fn a_precision_that_the_target_lacks_is_refused() {
    let floats = Capability { precisions: &[Precision::Half, Precision::Single], ..Capability::ANY_MASK };
    assert_eq!(
        refused(floats),
        "the target takes precisions of 16 bit or 32 bit, module 0 head 0 has a block of 8 bit: search with such \
         precisions, or choose another target"
    );
}

#[test]
fn heads_that_differ_are_refused_where_a_module_has_one_mask() {
    let shared = Capability { per_head: false, ..Capability::ANY_MASK };
    assert_eq!(
        refused(shared),
        "the target takes one mask for all heads of a module, module 0 head 1 has another than head 0: search with one \
         mask a module, or choose another target"
    );
    let shapes = [shape(SelfAttention, 2, 32, 32)];
    let alike = vec![vec![mask(BlockSize::B16, "1.\n.1"); 2]];
    let blueprint = Blueprint::new(model("tiny", &shapes), alike, Provenance::default()).unwrap();
    assert_eq!(shared.check(&blueprint), Ok(()));
}

#[test]
fn a_look_ahead_is_refused_where_attention_is_causal() {
    let causal = Capability { non_causal: false, ..Capability::ANY_MASK };
    assert_eq!(
        refused(causal),
        "the target takes only causal self-attention, in module 1 head 0 query block 0 attends to the later key block 2: \
         choose another target"
    );
    let shapes = [shape(CausalSelfAttention, 1, 32, 32)];
    let masks = vec![vec![mask(BlockSize::B16, "1.\n11")]];
    let blueprint = Blueprint::new(model("tiny", &shapes), masks, Provenance::default()).unwrap();
    assert_eq!(causal.check(&blueprint), Ok(()));
}

#[test]
fn tables_take_every_mask_and_promise_no_speed() {
    for target in Target::ALL {
        assert_eq!(target.capability(), Capability::ANY_MASK);
        assert_eq!(target.capability().skips_work, SkipsWork::AsItsReader);
        assert!(target.export(&two_modules("tiny")).is_ok());
    }
}

#[test]
fn a_target_is_found_by_its_name_and_a_mistyped_one_gets_the_nearest() {
    for target in Target::ALL {
        assert_eq!(target.name().parse(), Ok(target));
    }
    assert_eq!(
        "c-headr".parse::<Target>().unwrap_err().to_string(),
        "there is no target `c-headr`; did you mean `c-header`? allowed here: `safetensors`, `c-header`, `rust-table`"
    );
}
