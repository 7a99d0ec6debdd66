//! Black-box tests that drive the taccola binary with real clients.
