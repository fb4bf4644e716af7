//! What can be wrong with a configuration.

use std::{fmt, io, path::PathBuf};

/// Why there is no configuration. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: the configuration file can't be read: {reason}", file.display())]
    Unreadable { file: PathBuf, reason: io::Error },
    #[error("{}: the configuration file is not valid TOML: {reason}", file.display())]
    Syntax { file: PathBuf, reason: String },
    #[error("{}", OnePerLine(.0))]
    Settings(Vec<BadSetting>),
}

/// One thing that is wrong with one setting. `origin` is the file, environment variable or flag
/// that it came from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSetting {
    #[error("{origin}: {key} is {value}; it takes {accepted}")]
    Value {
        origin: String,
        key: String,
        value: String,
        accepted: String,
    },
    /// Its value is left out: the variable may hold somebody's secret.
    #[error("{origin}: there is no setting {key}; {known}")]
    Unknown {
        origin: String,
        key: String,
        known: String,
    },
    #[error(
        "{key} is {value} ({origin}), but it must be {relation} {other_key}, \
         which is {other_value} ({other_origin})"
    )]
    Conflict {
        origin: String,
        key: String,
        value: String,
        relation: String,
        other_key: String,
        other_value: String,
        other_origin: String,
    },
}

struct OnePerLine<'a>(&'a [BadSetting]);

impl fmt::Display for OnePerLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, wrong) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{wrong}")?;
        }
        Ok(())
    }
}
