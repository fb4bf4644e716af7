//! From problems to the numbers of Centrifugo's API.

use actix_web::http::StatusCode;

use crate::{http::error::Problem, protocol::codes::ErrorCode};

impl From<Problem> for ErrorCode {
    fn from(problem: Problem) -> Self {
        use StatusCode as S;
        let code = match (problem.slug(), problem.status()) {
            ("unknown-namespace", _) => Self::UNKNOWN_CHANNEL,
            ("not-taken", _) => Self::TOO_MANY_REQUESTS,
            (_, S::UNAUTHORIZED | S::FORBIDDEN) => Self::PERMISSION_DENIED,
            (_, S::NOT_FOUND) => Self::NOT_AVAILABLE,
            (_, S::PAYLOAD_TOO_LARGE) => Self::LIMIT_EXCEEDED,
            (_, status) if status.is_client_error() => Self::BAD_REQUEST,
            _ => Self::INTERNAL,
        };
        code.because(problem.detail())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        delta::RoomName,
        log::{NotTaken, publisher::Refusal},
    };

    #[test]
    fn problems_have_the_codes_that_clients_of_centrifugo_know() {
        let room = RoomName::new("feed:1").unwrap();
        let refusal = Refusal::Log(NotTaken::Full);
        for (problem, code, temporary) in [
            (Problem::closed(), 103, false),
            (Problem::not_stored(&room), 108, false),
            (Problem::bad_idempotency_key(""), 107, false),
            (Problem::too_large("a delta", 1), 106, false),
            (Problem::not_taken(refusal), 111, true),
            (Problem::outcome_unknown(), 100, true),
            (Problem::no_space(), 100, true),
            (Problem::draining(), 100, true),
        ] {
            let detail = problem.detail().to_owned();
            let error = ErrorCode::from(problem);
            assert_eq!((error.code, error.temporary), (code, temporary), "{detail}");
            assert!(error.message.ends_with(&detail), "{}", error.message);
        }
    }
}
