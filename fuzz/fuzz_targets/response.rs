//! Responses of every version: bytes decode or are refused within the budget; what decodes is encoded and decoded again to
//! the same value.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use taccola_fuzz::Entry;

static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(taccola_fuzz::entries);

fuzz_target!(|data: &[u8]| {
    let entries: Vec<&Entry> = ENTRIES.iter().filter(|entry| entry.name.ends_with("Response")).collect();
    taccola_fuzz::run(&entries, data);
});
