//! Waiting for a server that is busy.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    cli::how_to_reach,
    client::{backoff::Backoff, http::HttpError},
};

/// How long a server may refuse for a while before a command gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits out a server that refuses for a while, or whose answer was lost, for a bounded time.
pub struct Patience {
    since: Option<Instant>,
    backoff: Backoff,
    /// Whether the server ever answered: one that never did is not there, and waiting does not
    /// help.
    answered: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            since: None,
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(5)),
            answered: false,
        }
    }
}

impl Patience {
    /// The server did what it was asked.
    pub fn answered(&mut self) {
        self.answered = true;
        self.since = None;
        self.backoff.reset();
    }

    /// Returns once the request may be sent again, or with `error` if that is no use.
    pub async fn wait_or_fail(&mut self, error: HttpError) -> anyhow::Result<()> {
        let at_least = match &error {
            HttpError::Problem(problem) if problem.is_temporary() => {
                self.answered = true;
                Duration::from_secs(problem.retry_after.unwrap_or(0))
            }
            HttpError::Lost { .. } => Duration::ZERO,
            HttpError::Unreachable { .. } if self.answered => Duration::ZERO,
            HttpError::Unreachable { url, .. } => {
                let advice = how_to_reach(url);
                return Err(anyhow::Error::new(error).context(advice));
            }
            HttpError::Problem(_) | HttpError::Unexpected { .. } => return Err(error.into()),
        };
        let wait = at_least + self.backoff.next(Uuid::new_v4().as_u64_pair().0);
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() + wait > PATIENCE {
            let tried = format!("gave up after {} s", since.elapsed().as_secs());
            return Err(anyhow::Error::new(error).context(tried));
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}
