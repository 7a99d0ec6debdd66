//! What goes wrong on a [`Disk`](crate::power::Disk) besides the power: operations that fail or take their time, by kind,
//! path and range; a capacity; bits that flip.

use std::ops::Range;
use std::time::Duration;

/// What the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Read,
    Write,
    /// fsync and fdatasync of files and directories, and writes that are durable when they return.
    Sync,
    /// Reading the names in a directory.
    List,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Fails with this error number and does nothing.
    Fail(i32),
    /// Happens after this time.
    Delay(Duration),
}

/// One thing that goes wrong until it is cleared.
#[derive(Clone, Debug)]
pub struct Fault {
    pub op: Op,
    /// Part of the path from the disk's root.
    pub path: String,
    /// Bytes of the file; `None`: anywhere.
    pub range: Option<Range<u64>>,
    pub effect: Effect,
}

impl Fault {
    pub fn new(op: Op, path: &str, effect: Effect) -> Self {
        Self { op, path: path.to_owned(), range: None, effect }
    }

    pub fn eio(op: Op, path: &str) -> Self {
        Self::new(op, path, Effect::Fail(rustix::io::Errno::IO.raw_os_error()))
    }

    #[must_use]
    pub fn at(mut self, range: Range<u64>) -> Self {
        self.range = Some(range);
        self
    }

    fn concerns(&self, op: Op, path: &str, range: &Range<u64>) -> bool {
        let overlaps = |own: &Range<u64>| own.start < range.end && range.start < own.end;
        self.op == op && path.contains(&self.path) && self.range.as_ref().is_none_or(overlaps)
    }
}

/// All that goes wrong now.
#[derive(Debug, Default)]
pub struct Faults {
    pub list: Vec<Fault>,
    /// Bytes of all files together; `None`: no bound.
    pub capacity: Option<u64>,
    /// The kernel asks for every read anew instead of keeping pages.
    pub uncached: bool,
    /// How often something went wrong.
    pub met: u64,
}

impl Faults {
    /// What becomes of an operation, if anything.
    pub fn judge(&mut self, op: Op, path: &str, range: &Range<u64>) -> Option<Effect> {
        let effect = self.list.iter().find(|fault| fault.concerns(op, path, range)).map(|fault| fault.effect)?;
        self.met += 1;
        Some(effect)
    }
}
