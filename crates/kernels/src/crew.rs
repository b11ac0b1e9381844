//! Threads that help calls, and wait awake for the next one before they sleep.
//!
//! A call of attention is often shorter than the time in which a sleeping thread wakes up on another CPU. So helpers look
//! out for work for a while after each call, and a call does not wait for one that has not begun by its end.

use std::{
    cell::UnsafeCell,
    hint,
    marker::PhantomData,
    mem,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// How long a helper waits awake: longer than what lies between two modules of a small model, and little enough that an idle
/// process is idle.
const AWAKE: Duration = Duration::from_micros(150);

/// The most helpers of a process.
pub(crate) const MOST_HELPERS: usize = 255;

/// All helpers of this process. Whoever holds the lock is the one who is helped.
static HELPERS: Mutex<Vec<Helper>> = Mutex::new(Vec::new());

/// What several threads do together: each with a number of its own.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

struct Helper {
    post: Arc<Post>,
    thread: Thread,
}

/// Where a helper is handed its work.
struct Post {
    state: AtomicU32,
    asleep: AtomicBool,
    /// Which thread serves here; nobody's until it has begun.
    thread: AtomicI32,
    /// Written in [`FREE`], read in [`TAKEN`]: never both at once.
    offer: UnsafeCell<Option<(usize, *const Work<'static>)>>,
}

/// Nothing to do.
const FREE: u32 = 0;
/// There is work, which the helper may take and the caller may withdraw.
const OFFERED: u32 = 1;
/// The helper is at work.
const TAKEN: u32 = 2;
/// The work panicked.
const PANICKED: u32 = 3;

// SAFETY: `offer` is the caller's in `FREE` and the helper's in `TAKEN`, as `state` orders; the work that it points to can be
// shared between threads and stays until the caller has seen that nobody runs it.
unsafe impl Sync for Post {}
// SAFETY: as above.
unsafe impl Send for Post {}

/// Starts helpers until there are `count`, or as many as the system allows: calls then have less help.
pub(crate) fn enlist(count: usize) {
    let mut helpers = HELPERS.lock().unwrap_or_else(PoisonError::into_inner);
    while helpers.len() < count.min(MOST_HELPERS) {
        let post = Arc::new(Post {
            state: AtomicU32::new(FREE),
            asleep: AtomicBool::new(false),
            thread: AtomicI32::new(placement::NOBODY),
            offer: UnsafeCell::new(None),
        });
        let of_thread = Arc::clone(&post);
        let name = format!("maskwright-{}", helpers.len() + 1);
        match thread::Builder::new().name(name).spawn(move || of_thread.serve()) {
            Ok(started) => helpers.push(Helper { post, thread: started.thread().clone() }),
            Err(_) => return,
        }
    }
}

/// Calls `work(0)` here, and `work(1)` to `work(helpers)` on as many helpers as come in time. When it returns, every call
/// has ended. While another caller is being helped, there is no help.
///
/// So `work(0)` alone has to do everything that nobody else has done.
pub(crate) fn together(helpers: usize, work: &Work<'_>) {
    let all = match HELPERS.try_lock() {
        Ok(all) => all,
        Err(TryLockError::Poisoned(all)) => all.into_inner(),
        Err(TryLockError::WouldBlock) => return work(0),
    };
    let called = Called(&all[..helpers.min(all.len())]);
    for (at, helper) in called.0.iter().enumerate() {
        helper.offer(at + 1, work);
    }
    work(0);
    drop(called);
}

/// Helpers that were offered work; dropped when none of them has it any more, even if the caller panics.
struct Called<'a>(&'a [Helper]);

impl Drop for Called<'_> {
    fn drop(&mut self) {
        // All of them, before a panic lets go of what they borrow.
        let panicked = self.0.iter().fold(false, |any, helper| helper.post.withdraw() | any);
        assert!(!panicked || thread::panicking(), "a thread that helped to compute attention panicked");
    }
}

impl Helper {
    fn offer(&self, worker: usize, work: &Work<'_>) {
        // SAFETY: only the lifetime changes. `Called` is dropped before `work` ends, and then nobody runs it.
        let work = unsafe { mem::transmute::<&Work<'_>, &Work<'static>>(work) };
        // SAFETY: the state is `FREE`, as the last withdrawal left it, so the helper does not look.
        unsafe { *self.post.offer.get() = Some((worker, work)) };
        self.post.state.store(OFFERED, Ordering::Release);
        // One that is awake has its place.
        if self.post.asleep.load(Ordering::Relaxed) {
            placement::keep_away(self.post.thread.load(Ordering::Relaxed));
        }
        self.thread.unpark();
    }
}

impl Post {
    /// Takes back what has not been begun, waits for what has, and says whether it panicked.
    fn withdraw(&self) -> bool {
        if self.state.compare_exchange(OFFERED, FREE, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return false;
        }
        let begun = Instant::now();
        loop {
            match self.state.load(Ordering::Acquire) {
                TAKEN if begun.elapsed() < AWAKE => hint::spin_loop(),
                TAKEN => thread::yield_now(),
                state => {
                    self.state.store(FREE, Ordering::Relaxed);
                    return state == PANICKED;
                }
            }
        }
    }

