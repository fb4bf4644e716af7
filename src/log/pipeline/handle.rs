//! A running pipeline, and how it ends.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::sync::watch;

use super::Watched;
use crate::log::{OrderedLog, publisher::Answers};

/// How the pipeline's thread ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The log was closed, and everything in it is dispatched.
    Closed,
    /// A defect; nothing can be published any more.
    Panicked,
}

/// A running pipeline.
pub struct PipelineHandle {
    pub(super) thread: JoinHandle<()>,
    pub(super) ended: watch::Receiver<Option<End>>,
    pub watched: Watched,
}

impl PipelineHandle {
    /// Completes when the thread has ended; before a stop was asked for, that is a failure of the
    /// whole process.
    pub async fn ended(&mut self) -> End {
        match self.ended.wait_for(Option::is_some).await {
            Ok(end) => end.unwrap_or(End::Panicked),
            Err(_) => End::Panicked,
        }
    }

    /// Blocks until the thread has ended.
    pub fn join(self) -> End {
        match self.thread.join() {
            Ok(()) => End::Closed,
            Err(_) => End::Panicked,
        }
    }
}

/// Leaves nobody waiting for a pipeline that is gone, however it went.
pub(super) struct Ending {
    pub(super) log: Arc<dyn OrderedLog>,
    pub(super) answers: Arc<Answers>,
    pub(super) end: watch::Sender<Option<End>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.log.close();
        self.answers.give_up();
        let how = if thread::panicking() {
            End::Panicked
        } else {
            End::Closed
        };
        self.end.send_replace(Some(how));
    }
}
