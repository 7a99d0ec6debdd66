//! What consumer, share and streams groups have in common: their state is what their records in the log say, members
//! have epochs, the coordinator assigns, and members reconcile what they have with what they should have.