    /// What a helper does all its life.
    fn serve(&self) {
        self.thread.store(placement::this_thread(), Ordering::Relaxed);
        loop {
            self.wait();
            // SAFETY: the state is `TAKEN`, so the caller does not write.
            let offer = unsafe { *self.offer.get() };
            let done = catch_unwind(AssertUnwindSafe(|| {
                if let Some((worker, work)) = offer {
                    // SAFETY: the caller keeps it until the state is another one.
                    unsafe { (*work)(worker) };
                }
            }));
            self.state.store(if done.is_ok() { FREE } else { PANICKED }, Ordering::Release);
        }
    }

    /// Returns with an offer taken.
    fn wait(&self) {
        let begun = Instant::now();
        loop {
            for _ in 0..32 {
                let offered = self.state.load(Ordering::Relaxed) == OFFERED;
                let take = || self.state.compare_exchange(OFFERED, TAKEN, Ordering::Acquire, Ordering::Relaxed);
                if offered && take().is_ok() {
                    return;
                }
                hint::spin_loop();
            }
            if begun.elapsed() > AWAKE {
                self.asleep.store(true, Ordering::Relaxed);
                thread::park();
                self.asleep.store(false, Ordering::Relaxed);
            }
        }
    }
}

/// On which CPU a helper wakes up.
///
/// The system may put a thread that it wakes onto the CPU of the one that wakes it, and move it away only milliseconds later,
/// when the call is over.
#[cfg(target_os = "linux")]
mod placement {
    use std::mem;

    pub(super) const NOBODY: libc::pid_t = 0;

    pub(super) fn this_thread() -> libc::pid_t {
        // SAFETY: always succeeds.
        unsafe { libc::gettid() }
    }

    /// Lets `thread` run wherever this thread may, but not where it is now.
    pub(super) fn keep_away(thread: libc::pid_t) {
        // SAFETY: a set of CPUs is plain bits, of which none is a valid value.
        let mut cpus: libc::cpu_set_t = unsafe { mem::zeroed() };
        let size = mem::size_of_val(&cpus);
        // SAFETY: the set has the size that is named; nobody but this process's thread is asked for or changed. What does
        // not succeed changes nothing.
        unsafe {
            let here = libc::sched_getcpu();
            let known = libc::sched_getaffinity(0, size, &mut cpus) == 0 && (0..8 * size as i32).contains(&here);
            if thread == NOBODY || !known || libc::CPU_COUNT(&cpus) < 2 {
                return;
            }
            libc::CPU_CLR(here as usize, &mut cpus);
            libc::sched_setaffinity(thread, size, &cpus);
        }
    }
}

/// Elsewhere the system places threads as it likes.
#[cfg(not(target_os = "linux"))]
mod placement {
    pub(super) const NOBODY: i32 = 0;

    pub(super) fn this_thread() -> i32 {
        NOBODY
    }

    pub(super) fn keep_away(_: i32) {}
}

/// A slice of which several threads change different parts at once.
pub(crate) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    whole: PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out what `&mut [T]` would, to one thread each, as the caller of `part` promises.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn of(whole: &'a mut [T]) -> Self {
        Self { start: whole.as_mut_ptr(), len: whole.len(), whole: PhantomData }
    }

    /// # Safety
    /// No part that is still in use overlaps `range`.
    #[expect(clippy::mut_from_ref, reason = "parts are disjoint, as the caller promises")]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a part lies within its slice");
        // SAFETY: within the slice, as asserted, and nobody else's, as the caller promises.
        unsafe { slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn all_work_is_done_once_however_many_come() {
        enlist(3);
        for round in 0..2000 {
            let (next, mut squares) = (AtomicUsize::new(0), [0; 100]);
            let parts = Parts::of(&mut squares);
            together(3, &|worker| {
                assert!(worker <= 3);
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= 100 {
                        return;
                    }
                    // SAFETY: each number is drawn once.
                    let square = unsafe { parts.part(at..at + 1) };
                    square[0] += at * at;
                }
            });
            assert!(squares.iter().enumerate().all(|(at, square)| *square == at * at));
            if round % 500 == 0 {
                thread::sleep(2 * AWAKE);
            }
        }
    }

    #[test]
    fn callers_that_come_at_the_same_time_all_finish() {
        enlist(2);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let count = AtomicUsize::new(0);
                        together(2, &|_| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                        assert!((1..=3).contains(&count.into_inner()));
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_of_a_helper_reaches_the_caller_and_the_next_call_works() {
        enlist(1);
        let helped = AtomicUsize::new(0);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let until = Instant::now() + Duration::from_secs(5);
            while Instant::now() < until {
                let begun = AtomicUsize::new(0);
                together(1, &|worker| {
                    begun.fetch_add(1, Ordering::Relaxed);
                    if worker == 1 {
                        helped.fetch_add(1, Ordering::Relaxed);
                        panic!("on purpose");
                    }
                    // Gives the helper time to come.
                    thread::sleep(Duration::from_millis(1));
                });
            }
        }));
        assert_eq!((panicked.is_err(), helped.into_inner()), (true, 1));
        together(1, &|_| ());
    }
}
