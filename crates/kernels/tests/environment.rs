//! `MASKWRIGHT_KERNEL` chooses the kernel of a plan that does not choose one itself.

use std::env;

use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, HeadMask, Precision};
use maskwright_kernels::{AttentionPlan, Kernel, KernelError};

/// The kernel of a new plan, with the variable set to `name`.
fn chosen(name: &str) -> Result<Kernel, KernelError> {
    // SAFETY: the one test of this file is the one thread of this process that touches the environment.
    unsafe { env::set_var("MASKWRIGHT_KERNEL", name) };
    let shape =
        AttentionShape { kind: AttentionKind::SelfAttention, heads: 1, queries: 8, keys: 8, head_dim: 8, windows: 1 };
    let mask = HeadMask::dense(&shape, BlockSize::B8, Precision::Single);
    AttentionPlan::new(&[mask], shape).map(|plan| plan.options().kernel)
}

/// One test in this file: the environment belongs to the whole process.
#[test]
fn the_environment_names_the_kernel() {
    for kernel in Kernel::available() {
        assert_eq!(chosen(kernel.name()), Ok(kernel));
    }
    assert_eq!(chosen(""), Ok(Kernel::fastest()));
    assert_eq!(
        chosen("fast").unwrap_err().to_string(),
        "`fast` is no kernel of this build: MASKWRIGHT_KERNEL is one of portable, avx2, avx512-vnni, avx512, amx, or unset for the fastest"
    );
}
