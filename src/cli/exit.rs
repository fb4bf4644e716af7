//! Exit codes: what a script is told.

use std::process::ExitCode;

use crate::{
    amqp::{ingress::put_away::PutAwayError, topology::TopologyError},
    client::{http::HttpError, socket::SocketError},
};

/// For the end of every command's help; `docs/cli.md` says more.
pub const HELP: &str = "\
Exit codes:
  0  it did what was asked
  1  it failed; the reason is on stderr
  2  it was called wrongly
  3  it did what can be done, but deltas that were asked for are lost for good
  4  the server is away or busy; the same call may succeed later
  5  the server refuses the caller: its key, token or origin";

/// Why a command ends with another code than 0; 2 is clap's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Failed = 1,
    Lost = 3,
    Away = 4,
    Refused = 5,
}

/// Deltas that were asked for are not kept any more, or belong to another life of the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DeltasLost(pub String);

impl Exit {
    /// What the error that ends a command means to its caller.
    pub fn of(error: &anyhow::Error) -> Self {
        if error.is::<DeltasLost>() {
            return Self::Lost;
        }
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return match error {
                HttpError::Unreachable { .. } | HttpError::Lost { .. } => Self::Away,
                HttpError::Problem(problem) => Self::of_status(problem.status),
                HttpError::Unexpected { .. } => Self::Failed,
            };
        }
        if let Some(error) = error.downcast_ref::<TopologyError>() {
            return match error {
                TopologyError::Forbidden { .. } => Self::Refused,
                TopologyError::Connect(error) if error.is_refused() => Self::Refused,
                error if error.is_permanent() => Self::Failed,
                _ => Self::Away,
            };
        }
        if let Some(error) = error.downcast_ref::<PutAwayError>() {
            return match error {
                error if error.is_refused() => Self::Refused,
                error if error.is_permanent() => Self::Failed,
                _ => Self::Away,
            };
        }
        match error.downcast_ref::<SocketError>() {
            Some(SocketError::Unreachable { .. } | SocketError::Lost(_)) => Self::Away,
            Some(error) => error.status().map_or(Self::Failed, Self::of_status),
            None => Self::Failed,
        }
    }

    fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Refused,
            429 | 502..=504 | 507 => Self::Away,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::http::Problem;

    fn problem(status: u16) -> anyhow::Error {
        let problem = Problem {
            status,
            kind: String::new(),
            title: String::new(),
            detail: String::new(),
            retry_after: None,
        };
        anyhow::Error::new(HttpError::Problem(problem)).context("gave up")
    }

    #[test]
    fn a_code_tells_whether_waiting_or_another_key_would_help() {
        assert_eq!(Exit::of(&problem(503)), Exit::Away);
        assert_eq!(Exit::of(&problem(401)), Exit::Refused);
        assert_eq!(Exit::of(&problem(400)), Exit::Failed);
        let refused = |answer: &str| SocketError::Refused {
            url: "http://a".parse().unwrap(),
            answer: answer.to_owned(),
        };
        assert_eq!(Exit::of(&refused("403 Forbidden").into()), Exit::Refused);
        assert_eq!(Exit::of(&refused("it hung up").into()), Exit::Failed);
        assert_eq!(Exit::of(&DeltasLost("gone".into()).into()), Exit::Lost);
        assert_eq!(Exit::of(&anyhow::anyhow!("else")), Exit::Failed);
    }

    #[test]
    fn the_manual_lists_the_same_codes_as_the_help() {
        let manual = include_str!("../../docs/cli.md");
        for line in HELP.lines().skip(1) {
            let (code, meaning) = line.trim().split_once("  ").unwrap();
            let row = format!("| {code} | {meaning} |");
            assert!(manual.contains(&row), "docs/cli.md lacks {row}");
        }
    }
}
