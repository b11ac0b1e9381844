//! The C interface: its header is current, a C program builds and runs with it, and wrong arguments are refused.

use std::{
    env,
    ffi::CStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    ptr,
};

use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, HeadMask};
use maskwright_kernels::{AttentionPlan, Inputs, Kernel, PlanOptions, Promotion, c_api::*};

fn of_crate(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_header_is_what_the_source_says() {
    let config = cbindgen::Config::from_file(of_crate("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new().with_config(config).with_src(of_crate("src/c_api.rs")).generate().unwrap();
    let mut generated = Vec::new();
    bindings.write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();
    let committed = of_crate("include/maskwright.h");
    if env::var_os("MASKWRIGHT_UPDATE_HEADER").is_some() {
        fs::write(&committed, &generated).unwrap();
    }
    assert!(
        fs::read_to_string(committed).unwrap_or_default() == generated,
        "include/maskwright.h is old: refresh it with the command in its first line"
    );
}

/// The static library that this very build made: the newest beside the test, or in the folder above.
fn library() -> PathBuf {
    let own = env::current_exe().unwrap();
    let folders = own.ancestors().skip(1).take(2);
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let ours = files.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("libmaskwright_kernels") && name.ends_with(".a")
    });
    ours.max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap())
        .expect("cargo built the library for this test")
}

/// Where there is none, the test passes only if that is said to be so.
fn compiler() -> Option<&'static str> {
    if env::var_os("MASKWRIGHT_WITHOUT_CC").is_some() {
        return None;
    }
    let found = ["cc", "gcc", "clang"].into_iter().find(|name| Command::new(name).arg("--version").output().is_ok());
    assert!(
        found.is_some(),
        "no C compiler (cc, gcc, clang) on this machine: set MASKWRIGHT_WITHOUT_CC=1 to test without"
    );
    found
}

#[test]
fn a_c_program_builds_and_runs() {
    let Some(compiler) = compiler() else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("attend");
    let built = Command::new(compiler)
        .args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(of_crate("include"))
        .arg(of_crate("examples/c/attend.c"))
        .arg(library())
        .args(["-lm", "-lpthread", "-ldl", "-o"])
        .arg(&program)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let run = Command::new(program).output().unwrap();
    let stdout = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{stdout}{}", String::from_utf8_lossy(&run.stderr));
    // Status 2 is a wrong length: 2 heads x 40 tokens x 32 features are 2560 values.
    assert!(stdout.contains("\n2: `q` holds 2559 values, this plan needs 2560"), "{stdout}");
}

const MODULE: maskwright_module =
    maskwright_module { kind: 0, heads: 1, queries: 16, keys: 16, head_dim: 8, threads: 1, integer_softmax: 0 };

fn message() -> String {
    // SAFETY: the message is text that ends with a zero, and stays until the next call.
    unsafe { CStr::from_ptr(maskwright_error_message()) }.to_str().unwrap().to_owned()
}

fn planned(module: &maskwright_module, block_size: u32, blocks: &[u8]) -> (maskwright_status, *mut maskwright_plan) {
    let mask = maskwright_mask { block_size, blocks: blocks.as_ptr(), len: blocks.len() };
    let mut plan = ptr::dangling_mut();
    // SAFETY: every pointer is to what it says.
    let status = unsafe { maskwright_plan_new(module, &mask, 1, &mut plan) };
    (status, plan)
}

#[test]
fn impossible_masks_and_modules_are_refused_with_a_sentence() {
    use maskwright_status::{LENGTH, MASK};
    for (module, block_size, blocks, expected, says) in [
        (MODULE, 24, &[4][..], MASK, "block size is 8, 16 or 32 tokens, not 24"),
        (MODULE, 16, &[3], MASK, "precision is 1, 2 or 4 bytes per element, not 3"),
        (MODULE, 16, &[0], MASK, "query block 0 attends to no key block"),
        (MODULE, 8, &[4, 0, 4], MASK, "3 cells do not make rows of 2 blocks"),
        (MODULE, 16, &[4, 4], MASK, "do not cover 16 x 16 tokens"),
        (maskwright_module { kind: 7, ..MODULE }, 16, &[4], MASK, "kind is one of maskwright_kind"),
        (maskwright_module { head_dim: 12, ..MODULE }, 16, &[4], MASK, "head_dim is a multiple of 8"),
        (maskwright_module { heads: 2, ..MODULE }, 16, &[4], MASK, "2 heads, but 1 masks"),
        (maskwright_module { integer_softmax: 2, ..MODULE }, 16, &[4], MASK, "integer_softmax is 0 or 1, not 2"),
    ] {
        let (status, plan) = planned(&module, block_size, blocks);
        assert_eq!(status, expected, "{says}");
        assert!(plan.is_null() && message().contains(says), "{says}: {}", message());
        assert_ne!(status, LENGTH);
    }
}

type MakesPlan = unsafe extern "C" fn(
    *const maskwright_module,
    *const maskwright_mask,
    usize,
    *mut *mut maskwright_plan,
) -> maskwright_status;

