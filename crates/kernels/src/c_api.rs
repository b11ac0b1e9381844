//! The same attention for C: `include/maskwright.h` is generated from this file.
//!
//! Plans and workspaces are opaque pointers. A function answers with a status; what went wrong with the last call of a
//! thread is in [`maskwright_error_message`]. No panic crosses into C. Null pointers and wrong lengths are refused; a
//! pointer that is neither null nor what it is said to be cannot be recognised, as ever in C.

#![expect(non_camel_case_types, reason = "these are the names that C sees")]

use std::{
    cell::RefCell,
    ffi::{CString, c_char},
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr, slice,
};

use maskwright_blueprint::{AttentionKind, AttentionShape, BlockMask, BlockSize, HeadMask, MaskError, Precision};

use crate::{
    AttentionPlan, Inputs, Int8Softmax, Kernel, KernelError, Normalisation, PlanOptions, Promotion, Workspace,
};

/// How a call ended.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum maskwright_status {
    /// Done.
    OK = 0,
    /// A pointer is null that must not be.
    NULL_POINTER = 1,
    /// A length does not fit the plan or the mask.
    LENGTH = 2,
    /// A mask, block size, precision or shape is impossible.
    MASK = 3,
    /// The CPU cannot do what was asked for, or the environment names no kernel.
    KERNEL = 4,
    /// The workspace has too little room for the plan.
    WORKSPACE = 5,
    /// A fault of this library; an output may be half written.
    INTERNAL = 6,
}

/// What an attention module's keys are.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum maskwright_kind {
    /// Queries and keys are the same tokens.
    SELF_ATTENTION = 0,
    /// Self-attention in which no token attends to a later one.
    CAUSAL_SELF_ATTENTION = 1,
    /// Keys come from another sequence.
    CROSS_ATTENTION = 2,
}

/// Size of one attention module, and how it is computed.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct maskwright_module {
    /// One of `maskwright_kind`.
    pub kind: u32,
    pub heads: u32,
    /// Query tokens.
    pub queries: u32,
    /// Key tokens; as many as queries for self-attention.
    pub keys: u32,
    /// Width of a head: a multiple of 8, at most 512.
    pub head_dim: u32,
    /// Threads that a call may use; 0 takes all.
    pub threads: u32,
    /// 0: softmax of 8-bit blocks in floating point; 1: in integers.
    pub integer_softmax: u32,
}

/// One head's mask.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct maskwright_mask {
    /// Side of a block in tokens: 8, 16 or 32.
    pub block_size: u32,
    /// `ceil(queries / block_size) * ceil(keys / block_size)` bytes, row by row: 1, 2 or 4 for the bytes an element of the
    /// block's arithmetic has at least (see `maskwright_plan_new`), 0 for a skipped block.
    pub blocks: *const u8,
    /// How many bytes `blocks` has.
    pub len: size_t,
}

type size_t = usize;

/// Attention of one module under its masks. Immutable: threads may share it.
pub struct maskwright_plan(AttentionPlan);

/// Memory that a call works in; one call at a time.
pub struct maskwright_workspace(Workspace);

/// Makes a plan of one mask a head, and puts it into `plan`; free it with `maskwright_plan_free`. The masks are copied.
///
/// A block is computed at least as finely as its mask says: when the plan is made, it decides for each row whether the blocks
/// of one precision are computed as finer ones because that is faster on the kernel at hand. 8-bit blocks under
/// an integer softmax stay what they are. `maskwright_plan_promoted_blocks` says how many became finer, and
/// `maskwright_plan_new_as_masked` makes plans without that choice.
///
/// # Safety
/// `module` and `plan` point to what they say, `masks` to `mask_count` masks, and each mask's `blocks` to `len` bytes; null
/// pointers are refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn maskwright_plan_new(
    module: *const maskwright_module,
    masks: *const maskwright_mask,
    mask_count: size_t,
    plan: *mut *mut maskwright_plan,
) -> maskwright_status {
    // SAFETY: handed on from the caller.
    unsafe { plan_new(module, masks, mask_count, plan, Promotion::WhereFaster) }
}

