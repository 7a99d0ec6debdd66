//! Randomness for the runtime; engines are handed what they need of it.

use taccola_base::Uuid;

/// A random integer from 1 to `i32::MAX`, both inclusive.
pub fn positive_i32() -> i32 {
    (i32::from_be_bytes(bytes()) & i32::MAX).max(1)
}

/// Sixteen random bytes.
pub fn bytes16() -> [u8; 16] {
    bytes()
}

/// A new random id.
pub fn uuid() -> Uuid {
    loop {
        if let Some(id) = Uuid::from_random(bytes()) {
            return id;
        }
    }
}

fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[cfg(test)]
    if crate::simulation::world::fill(&mut bytes) {
        return bytes;
    }
    if getrandom::fill(&mut bytes).is_err() {
        taccola_base::invariant::broken("getrandom", file!(), line!(), "the operating system gives no random bytes");
    }
    bytes
}
