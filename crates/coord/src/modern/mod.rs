//! What consumer, share and streams groups have in common: their state is what their records in the log say, members
//! have epochs, the coordinator assigns, and members reconcile what they have with what they should have.
//!
//! `assignment` holds sets of partitions, `assignor` the ways to spread them, `timeouts` sessions, `settings` what can be set
//! for one group, `topics` what a group depends on of its topics.

pub(crate) mod assignment;
pub(crate) mod assignor;
pub(crate) mod settings;
pub(crate) mod timeouts;
pub(crate) mod topics;

use taccola_base::Uuid;

/// A member that sends this epoch wants to join, and has no partitions.
pub(crate) const JOIN_EPOCH: i32 = 0;
/// A member that sends this epoch leaves.
pub(crate) const LEAVE_EPOCH: i32 = -1;
/// A static member that sends this epoch goes away for a while: what it had is kept for whoever comes back under its
/// instance id.
pub(crate) const LEAVE_STATIC_EPOCH: i32 = -2;

/// The id of a member that did not choose one itself, as Kafka's `Uuid` prints it.
pub(crate) fn new_member_id(mut fresh_id: [u8; 16]) -> String {
    loop {
        match Uuid::from_random(fresh_id) {
            Some(id) => return id.to_string(),
            // Its text would begin with a dash; any other first byte does.
            None => fresh_id[0] = fresh_id[0].wrapping_add(4),
        }
    }
}

/// Whether the next target assignment may be computed: assignments are at least `interval_ms` apart. 0 as the time of the
/// last one: there was none, or it is not known.
pub(crate) fn may_assign(last_ms: i64, interval_ms: i32, now_ms: i64) -> bool {
    // A clock that was set back must not stop assignments.
    last_ms == 0 || interval_ms == 0 || now_ms < last_ms || now_ms - last_ms >= i64::from(interval_ms)
}