/// The same, but every block is computed as its mask says, also where a finer precision would be faster.
///
/// # Safety
/// As for `maskwright_plan_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn maskwright_plan_new_as_masked(
    module: *const maskwright_module,
    masks: *const maskwright_mask,
    mask_count: size_t,
    plan: *mut *mut maskwright_plan,
) -> maskwright_status {
    // SAFETY: handed on from the caller.
    unsafe { plan_new(module, masks, mask_count, plan, Promotion::Never) }
}

/// # Safety
/// As for [`maskwright_plan_new`].
unsafe fn plan_new(
    module: *const maskwright_module,
    masks: *const maskwright_mask,
    mask_count: size_t,
    plan: *mut *mut maskwright_plan,
    promotion: Promotion,
) -> maskwright_status {
    guarded(|| {
        // SAFETY: not null, and what the caller says it is.
        let module = unsafe { module.as_ref() }.ok_or(Refusal::Null("module"))?;
        let plan = unsafe { plan.as_mut() }.ok_or(Refusal::Null("plan"))?;
        *plan = ptr::null_mut();
        let masks = unsafe { values(masks, mask_count, "masks") }?;
        let shape = module.shape()?;
        if masks.len() != shape.heads as usize {
            return Err(KernelError::Heads { heads: shape.heads, found: masks.len() }.into());
        }
        let masks = masks.iter().map(|mask| unsafe { head_mask(mask, &shape) });
        let masks: Vec<HeadMask> = masks.collect::<Result<_, _>>()?;
        let mut options = PlanOptions::new()?.promotion(promotion);
        if let Some(threads) = NonZeroUsize::new(module.threads as usize) {
            options = options.threads(threads);
        }
        options = options.int8_softmax(match module.integer_softmax {
            0 => Int8Softmax::Float,
            1 => Int8Softmax::Integer(Normalisation::Deferred),
            found => return Err(Refusal::Impossible(format!("integer_softmax is 0 or 1, not {found}"))),
        });
        *plan = Box::into_raw(Box::new(maskwright_plan(AttentionPlan::with_options(&masks, shape, options)?)));
        Ok(())
    })
}

/// Frees a plan; null is nothing to free.
///
/// # Safety
/// `plan` is null or a plan, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn maskwright_plan_free(plan: *mut maskwright_plan) {
    if !plan.is_null() {
        // SAFETY: it was made by `Box::into_raw`, and is freed once.
        drop(unsafe { Box::from_raw(plan) });
    }
}

/// Makes a workspace for calls of `plan` and of plans that need no more; free it with `maskwright_workspace_free`.
///
/// # Safety
/// `plan` is a plan that was not freed, `workspace` points to a pointer; null is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn maskwright_workspace_new(
    plan: *const maskwright_plan,
    workspace: *mut *mut maskwright_workspace,
) -> maskwright_status {
    guarded(|| {
        // SAFETY: not null, and what the caller says it is.
        let workspace = unsafe { workspace.as_mut() }.ok_or(Refusal::Null("workspace"))?;
        *workspace = ptr::null_mut();
        let plan = unsafe { plan.as_ref() }.ok_or(Refusal::Null("plan"))?;
        *workspace = Box::into_raw(Box::new(maskwright_workspace(plan.0.workspace())));
        Ok(())
    })
}

/// Makes room in `workspace` for calls of `plan`, too, as where layers that run one after the other share one. Allocates where
/// there is not enough yet.
///
/// # Safety
/// `plan` is a plan and `workspace` a workspace, both not freed; null is refused. No other call uses `workspace` at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn maskwright_workspace_reserve(
    workspace: *mut maskwright_workspace,
    plan: *const maskwright_plan,
) -> maskwright_status {
    guarded(|| {
        // SAFETY: not null, and what the caller says it is.
        let workspace = unsafe { workspace.as_mut() }.ok_or(Refusal::Null("workspace"))?;
        let plan = unsafe { plan.as_ref() }.ok_or(Refusal::Null("plan"))?;
        workspace.0.reserve(&plan.0);
        Ok(())
    })
}