#[test]
fn plans_that_compute_blocks_as_masked_do_so() {
    // The 8-bit block does not pay for packing its head at 8 bit.
    let mut blocks = [4; 16];
    blocks[15] = 1;
    let module = maskwright_module { queries: 64, keys: 64, ..MODULE };
    let mask = maskwright_mask { block_size: 16, blocks: blocks.as_ptr(), len: blocks.len() };
    let values: Vec<f32> = (0..64 * 8).map(|at| (at as f32).sin()).collect();
    let len = values.len();
    let of_c = |make: MakesPlan| {
        let (mut plan, mut workspace, mut out) = (ptr::null_mut(), ptr::null_mut(), vec![f32::NAN; len]);
        let (from, to) = (values.as_ptr(), out.as_mut_ptr());
        // SAFETY: every pointer is to what it says.
        unsafe {
            assert_eq!(make(&module, &mask, 1, &mut plan), maskwright_status::OK);
            assert_eq!(maskwright_workspace_new(plan, &mut workspace), maskwright_status::OK);
            let status = maskwright_run(plan, from, len, from, len, from, len, usize::MAX, to, len, workspace);
            assert_eq!(status, maskwright_status::OK);
            maskwright_workspace_free(workspace);
            let promoted = maskwright_plan_promoted_blocks(plan);
            maskwright_plan_free(plan);
            (out, promoted)
        }
    };
    let of_rust = |promotion| {
        let kind = AttentionKind::SelfAttention;
        let shape = AttentionShape { kind, heads: 1, queries: 64, keys: 64, head_dim: 8, windows: 1 };
        let mask = HeadMask { block_size: BlockSize::B16, blocks: "4444\n4444\n4444\n4441".parse().unwrap() };
        let options = PlanOptions::on(Kernel::from_environment().unwrap()).promotion(promotion);
        let plan = AttentionPlan::with_options(&[mask], shape, options).unwrap();
        let mut out = vec![f32::NAN; len];
        plan.run(Inputs::new(&values, &values, &values), &mut out, &mut plan.workspace()).unwrap();
        (out, plan.promoted_blocks())
    };
    let (as_masked, promoted) = (of_c(maskwright_plan_new_as_masked), of_c(maskwright_plan_new));
    assert_eq!(as_masked, of_rust(Promotion::Never));
    assert_eq!(promoted, of_rust(Promotion::WhereFaster));
    assert_ne!(as_masked.0, promoted.0);
    assert_eq!((as_masked.1, promoted.1), (0, 1));
}

#[test]
fn plans_share_a_workspace_that_has_room_for_each() {
    let (status, single) = planned(&MODULE, 16, &[4]);
    assert_eq!(status, maskwright_status::OK);
    let mask = maskwright_mask { block_size: 16, blocks: [1].as_ptr(), len: 1 };
    let mut int8 = ptr::null_mut();
    let mut workspace = ptr::null_mut();
    let (values, mut out) = (vec![1.0_f32; 128], vec![f32::NAN; 128]);
    // SAFETY: every pointer is to what it says.
    unsafe {
        assert_eq!(maskwright_plan_new_as_masked(&MODULE, &mask, 1, &mut int8), maskwright_status::OK);
        assert_eq!(maskwright_workspace_new(single, &mut workspace), maskwright_status::OK);
        let mut run = |plan| {
            let from = values.as_ptr();
            maskwright_run(plan, from, 128, from, 128, from, 128, usize::MAX, out.as_mut_ptr(), 128, workspace)
        };
        assert_eq!(run(int8), maskwright_status::WORKSPACE);
        assert_eq!(maskwright_workspace_reserve(workspace, int8), maskwright_status::OK);
        assert_eq!([run(int8), run(single), run(int8)], [maskwright_status::OK; 3]);
        maskwright_workspace_free(workspace);
        maskwright_plan_free(single);
        maskwright_plan_free(int8);
    }
}

#[test]
fn null_pointers_are_refused_by_name_and_nothing_is_written() {
    let (status, plan) = planned(&MODULE, 16, &[4]);
    assert_eq!((status, message().as_str()), (maskwright_status::OK, ""));
    let mut workspace = ptr::null_mut();
    let (values, mut out) = (vec![1.0_f32; 128], vec![f32::NAN; 128]);
    // SAFETY: every pointer is null or to what it says.
    unsafe {
        assert_eq!(maskwright_workspace_new(plan, &mut workspace), maskwright_status::OK);
        let run = |q: *const f32, q_len, live, to: *mut f32| {
            let from = values.as_ptr();
            (maskwright_run(plan, q, q_len, from, 128, from, 128, live, to, 128, workspace), message())
        };
        let to = out.as_mut_ptr();
        assert_eq!(run(ptr::null(), 128, 16, to), (maskwright_status::NULL_POINTER, "`q` is null".into()));
        assert_eq!(run(values.as_ptr(), 128, 16, ptr::null_mut()).0, maskwright_status::NULL_POINTER);
        assert_eq!(run(values.as_ptr(), 120, 16, to).0, maskwright_status::LENGTH);
        assert_eq!(run(values.as_ptr(), 128, 17, to).0, maskwright_status::LENGTH);
        assert!(out.iter().all(|value| value.is_nan()));
        let mut run = |live| {
            let from = values.as_ptr();
            maskwright_run(plan, from, 128, from, 128, from, 128, live, out.as_mut_ptr(), 128, workspace)
        };
        assert_eq!(run(usize::MAX), maskwright_status::OK);
        assert!(out.iter().all(|value| (value - 1.0).abs() < 1e-6)); // means of ones
        assert_eq!(maskwright_workspace_reserve(ptr::null_mut(), plan), maskwright_status::NULL_POINTER);
        assert_eq!(maskwright_workspace_reserve(workspace, ptr::null()), maskwright_status::NULL_POINTER);
        maskwright_workspace_free(workspace);
        assert_eq!(maskwright_workspace_new(ptr::null(), &mut workspace), maskwright_status::NULL_POINTER);
        assert!(workspace.is_null());
        let name = CStr::from_ptr(maskwright_plan_kernel(plan)).to_str().unwrap();
        assert!(["portable", "avx2", "avx512-vnni", "avx512", "amx"].contains(&name));
        assert_eq!(maskwright_plan_promoted_blocks(ptr::null()), 0);
        maskwright_plan_free(plan);
        maskwright_plan_free(ptr::null_mut());
        maskwright_workspace_free(ptr::null_mut());
    }
}
