//! `invariant!`: a check that is always on. A broken invariant in a data-path crate stops the process, because whatever
//! would follow could damage data that is still whole.

use std::sync::OnceLock;

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

static LAST_WORDS: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// Has `words` called before the process ends because of a broken invariant. The first call counts.
pub fn before_abort(words: Box<dyn Fn() + Send + Sync>) {
    let _ = LAST_WORDS.set(words);
}

/// Reports a broken invariant and aborts. Called by [`invariant!`] alone.
#[cold]
pub fn broken(condition: &str, file: &str, line: u32, message: &str) -> ! {
    eprintln!("FATAL broken invariant at {file}:{line}: {message} ({condition})");
    if let Some(words) = LAST_WORDS.get() {
        words();
    }
    std::process::abort();
}
