//! Group coordinators as pure replayable state machines.
