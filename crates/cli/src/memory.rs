//! How the process keeps its memory, and how much it has taken.

use std::fs;

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

/// From now on, [`peak`] is of what follows. Where the system does not allow it, of all that was.
pub(crate) fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5"); // Linux alone has it; elsewhere there is no peak to tell
}

/// Most memory that was resident at once, in bytes, where the system tells.
pub(crate) fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
