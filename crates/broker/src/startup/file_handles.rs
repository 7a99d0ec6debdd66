//! The process's file handles, shared out before anything needs them: a broker whose clients take the last one could open no
//! segment any more. Answers to the JVM's `-XX:+MaxFDLimit`, which raises the soft limit too.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use taccola_base::limits;

/// How many files this process may hold open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHandles {
    limit: usize,
}

impl FileHandles {
    /// Raises the soft limit to the hard one, and takes what it then is.
    pub(crate) fn claim() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        // macOS knows no value above this one, whatever the hard limit says.
        let wanted = maximum.map_or(10_240, |maximum| maximum).max(current.unwrap_or(0));
        if current.is_some_and(|current| current < wanted)
            && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
        {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
        let limit =
            getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        Self { limit }
    }

    /// For segments that are kept open: at most a quarter of all.
    pub(crate) fn for_segments(self) -> usize {
        limits::SEGMENT_HANDLES_MAX.min(self.limit / 4).max(1)
    }

    /// For connections: what segments and everything else leave.
    pub(crate) fn for_connections(self) -> usize {
        self.limit.saturating_sub(self.for_segments()).saturating_sub(limits::OTHER_HANDLES.min(self.limit / 4)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_use_has_its_share_of_any_limit() {
        let of = |limit| {
            let handles = FileHandles { limit };
            (handles.for_segments(), handles.for_connections())
        };
        assert_eq!(of(64), (16, 32));
        assert_eq!(of(1024), (256, 640));
        assert_eq!(of(1 << 20), (4096, (1 << 20) - 4096 - 128));
        assert!(of(usize::MAX).1 > 1 << 40);
    }
}
