//! Randomness for the runtime; engines are handed what they need of it.

/// A random integer from 1 to `i32::MAX`, both inclusive.
pub fn positive_i32() -> i32 {
    let mut bytes = [0; 4];
    if getrandom::fill(&mut bytes).is_err() {
        taccola_base::invariant::broken("getrandom", file!(), line!(), "the operating system gives no random bytes");
    }
    (i32::from_be_bytes(bytes) & i32::MAX).max(1)
}

/// Sixteen random bytes.
pub fn bytes16() -> [u8; 16] {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        taccola_base::invariant::broken("getrandom", file!(), line!(), "the operating system gives no random bytes");
    }
    bytes
}
