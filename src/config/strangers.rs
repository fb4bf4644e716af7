//! Finds what is set and is no setting, and says what could have been meant.

use figment::value::{Dict, Value};

use super::{error::BadSetting, reader::Setting};

/// What `merged` holds besides the settings that were `taken`; `origin` names the source of a value.
pub(super) fn find(
    merged: &Dict,
    taken: &[Setting],
    origin: impl Fn(&Value) -> String,
) -> Vec<BadSetting> {
    let search = Search {
        keys: taken.iter().map(|setting| setting.key.as_str()).collect(),
        origin,
    };
    let mut strangers = Vec::new();
    search.walk(merged, &mut Vec::new(), &mut strangers);
    strangers
}

struct Search<'a, O> {
    keys: Vec<&'a str>,
    origin: O,
}

impl<O: Fn(&Value) -> String> Search<'_, O> {
    fn walk<'v>(&self, table: &'v Dict, path: &mut Vec<&'v str>, strangers: &mut Vec<BadSetting>) {
        for (name, value) in table {
            path.push(name);
            let key = path.join(".");
            // A quoted TOML key may hold a dot, and then only looks like the key of a setting.
            let dotted = path.iter().any(|part| part.contains('.'));
            let known = !dotted && self.keys.contains(&key.as_str());
            match value {
                _ if known => {}
                Value::Dict(_, inner) if !inner.is_empty() => self.walk(inner, path, strangers),
                Value::Dict(..) if !dotted && self.is_section(&key) => {}
                _ => strangers.push(BadSetting::Unknown {
                    origin: (self.origin)(value),
                    known: self.known_near(path),
                    key,
                }),
            }
            path.pop();
        }
    }

    fn is_section(&self, key: &str) -> bool {
        let inside = |known: &&str| {
            known
                .strip_prefix(key)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        self.keys.iter().any(inside)
    }

    /// The settings of the innermost section around `path` that exists.
    fn known_near(&self, path: &[&str]) -> String {
        let section = (1..=path.len())
            .rev()
            .map(|length| path[..length].join("."))
            .find(|section| self.is_section(section));
        let (place, prefix) = match section {
            Some(section) => (format!("[{section}]"), format!("{section}.")),
            None => ("the top level".to_owned(), String::new()),
        };
        let mut names: Vec<String> = Vec::new();
        for rest in self.keys.iter().filter_map(|key| key.strip_prefix(&prefix)) {
            let name = match rest.split_once('.') {
                Some((inner, _)) => format!("[{prefix}{inner}]"),
                None => rest.to_owned(),
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        format!("{place} has {}", names.join(", "))
    }
}
