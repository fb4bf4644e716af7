//! Where settings come from: flags over the environment over the configuration file over the
//! defaults.

use std::{ffi::OsString, fs, io, path::Path};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Toml},
    value::{Dict, Map, Value},
};

use super::error::{BadSetting, ConfigError};

/// Read if it exists in the working directory, and no `--config` names another.
pub(super) const DEFAULT_FILE: &str = "roomwire.toml";

const PREFIX: &str = "ROOMWIRE_";

/// Read by the commands that are clients of a server.
const OF_OTHER_COMMANDS: [&str; 3] = ["URL", "KEY", "TOKEN"];

/// One source of settings, named as in messages.
struct Layer {
    origin: String,
    settings: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.settings.clone())]))
    }
}

/// Each variable and each flag is a layer of its own, so that a mistake is reported under its name.
pub(super) fn merge(
    named: Option<&Path>,
    flags: impl IntoIterator<Item = (&'static str, &'static str, Value)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    default_file: &Path,
) -> Result<Figment, ConfigError> {
    let mut layers = Figment::new();
    if let Some(layer) = file_layer(named, default_file)? {
        layers = layers.merge(layer);
    }
    for layer in environment_layers(environment)? {
        layers = layers.merge(layer);
    }
    for (key, flag, value) in flags {
        layers = layers.merge(Layer {
            origin: flag.to_owned(),
            settings: nested(key, value),
        });
    }
    Ok(layers)
}

fn file_layer(named: Option<&Path>, default_file: &Path) -> Result<Option<Layer>, ConfigError> {
    let file = named.unwrap_or(default_file);
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(reason) if reason.kind() == io::ErrorKind::NotFound && named.is_none() => {
            return Ok(None);
        }
        Err(reason) => {
            return Err(ConfigError::Unreadable {
                file: file.to_owned(),
                reason,
            });
        }
    };
    let settings = Toml::from_str(&text).map_err(|reason| ConfigError::Syntax {
        file: file.to_owned(),
        reason: reason.to_string().trim_end().to_owned(),
    })?;
    Ok(Some(Layer {
        origin: file.display().to_string(),
        settings,
    }))
}

fn environment_layers(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<Layer>, ConfigError> {
    let (mut layers, mut wrong) = (Vec::new(), Vec::new());
    for (variable, value) in environment {
        let Some((variable, name)) = variable
            .to_str()
            .and_then(|variable| Some((variable, variable.strip_prefix(PREFIX)?)))
        else {
            continue;
        };
        if OF_OTHER_COMMANDS.contains(&name) || is_of_kubernetes(name) {
            continue;
        }
        let key = name.to_ascii_lowercase().replace("__", ".");
        match value.to_str() {
            Some(value) => layers.push(Layer {
                origin: variable.to_owned(),
                settings: nested(&key, value.into()),
            }),
            None => wrong.push(BadSetting::Value {
                origin: variable.to_owned(),
                key,
                value: format!("{:?}", value.to_string_lossy()),
                accepted: "valid UTF-8".to_owned(),
            }),
        }
    }
    // Which of two spellings of one variable wins must not depend on how the environment is
    // ordered.
    layers.sort_by(|a, b| a.origin.cmp(&b.origin));
    if wrong.is_empty() {
        Ok(layers)
    } else {
        Err(ConfigError::Settings(wrong))
    }
}

/// Kubernetes gives every pod variables for each service; for one that is called "roomwire" they
/// carry our prefix.
fn is_of_kubernetes(name: &str) -> bool {
    name == "SERVICE_HOST"
        || name == "PORT"
        || name.starts_with("PORT_")
        || name == "SERVICE_PORT"
        || name.starts_with("SERVICE_PORT_")
}

fn nested(key: &str, value: Value) -> Dict {
    let (outer, inner) = match key.split_once('.') {
        Some((outer, inner)) => (outer, Value::from(nested(inner, value))),
        None => (key, value),
    };
    Dict::from([(outer.to_owned(), inner)])
}
