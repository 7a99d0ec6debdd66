//! `invariant!`: a check that is always on. A broken invariant in a data-path crate stops the process, because whatever
//! would follow could damage data that is still whole.

/// Stops the process when the condition does not hold: prints the condition, the place and the message, then aborts, so
/// that no unwinding handler can carry on with a state that is known to be wrong.
#[macro_export]
macro_rules! invariant {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            $crate::invariant::broken(stringify!($condition), file!(), line!(), &format!($($message)+));
        }
    };
}

/// Reports a broken invariant and aborts. Called by [`invariant!`] alone.
#[cold]
pub fn broken(condition: &str, file: &str, line: u32, message: &str) -> ! {
    eprintln!("FATAL broken invariant at {file}:{line}: {message} ({condition})");
    std::process::abort();
}
