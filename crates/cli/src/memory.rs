//! How the process keeps its memory.

/// Keeps freed memory instead of returning it to the system: a training step takes and frees hundreds of tensors of
/// some megabytes, and glibc would have the kernel clear fresh pages for each, a third of the step's time
/// (`docs/decisions/502`). Other systems' allocators are left as they are.
pub(crate) fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: called before any thread is started; both settings only tune the allocator. A refusal leaves the default.
        unsafe {
            libc::mallopt(libc::M_MMAP_MAX, 0); // large blocks come from the heap, too
            libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX); // and stay there
        }
    }
}
