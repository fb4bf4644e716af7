//! Reading what a server does not have yet, before it takes clients.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time::sleep};
use tracing::info;

use crate::actors::{Progress, Services, life::Life};

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(20);

/// Between two lines about it in the log.
const REPORT: Duration = Duration::from_secs(5);

/// Completes when everything is read that was in the log when reading began; then clients are taken, and
/// `done` is told.
pub async fn run(services: Arc<Services>, life: Arc<Life>, done: oneshot::Sender<()>) {
    let start = Instant::now();
    let mut reported = start;
    let mut before: Option<u64> = None;
    loop {
        let progress = services.progress();
        if progress.iter().all(|of| of.end > 0 && of.read >= of.end) {
            life.caught_up();
            let seconds = start.elapsed().as_secs_f64();
            info!(seconds, "everything in the log is read; clients are taken");
            // Whoever does not listen any more is stopping.
            let _ = done.send(());
            return;
        }
        if reported.elapsed() >= REPORT {
            let missing = missing(&progress);
            info!(
                missing,
                seconds_left = seconds_left(before, missing, reported.elapsed()),
                "reading what is in the log"
            );
            before = missing;
            reported = Instant::now();
        }
        sleep(LOOK).await;
    }
}

/// Positions that are yet to be read; none as long as some partition's end is not known.
fn missing(progress: &[Progress]) -> Option<u64> {
    let missing = |of: &Progress| (of.end > 0).then(|| of.end.saturating_sub(of.read));
    progress.iter().map(missing).sum()
}

fn seconds_left(before: Option<u64>, now: Option<u64>, elapsed: Duration) -> Option<u64> {
    let (before, now) = (before?, now?);
    let read = before.checked_sub(now).filter(|read| *read > 0)?;
    Some((now as f64 / read as f64 * elapsed.as_secs_f64()).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_comes_from_what_was_read_since_the_last_look() {
        let read = |read, end| Progress { read, end };
        assert_eq!(missing(&[read(10, 100), read(70, 50)]), Some(90));
        assert_eq!(missing(&[read(10, 100), read(0, 0)]), None);
        let elapsed = Duration::from_secs(5);
        assert_eq!(seconds_left(Some(300), Some(200), elapsed), Some(10));
        assert_eq!(seconds_left(Some(300), Some(300), elapsed), None);
        assert_eq!(seconds_left(None, Some(300), elapsed), None);
    }
}