/// Frees a workspace; null is nothing to free.
///
/// # Safety
/// `workspace` comes from `maskwright_workspace_new` and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn maskwright_workspace_free(workspace: *mut maskwright_workspace) {
    if !workspace.is_null() {
        // SAFETY: it was made by `Box::into_raw`, and is freed once.
        drop(unsafe { Box::from_raw(workspace) });
    }
}

/// Computes attention: `q` and `out` are `[heads, queries, head_dim]`, `k` and `v` `[heads, keys, head_dim]`, row-major and
/// dense; `out` overlaps none of the others. Each length is in floats. Only the first `live_keys` keys exist, the rest is
/// padding and never read; SIZE_MAX stands for all. Nothing is written unless the status is OK or INTERNAL.
///
/// # Safety
/// Every pointer points to what it says, arrays to as many floats as their length; null is refused. No other call uses
/// `workspace` at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn maskwright_run(
    plan: *const maskwright_plan,
    q: *const f32,
    q_len: size_t,
    k: *const f32,
    k_len: size_t,
    v: *const f32,
    v_len: size_t,
    live_keys: size_t,
    out: *mut f32,
    out_len: size_t,
    workspace: *mut maskwright_workspace,
) -> maskwright_status {
    guarded(|| {
        // SAFETY: not null, and what the caller says it is.
        let plan = unsafe { plan.as_ref() }.ok_or(Refusal::Null("plan"))?;
        let workspace = unsafe { workspace.as_mut() }.ok_or(Refusal::Null("workspace"))?;
        let (q, k, v) = unsafe { (values(q, q_len, "q")?, values(k, k_len, "k")?, values(v, v_len, "v")?) };
        if out.is_null() {
            return Err(Refusal::Null("out"));
        }
        check_length::<f32>(out_len)?;
        let out = unsafe { slice::from_raw_parts_mut(out, out_len) };
        let inputs = Inputs::new(q, k, v);
        let inputs = if live_keys == usize::MAX { inputs } else { inputs.live_keys(live_keys) };
        Ok(plan.0.run(inputs, out, &mut workspace.0)?)
    })
}

/// The name of the instructions that `plan` computes with: `portable`, `avx2`, `avx512-vnni`, `avx512` or `amx`; empty for null. Not to be freed.
///
/// # Safety
/// `plan` is null or a plan that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn maskwright_plan_kernel(plan: *const maskwright_plan) -> *const c_char {
    // SAFETY: null, or what the caller says it is.
    let name = match unsafe { plan.as_ref() }.map(|plan| plan.0.options().kernel) {
        Some(Kernel::Portable) => c"portable",
        Some(Kernel::Avx2) => c"avx2",
        Some(Kernel::Avx512Vnni) => c"avx512-vnni",
        Some(Kernel::Avx512) => c"avx512",
        Some(Kernel::Amx) => c"amx",
        None => c"",
    };
    name.as_ptr()
}

/// How many active blocks `plan` computes more finely than their masks say, of all heads; 0 for null.
///
/// # Safety
/// `plan` is null or a plan that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn maskwright_plan_promoted_blocks(plan: *const maskwright_plan) -> size_t {
    // SAFETY: null, or what the caller says it is.
    unsafe { plan.as_ref() }.map_or(0, |plan| plan.0.promoted_blocks())
}

