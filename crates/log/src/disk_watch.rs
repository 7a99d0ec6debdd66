//! What the log does to the disk, told to whoever simulates one (feature `simulation`; see docs/internals/simulation.md).
//!
//! The log's own code and real files are used; a watch on the thread hears of each operation before it happens, may keep
//! account of what is durable, and may refuse it, which is how processes die and disks fail. Without the feature nothing
//! of this is compiled but the names of the operations, and nothing is called.

use std::fs::File;
use std::path::Path;

/// Something that is about to change the disk, to make a change durable, or to read. Positions and lengths are bytes.
#[derive(Debug)]
#[cfg_attr(not(feature = "simulation"), allow(dead_code, reason = "only a watch reads what the operations carry"))]
pub enum DiskOp<'a> {
    /// A file is made, or opened if it is there; `emptied`: what it held goes.
    Create {
        path: &'a Path,
        emptied: bool,
    },
    /// Changes nothing, and may be refused as what disks cannot read is.
    Read {
        file: &'a File,
        position: u64,
        length: u64,
    },
    Write {
        file: &'a File,
        position: u64,
        bytes: &'a [u8],
    },
    SetLen {
        file: &'a File,
        length: u64,
    },
    Sync {
        file: &'a File,
    },
    SyncDir {
        path: &'a Path,
    },
    Rename {
        from: &'a Path,
        to: &'a Path,
    },
    CreateDir {
        path: &'a Path,
    },
    RemoveFile {
        path: &'a Path,
    },
    /// A folder with what is still in it.
    RemoveDirAll {
        path: &'a Path,
    },
}

#[cfg(feature = "simulation")]
pub use watching::{DiskWatch, install};
#[cfg(feature = "simulation")]
pub(crate) use watching::{before, is_watched, opened};

#[cfg(feature = "simulation")]
mod watching {
    use std::cell::RefCell;
    use std::io;
    use std::rc::Rc;

    use super::{DiskOp, File, Path};

    /// Hears of everything that this thread does to the disk.
    pub trait DiskWatch {
        /// An error keeps the operation from happening, and is what its caller gets.
        fn before(&self, operation: &DiskOp<'_>) -> io::Result<()>;
        /// A file was opened for writing.
        fn opened(&self, path: &Path, file: &File);
    }

    thread_local! {
        static WATCH: RefCell<Option<Rc<dyn DiskWatch>>> = const { RefCell::new(None) };
    }

    /// From now on, on this thread; `None`: nobody watches.
    pub fn install(watch: Option<Rc<dyn DiskWatch>>) {
        WATCH.with(|slot| *slot.borrow_mut() = watch);
    }

    fn watch() -> Option<Rc<dyn DiskWatch>> {
        WATCH.with(|slot| slot.borrow().clone())
    }

    pub(crate) fn is_watched() -> bool {
        watch().is_some()
    }

    pub(crate) fn before(operation: &DiskOp<'_>) -> io::Result<()> {
        watch().map_or(Ok(()), |watch| watch.before(operation))
    }

    pub(crate) fn opened(path: &Path, file: &File) {
        if let Some(watch) = watch() {
            watch.opened(path, file);
        }
    }
}
