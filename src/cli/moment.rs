//! Moments as they are written on the command line.

use std::str::FromStr;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use crate::config::parse_duration;

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub u64);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no time; it is like 10m (ago), 2026-11-25T10:00:00Z, 2026-11-25T10:00 (here), or \
     milliseconds since 1970"
)]
pub struct BadMoment(String);

impl FromStr for Moment {
    type Err = BadMoment;

    fn from_str(text: &str) -> Result<Self, BadMoment> {
        Self::parse(text, Timestamp::now(), TimeZone::system())
            .ok_or_else(|| BadMoment(text.to_owned()))
    }
}

impl Moment {
    fn parse(text: &str, now: Timestamp, here: TimeZone) -> Option<Self> {
        if let Ok(ms) = text.parse() {
            return Some(Self(ms));
        }
        let time = if let Some(ago) = parse_duration(text) {
            now.checked_sub(ago).ok()?
        } else if let Ok(time) = text.parse::<Timestamp>() {
            time
        } else {
            let time: DateTime = text.parse().ok()?;
            time.to_zoned(here).ok()?.timestamp()
        };
        u64::try_from(time.as_millisecond()).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_absolute_or_some_time_ago() {
        let now = Timestamp::from_millisecond(1_764_025_200_123).unwrap();
        let here = TimeZone::fixed(jiff::tz::offset(1));
        let moment = |text| Moment::parse(text, now, here.clone()).map(|moment| moment.0);
        assert_eq!(moment("1764025200123"), Some(1_764_025_200_123));
        assert_eq!(moment("10m"), Some(1_764_024_600_123));
        assert_eq!(moment("1d"), Some(1_763_938_800_123));
        assert_eq!(moment("2025-11-24T23:00:00.123Z"), Some(1_764_025_200_123));
        assert_eq!(moment("2025-11-25T00:00"), Some(1_764_025_200_000));
        assert_eq!(moment("yesterday"), None);
        assert_eq!(moment("1900-01-01T00:00:00Z"), None);
    }
}
