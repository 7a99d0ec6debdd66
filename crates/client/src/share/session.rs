//! One member's share session with one broker (KIP-932): which partitions the broker knows, and the epoch of the next
//! request. Requests of a session follow one another; whatever breaks that order ends it, and the next begins with epoch 0.

use std::collections::BTreeSet;

use taccola_base::Uuid;

/// Epoch of the request that ends a session.
pub(super) const FINAL_EPOCH: i32 = -1;

/// A partition as share requests name it.
pub(super) type Key = (Uuid, i32);

#[derive(Debug, Default)]
pub(super) struct Session {
    /// Of the next request; 0 begins a session.
    epoch: i32,
    known: BTreeSet<Key>,
    /// A request is under way, or was given up.
    open: bool,
}

/// What a fetch says about partitions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) added: BTreeSet<Key>,
    pub(super) forgotten: BTreeSet<Key>,
}

impl Session {
    /// Whether the broker knows of this session.
    pub(super) fn established(&self) -> bool {
        self.epoch != 0 && !self.open
    }

    /// Whether the request under way began the session.
    pub(super) fn begun_new(&self) -> bool {
        self.epoch == 0
    }

    /// The epoch to send. A request that was given up (its caller went away) broke the order.
    pub(super) fn begin(&mut self) -> i32 {
        if self.open {
            self.reset();
        }
        self.open = true;
        self.epoch
    }

    /// What is to be said so that the session holds `wanted`, which it does from now on.
    pub(super) fn change(&mut self, wanted: &BTreeSet<Key>) -> Change {
        let change = Change {
            added: wanted.difference(&self.known).copied().collect(),
            forgotten: self.known.difference(wanted).copied().collect(),
        };
        self.known.clone_from(wanted);
        change
    }

    /// The broker has answered; epochs wrap around to 1.
    pub(super) fn answered(&mut self) {
        self.open = false;
        self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_once_and_a_lost_request_starts_over() {
        let key = |partition| (Uuid::from_u128(1), partition);
        let mut session = Session::default();
        assert!(!session.established());
        assert_eq!(session.begin(), 0);
        let change = session.change(&[key(0), key(1)].into());
        assert_eq!((change.added.len(), change.forgotten.len()), (2, 0));
        session.answered();
        assert_eq!((session.begin(), session.established()), (1, false));
        let change = session.change(&[key(1), key(2)].into());
        assert_eq!((change.added, change.forgotten), ([key(2)].into(), [key(0)].into()));
        assert_eq!(session.begin(), 0, "the last request was never answered");
        assert_eq!(session.change(&[key(1)].into()).added, [key(1)].into());
        session.epoch = i32::MAX;
        session.answered();
        assert_eq!(session.begin(), 1);
    }
}
