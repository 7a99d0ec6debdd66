//! What surrounds a simulated broker and is read through the broker's own clock and random source: time, random bytes, and
//! the end of a process whose storage failed. One world per thread; a thread without one has the real clock.

use std::cell::RefCell;

use super::rng::Rng;

/// 2026-01-01, the beginning of all simulated times.
const BEGIN_MS: i64 = 1_767_225_600_000;

struct World {
    seed: u64,
    now_ms: i64,
    rng: Rng,
    storage_failed: Option<String>,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// A new world for this thread.
pub(super) fn begin(seed: u64) {
    let world = World { seed, now_ms: BEGIN_MS, rng: Rng(seed ^ 0x5EED), storage_failed: None };
    WORLD.with(|slot| *slot.borrow_mut() = Some(world));
}

/// For the last words of a process whose invariant broke.
pub(super) fn seed() -> Option<u64> {
    WORLD.with(|slot| slot.try_borrow().ok().and_then(|slot| slot.as_ref().map(|world| world.seed)))
}

pub(super) fn end() {
    WORLD.with(|slot| *slot.borrow_mut() = None);
}

/// Milliseconds since 1970, if this thread simulates.
pub(crate) fn now_ms() -> Option<i64> {
    WORLD.with(|slot| slot.borrow().as_ref().map(|world| world.now_ms))
}

pub(super) fn advance(ms: u64) {
    WORLD.with(|slot| {
        if let Some(world) = slot.borrow_mut().as_mut() {
            world.now_ms += i64::try_from(ms).unwrap();
        }
    });
}

/// Random bytes that follow from the seed; false where nothing is simulated.
pub(crate) fn fill(bytes: &mut [u8]) -> bool {
    WORLD.with(|slot| {
        let mut slot = slot.borrow_mut();
        let Some(world) = slot.as_mut() else { return false };
        for byte in bytes {
            *byte = (world.rng.next() >> 32) as u8;
        }
        true
    })
}

/// The broker would end itself here; false where nothing is simulated.
pub(crate) fn storage_failed(reason: &str) -> bool {
    WORLD.with(|slot| {
        let mut slot = slot.borrow_mut();
        let Some(world) = slot.as_mut() else { return false };
        world.storage_failed.get_or_insert_with(|| reason.to_owned());
        true
    })
}

/// Why the broker ended itself, if it did; asked once.
pub(super) fn take_storage_failure() -> Option<String> {
    WORLD.with(|slot| slot.borrow_mut().as_mut().and_then(|world| world.storage_failed.take()))
}
