//! How the process keeps its memory.

/// Keeps freed memory instead of returning it to the system: a training step takes and frees hundreds of tensors of
/// some megabytes, and glibc would have the kernel clear fresh pages for each, a third of the step's time
/// (`docs/decisions/502`). Other systems' allocators are left as they are.
pub(crate) fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const NEVER: libc::c_int = libc::c_int::MAX;
        // SAFETY: called before any thread is started; both settings only tune the allocator. A refusal leaves the default.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, NEVER);
            libc::mallopt(libc::M_TRIM_THRESHOLD, NEVER);
        }
    }
}
