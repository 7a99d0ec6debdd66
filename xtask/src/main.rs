//! Repository tasks: codegen, tidy, test, bench, ci.
fn main() {}
