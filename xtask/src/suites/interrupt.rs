//! Ctrl-C and SIGTERM in mid-run: the table of what was through, the names of what was not, and a status that is no success.
//! What runs by then ends with this process, whatever ends that (`job.rs`).

use std::path::PathBuf;
use std::process::exit;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

use super::Arguments;
use super::node::Side;
use super::report;
use super::table::Suite;

/// What a signal finds to tell.
#[derive(Clone)]
pub(super) struct Progress {
    root: PathBuf,
    folder: PathBuf,
    judged: Vec<Side>,
    asked: Vec<&'static Suite>,
    through: Arc<Mutex<usize>>,
}

impl Progress {
    /// Watches for signals from now on.
    pub(super) fn watched(root: PathBuf, folder: PathBuf, arguments: &Arguments) -> Result<Self, String> {
        let (judged, asked) = (arguments.judged().to_vec(), arguments.suites.clone());
        let progress = Self { root, folder, judged, asked, through: Arc::default() };
        let failed = |error: std::io::Error| format!("signals: {error}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let (mut interrupt, mut terminate) = {
            let _guard = runtime.enter();
            (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?)
        };
        let told = progress.clone();
        std::thread::spawn(move || {
            // As a shell would name the end by these signals.
            let status = runtime.block_on(async move {
                tokio::select! {
                    _ = interrupt.recv() => 130,
                    _ = terminate.recv() => 143,
                }
            });
            told.tell();
            exit(status);
        });
        Ok(progress)
    }

    /// One more suite is through.
    pub(super) fn one_more(&self) {
        *self.through.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    /// The table of the suites that are through, and the names of the others.
    fn tell(&self) {
        let through = *self.through.lock().unwrap_or_else(PoisonError::into_inner);
        let (through, rest) = self.asked.split_at(through.min(self.asked.len()));
        if let Err(faults) = report::conclude(&self.root, &self.folder, through, &self.judged, false) {
            println!("{faults}");
        }
        let rest: Vec<&str> = rest.iter().map(|suite| suite.name).collect();
        println!("suites: ended in mid-run; not through: {}", rest.join(", "));
    }
}
