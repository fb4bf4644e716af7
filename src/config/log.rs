//! What is logged, and how.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::reader::Reader;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Log {
    pub(super) fn read(from: &mut Reader) -> Self {
        Self {
            format: from.choice(
                "log.format",
                LogFormat::Human,
                &[("human", LogFormat::Human), ("json", LogFormat::Json)],
            ),
            level: from.text(
                "log.level",
                "info".to_owned(),
                "a level (off, error, warn, info, debug or trace), or several with targets, \
                 such as \"info,roomwire=debug\"",
                |text| is_filter(text).then(|| text.to_owned()),
            ),
        }
    }

    pub fn filter(&self) -> EnvFilter {
        EnvFilter::new(&self.level)
    }
}

/// A misspelt level would be taken for the name of a target and silence everything else, so a
/// directive that is one bare word must be a level.
fn is_filter(text: &str) -> bool {
    // tracing reads nothing as "error".
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let is_bare = |directive: &&str| !directive.contains(['=', '[', ']', '{', '}']);
    text.split(',').filter(is_bare).all(is_level) && EnvFilter::try_new(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_target() {
        for right in [
            "info",
            "WARN",
            "off",
            "info,roomwire=debug",
            "warn,roomwire[session{room}]=trace",
        ] {
            assert!(is_filter(right), "{right:?}");
        }
        for wrong in [
            "",
            "inof",
            "info,",
            "info,debgu",
            "roomwire=loud",
            "roomwire",
        ] {
            assert!(!is_filter(wrong), "{wrong:?}");
        }
    }
}
