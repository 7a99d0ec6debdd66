//! The taccola binary.
fn main() {}
