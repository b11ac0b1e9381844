//! One call of a plan, under all options.

use std::num::NonZeroUsize;

use maskwright_blueprint::{AttentionKind, AttentionShape, HeadMask};
use maskwright_kernels::{AttentionPlan, Inputs, Int8Softmax, Kernel, Normalisation, PlanOptions, Promotion};

/// Small, and ragged for blocks of 16; of a dimension that a unit for matrices multiplies where the CPU has one.
pub const SHAPE: AttentionShape =
    AttentionShape { kind: AttentionKind::SelfAttention, heads: 2, queries: 40, keys: 40, head_dim: 32, windows: 1 };

/// The same with every block computed as its mask says, too: elsewhere than on BF16 no 16-bit block is packed otherwise.
pub fn options_with_and_without_promotion() -> impl Iterator<Item = PlanOptions> {
    options().flat_map(|options| [Promotion::WhereFaster, Promotion::Never].map(|way| options.promotion(way)))
}

/// Every kernel with every way of 8-bit softmax.
pub fn options() -> impl Iterator<Item = PlanOptions> {
    let integer = |form| Int8Softmax::Integer(form);
    let ways = [Int8Softmax::Float, integer(Normalisation::Deferred), integer(Normalisation::Paper)];
    let one = PlanOptions::new().unwrap().threads(NonZeroUsize::MIN);
    Kernel::available().flat_map(move |kernel| ways.map(|way| one.kernel(kernel).int8_softmax(way)))
}

pub fn run(options: PlanOptions, masks: &[HeadMask], shape: AttentionShape, inputs: Inputs<'_>) -> Vec<f32> {
    let plan = AttentionPlan::with_options(masks, shape, options).unwrap();
    let mut out = vec![f32::NAN; (shape.heads * shape.queries * shape.head_dim) as usize];
    plan.run(inputs, &mut out, &mut plan.workspace()).unwrap();
    out
}