/// What went wrong with the last call of this thread that did not end well: one sentence, empty if none. It stays until
/// the thread's next call of this library, and is not to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn maskwright_error_message() -> *const c_char {
    MESSAGE.with(|message| message.borrow().as_ptr())
}

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// Why a call was refused.
enum Refusal {
    Null(&'static str),
    Impossible(String),
    Kernel(KernelError),
}

impl From<KernelError> for Refusal {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

impl From<MaskError> for Refusal {
    fn from(error: MaskError) -> Self {
        Self::Impossible(error.to_string())
    }
}

impl Refusal {
    fn status_and_message(self) -> (maskwright_status, String) {
        match self {
            Self::Null(what) => (maskwright_status::NULL_POINTER, format!("`{what}` is null")),
            Self::Impossible(message) => (maskwright_status::MASK, message),
            Self::Kernel(error) => {
                let status = match error {
                    KernelError::Length { .. } | KernelError::LiveKeys { .. } | KernelError::TooLarge { .. } => {
                        maskwright_status::LENGTH
                    }
                    KernelError::Workspace => maskwright_status::WORKSPACE,
                    KernelError::UnknownKernel { .. } | KernelError::Unsupported { .. } => maskwright_status::KERNEL,
                    _ => maskwright_status::MASK,
                };
                (status, error.to_string())
            }
        }
    }
}

/// Runs `call`, and keeps its message where it is refused or panics.
fn guarded(call: impl FnOnce() -> Result<(), Refusal>) -> maskwright_status {
    let (status, message) = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => (maskwright_status::OK, String::new()),
        Ok(Err(refusal)) => refusal.status_and_message(),
        Err(_) => (maskwright_status::INTERNAL, "a fault of maskwright: please report it".into()),
    };
    MESSAGE.with(|kept| *kept.borrow_mut() = CString::new(message.replace('\0', " ")).unwrap_or_default());
    status
}

/// `len` values at `first`.
///
/// # Safety
/// `first` is null or points to as many.
unsafe fn values<'a, T>(first: *const T, len: usize, what: &'static str) -> Result<&'a [T], Refusal> {
    if first.is_null() {
        return Err(Refusal::Null(what));
    }
    check_length::<T>(len)?;
    // SAFETY: not null, and as long as the caller says.
    Ok(unsafe { slice::from_raw_parts(first, len) })
}

/// Refuses what no memory holds.
fn check_length<T>(len: usize) -> Result<(), Refusal> {
    match len <= isize::MAX as usize / size_of::<T>() {
        true => Ok(()),
        false => Err(Refusal::Impossible(format!("{len} values are more than memory can address"))),
    }
}

impl maskwright_module {
    fn shape(&self) -> Result<AttentionShape, Refusal> {
        let &Self { heads, queries, keys, head_dim, .. } = self;
        let kind = match self.kind {
            0 => AttentionKind::SelfAttention,
            1 => AttentionKind::CausalSelfAttention,
            2 => AttentionKind::CrossAttention,
            found => return Err(Refusal::Impossible(format!("kind is one of maskwright_kind, 0 to 2, not {found}"))),
        };
        Ok(AttentionShape { kind, heads, queries, keys, head_dim, windows: 1 })
    }
}

/// The mask in our own form; that it fits the shape is checked by the plan.
///
/// # Safety
/// `mask.blocks` is null or points to `mask.len` bytes.
unsafe fn head_mask(mask: &maskwright_mask, shape: &AttentionShape) -> Result<HeadMask, Refusal> {
    let block_size = BlockSize::try_from(mask.block_size)?;
    // SAFETY: handed on from the caller.
    let bytes = unsafe { values(mask.blocks, mask.len, "blocks") }?;
    let cell = |byte: &u8| match byte {
        0 => Ok(None),
        width => Precision::try_from(u32::from(*width)).map(Some),
    };
    let cells: Vec<Option<Precision>> = bytes.iter().map(cell).collect::<Result<_, _>>()?;
    let blocks = BlockMask::new(block_size.cover(shape.keys) as usize, cells)?;
    Ok(HeadMask { block_size, blocks })
}
