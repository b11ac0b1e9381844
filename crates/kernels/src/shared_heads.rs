use std::{
    sync::{
        PoisonError, RwLock, RwLockWriteGuard, TryLockError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::packed::PackedHead;

/// Rooms for packed heads, one for each thread of a call or for each head, whichever are fewer: then one that is in no room finds
/// one that no thread reads.
///
/// A thread reads a head where it has been packed. One that is in no room it packs itself: into its own room if it can, which is
/// still in its caches.
#[derive(Debug)]
pub(crate) struct SharedHeads {
    rooms: Vec<RwLock<Room>>,
    /// For each head of the module the room that has it, or soon will; [`NOWHERE`] else.
    places: Vec<AtomicUsize>,
}

#[derive(Debug)]
struct Room {
    /// Which head of this call it holds.
    head: Option<usize>,
    packed: PackedHead,
}

const NOWHERE: usize = usize::MAX;

impl SharedHeads {
    /// For a module of so many `heads`, in one room at least.
    pub(crate) fn new(heads: usize, rooms: impl IntoIterator<Item = PackedHead>) -> Self {
        let rooms = rooms.into_iter().map(|packed| RwLock::new(Room { head: None, packed })).collect();
        Self { rooms, places: (0..heads).map(|_| AtomicUsize::new(NOWHERE)).collect() }
    }

    /// A room for one thread alone.
    pub(crate) fn first(&mut self) -> &mut PackedHead {
        &mut self.rooms[0].get_mut().unwrap_or_else(PoisonError::into_inner).packed
    }

    /// Before a call with other numbers.
    pub(crate) fn forget(&mut self) {
        self.places.iter_mut().for_each(|place| *place.get_mut() = NOWHERE);
        for room in &mut self.rooms {
            room.get_mut().unwrap_or_else(PoisonError::into_inner).head = None;
        }
    }

    pub(crate) fn words(&self) -> usize {
        let words = |room: &RwLock<Room>| room.read().unwrap_or_else(PoisonError::into_inner).packed.words();
        self.rooms.iter().map(words).sum()
    }

    /// Reads `head`, packed by `pack` if it is in no room, on thread number `worker`.
    pub(crate) fn with(
        &self,
        head: usize,
        worker: usize,
        pack: impl Fn(&mut PackedHead),
        read: impl FnOnce(&PackedHead),
    ) {
        loop {
            let place = self.places[head].load(Ordering::Acquire);
            if place == NOWHERE {
                if let Some(room) = self.pack(head, worker, &pack) {
                    let room = RwLockWriteGuard::downgrade(room);
                    return read(&room.packed);
                }
                thread::yield_now();
                continue;
            }
            // Waits while it is being packed; holds nothing meanwhile.
            let room = self.rooms[place].read().unwrap_or_else(PoisonError::into_inner);
            if room.head == Some(head) {
                return read(&room.packed);
            }
            // Another head has come into the room, which is known by now, or who packed it did not come to an end. While the room is
            // being read, nobody puts a head into it.
            let _ = self.places[head].compare_exchange(place, NOWHERE, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// None if another thread packs it, or no room is free at the moment.
    fn pack(&self, head: usize, worker: usize, pack: impl Fn(&mut PackedHead)) -> Option<RwLockWriteGuard<'_, Room>> {
        let own = worker % self.rooms.len();
        for at in (own..self.rooms.len()).chain(0..own) {
            let mut room = match self.rooms[at].try_write() {
                Ok(room) => room,
                Err(TryLockError::Poisoned(room)) => room.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            self.places[head].compare_exchange(NOWHERE, at, Ordering::AcqRel, Ordering::Relaxed).ok()?;
            if let Some(before) = room.head.take() {
                self.places[before].store(NOWHERE, Ordering::Release);
            }
            pack(&mut room.packed);
            room.head = Some(head);
            return Some(room);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU32, thread};

    use super::*;

    fn heads(heads: usize, rooms: usize) -> SharedHeads {
        SharedHeads::new(heads, (0..rooms).map(|_| PackedHead::with_room(1, 1, 8, [false, false, true])))
    }

    fn mark(packed: &mut PackedHead, head: usize) {
        packed.single_keys[0] = head as u32;
    }

    #[test]
    fn a_head_is_packed_once_while_it_is_in_a_room() {
        let shared = heads(3, 2);
        let packed = AtomicU32::new(0);
        let read = |head: usize, worker: usize| {
            let pack = |room: &mut PackedHead| {
                packed.fetch_add(1, Ordering::Relaxed);
                mark(room, head);
            };
            shared.with(head, worker, pack, |room| assert_eq!(room.single_keys[0], head as u32));
        };
        for (head, worker) in [(0, 0), (0, 0), (0, 1), (1, 1), (0, 1), (1, 0)] {
            read(head, worker);
        }
        assert_eq!(packed.load(Ordering::Relaxed), 2);
        // Takes the place of head 0, which then is nowhere.
        for (head, worker) in [(2, 0), (1, 0), (0, 0)] {
            read(head, worker);
        }
        assert_eq!(packed.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_head_goes_into_a_room_that_nobody_reads() {
        let shared = heads(2, 2);
        let right = |room: &PackedHead, head: u32| assert_eq!(room.single_keys[0], head);
        // The worker's own room is being read.
        let other = || shared.with(1, 0, |room| mark(room, 1), |room| right(room, 1));
        let first = |room: &PackedHead| {
            other();
            right(room, 0);
        };
        shared.with(0, 0, |room| mark(room, 0), first);
        for head in [0, 1] {
            shared.with(head, 0, |_| panic!("both are there"), |room| right(room, head as u32));
        }
    }

    #[test]
    fn a_new_call_packs_anew_and_so_does_who_comes_after_a_panic() {
        let mut shared = heads(1, 2);
        shared.with(0, 0, |room| mark(room, 7), |_| {});
        shared.forget();
        let unfinished = |shared: &SharedHeads| shared.with(0, 0, |_| panic!("as a test"), |_| {});
        assert!(thread::scope(|scope| scope.spawn(|| unfinished(&shared)).join()).is_err());
        // The room of the one that panicked, too.
        for worker in [0, 1] {
            shared.forget();
            shared.with(
                0,
                worker,
                |room| mark(room, 9 + worker),
                |room| {
                    assert_eq!(room.single_keys[0], 9 + worker as u32);
                },
            );
        }
    }

    #[test]
    fn threads_that_take_heads_from_each_other_read_the_right_ones() {
        let shared = heads(5, 3);
        thread::scope(|scope| {
            for worker in 0..3 {
                let shared = &shared;
                scope.spawn(move || {
                    for at in 0..3_000 {
                        let head = (at * (worker + 1) + worker) % 5;
                        shared.with(
                            head,
                            worker,
                            |room| mark(room, head),
                            |room| {
                                assert_eq!(room.single_keys[0], head as u32);
                            },
                        );
                    }
                });
            }
        });
    }
}
