//! Takes settings out of the merged layers.
//!
//! A setting's key, default and range stand in one place, the call that takes it. The reader
//! remembers them, so that what nobody took is known to be a mistake, and the manual can be
//! compared with the code.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

use figment::{
    Figment, Profile, Provider,
    value::{Dict, Value},
};

use super::{
    error::BadSetting,
    strangers,
    units::{format_duration, format_size, parse_duration, parse_size},
};

/// One setting as it was taken. Values are written as in TOML.
#[derive(Debug)]
pub(super) struct Setting {
    pub key: String,
    pub default: String,
    pub accepted: String,
    /// The value, if it was set, and where.
    set: Option<(String, String)>,
    /// Whether nobody may read it in a log.
    secret: bool,
}

/// A setting for somebody who looks at the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// With its section: `limits.max_sessions`.
    pub key: String,
    /// As in a configuration file; none for a secret that is set.
    pub value: Option<String>,
    /// The file, environment variable or flag that it comes from; none for the default.
    pub origin: Option<String>,
}

impl From<Setting> for Shown {
    fn from(setting: Setting) -> Self {
        // Flags and variables are texts, and numbers in a file are not.
        let bare = !setting.default.starts_with(['"', '[']);
        let (value, origin) = match setting.set {
            Some((_, origin)) if setting.secret => (None, Some(origin)),
            Some((value, origin)) if bare => (Some(value.trim_matches('"').into()), Some(origin)),
            Some((value, origin)) => (Some(value), Some(origin)),
            None => (Some(setting.default), None),
        };
        Self {
            key: setting.key,
            value,
            origin,
        }
    }
}

impl Setting {
    fn value_and_origin(&self) -> (String, String) {
        self.set
            .clone()
            .unwrap_or_else(|| (self.default.clone(), "its default".to_owned()))
    }

    fn mistake(&self) -> BadSetting {
        let (value, origin) = self.value_and_origin();
        BadSetting::Value {
            origin,
            key: self.key.clone(),
            value,
            accepted: self.accepted.clone(),
        }
    }
}

/// Every `take` answers with the default where nothing is set, and where what is set is wrong: then
/// the mistake is kept, and [`Reader::finish`] tells all of them at once.
pub(super) struct Reader {
    layers: Figment,
    merged: Dict,
    taken: Vec<Setting>,
    wrong: Vec<BadSetting>,
}

impl Reader {
    pub fn new(layers: Figment) -> Self {
        let mut profiles = layers
            .data()
            .expect("a layer is parsed before it is merged, so that none can fail here");
        Self {
            merged: profiles.remove(&Profile::Default).unwrap_or_default(),
            layers,
            taken: Vec::new(),
            wrong: Vec::new(),
        }
    }

    pub fn switch(&mut self, key: &str, default: bool) -> bool {
        let shown = default.to_string();
        self.take(key, default, shown, "true or false", |value| {
            scalar(value)?.parse().ok()
        })
    }

    pub fn number<T>(&mut self, key: &str, default: T, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display,
    {
        let shown = default.to_string();
        let accepted = format!("a whole number from {} to {}", range.start(), range.end());
        self.take(key, default, shown, &accepted, |value| {
            let number = scalar(value)?.parse().ok()?;
            range.contains(&number).then_some(number)
        })
    }

    /// Bytes.
    pub fn size(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let shown = quoted(&format_size(default));
        let [least, most] = [range.start(), range.end()].map(|bytes| format_size(*bytes));
        let accepted = format!("a size from {least} to {most}");
        self.take(key, default, shown, &accepted, |value| {
            parse_size(&scalar(value)?).filter(|bytes| range.contains(bytes))
        })
    }

    /// Bytes that stand in memory.
    pub fn memory(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> usize {
        // A bound above what a machine can address bounds nothing there, and neither does the
        // highest address.
        usize::try_from(self.size(key, default, range)).unwrap_or(usize::MAX)
    }

    pub fn duration(
        &mut self,
        key: &str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let shown = quoted(&format_duration(default));
        let [least, most] = [range.start(), range.end()].map(|time| format_duration(*time));
        let accepted = format!("a duration from {least} to {most}");
        self.take(key, default, shown, &accepted, |value| {
            parse_duration(value.as_str()?).filter(|time| range.contains(time))
        })
    }

    /// One of a few words, `default` among them.
    pub fn choice<T>(&mut self, key: &str, default: T, words: &[(&str, T)]) -> T
    where
        T: Copy + PartialEq,
    {
        let of_default = words.iter().find(|(_, choice)| *choice == default);
        let shown = quoted(of_default.map_or("", |(word, _)| word));
        let names: Vec<_> = words.iter().map(|(word, _)| quoted(word)).collect();
        let accepted = match names.as_slice() {
            [names @ .., last] => format!("{} or {last}", names.join(", ")),
            [] => String::new(),
        };
        self.take(key, default, shown, &accepted, |value| {
            let set = value.as_str()?;
            let (_, choice) = words.iter().find(|(word, _)| *word == set)?;
            Some(*choice)
        })
    }

    /// A text that `parse` understands; `accepted` says which it does.
    pub fn text<T: Display>(
        &mut self,
        key: &str,
        default: T,
        accepted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        let shown = quoted(&default.to_string());
        self.take(key, default, shown, accepted, |value| {
            parse(value.as_str()?)
        })
    }

    /// Texts that are each right: an array or, as it is written in the environment, one text with
    /// commas.
    pub fn texts(
        &mut self,
        key: &str,
        accepted: &str,
        right: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        self.texts_or(key, &[], accepted, right)
    }

    /// As [`Reader::texts`], with another default than none.
    pub fn texts_or(
        &mut self,
        key: &str,
        default: &[&str],
        accepted: &str,
        right: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let shown: Vec<_> = default.iter().map(|text| quoted(text)).collect();
        let shown = format!("[{}]", shown.join(", "));
        let default = default.iter().map(|text| (*text).to_owned()).collect();
        self.take(key, default, shown, accepted, |value| {
            let texts: Vec<_> = match value {
                Value::Array(_, items) => items
                    .iter()
                    .map(|item| item.as_str().map(str::to_owned))
                    .collect::<Option<_>>()?,
                _ => value
                    .as_str()?
                    .split(',')
                    .map(|text| text.trim().to_owned())
                    .filter(|text| !text.is_empty())
                    .collect(),
            };
            texts.iter().all(|text| right(text)).then_some(texts)
        })
    }

    /// As [`Reader::texts`], for what nobody may read in a log: a mistake does not show the value.
    pub fn secrets(
        &mut self,
        key: &str,
        accepted: &str,
        right: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let texts = self.texts(key, accepted, right);
        self.hide(key);
        texts
    }

    /// A text that must be set and that nobody may read in a log. `None` if it is not, or not as `parse` takes it.
    pub fn demanded_secret<T>(
        &mut self,
        key: &str,
        accepted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parse = |value: &Value| parse(value.as_str()?).map(Some);
        let taken = self.take(key, None, "nothing".to_owned(), accepted, parse);
        self.hide(key);
        if find(&self.merged, key).is_none() {
            let section = key.rsplit_once('.').map_or(key, |(section, _)| section);
            let origin = find(&self.merged, section).map(|table| self.origin(table));
            self.wrong.push(BadSetting::Value {
                origin: origin.unwrap_or_default(),
                key: key.to_owned(),
                value: "not set".to_owned(),
                accepted: accepted.to_owned(),
            });
        }
        taken
    }

    /// Nobody may read the value that was just taken.
    fn hide(&mut self, key: &str) {
        let hidden = "(not shown)";
        if let Some(taken) = self.taken.last_mut() {
            taken.secret = true;
            if let Some((value, _)) = &mut taken.set {
                *value = hidden.to_owned();
            }
        }
        for mistake in &mut self.wrong {
            if let BadSetting::Value { key: of, value, .. } = mistake
                && of == key
            {
                *value = hidden.to_owned();
            }
        }
    }

    /// The names that are set under `section`; one that is not `right` is a mistake and is left
    /// out.
    pub fn names(
        &mut self,
        section: &str,
        accepted: &str,
        right: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let Some(Value::Dict(_, named)) = self.merged.get_mut(section) else {
            return Vec::new();
        };
        let (names, bad): (Vec<_>, Vec<_>) = named.keys().cloned().partition(|name| right(name));
        let removed: Vec<_> = bad
            .into_iter()
            .filter_map(|name| named.remove_entry(&name))
            .collect();
        for (name, value) in removed {
            self.wrong.push(BadSetting::Value {
                origin: self.origin(&value),
                key: format!("a name in [{section}]"),
                value: quoted(&name),
                accepted: accepted.to_owned(),
            });
        }
        names
    }

    /// Two settings, both taken before, must go together; `relation` reads between the first and
    /// the second.
    pub fn require(&mut self, holds: bool, key: &str, relation: &str, other: &str) {
        let setting = |key: &str| self.taken.iter().find(|setting| setting.key == key);
        // After a wrong value, a default may stand for what was meant, and would be blamed for it.
        let misled = |wrong: &BadSetting| matches!(wrong, BadSetting::Value { .. });
        if holds || self.wrong.iter().any(misled) {
            return;
        }
        if let (Some(one), Some(other)) = (setting(key), setting(other)) {
            let (value, origin) = one.value_and_origin();
            let (other_value, other_origin) = other.value_and_origin();
            let conflict = BadSetting::Conflict {
                origin,
                key: one.key.clone(),
                value,
                relation: relation.to_owned(),
                other_key: other.key.clone(),
                other_value,
                other_origin,
            };
            self.wrong.push(conflict);
        }
    }

    /// All that was taken, unless something was wrong, or set and never taken.
    pub fn finish(mut self) -> Result<Vec<Setting>, Vec<BadSetting>> {
        let mut strangers = strangers::find(&self.merged, &self.taken, |value| self.origin(value));
        self.wrong.append(&mut strangers);
        if self.wrong.is_empty() {
            Ok(self.taken)
        } else {
            Err(self.wrong)
        }
    }

    fn take<T>(
        &mut self,
        key: &str,
        default: T,
        shown: String,
        accepted: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> T {
        let mut setting = Setting {
            key: key.to_owned(),
            default: shown,
            accepted: accepted.to_owned(),
            set: None,
            secret: false,
        };
        let mut parsed = None;
        if let Some(value) = find(&self.merged, key) {
            setting.set = Some((show(value), self.origin(value)));
            parsed = parse(value);
            if parsed.is_none() {
                self.wrong.push(setting.mistake());
            }
        }
        self.taken.push(setting);
        parsed.unwrap_or(default)
    }

    /// The name of the layer that a value is of. A table with entries is merged from several: the
    /// first one's counts.
    fn origin(&self, value: &Value) -> String {
        let first = value.as_dict().and_then(|inner| inner.values().next());
        match first {
            Some(first) => self.origin(first),
            None => self
                .layers
                .get_metadata(value.tag())
                .map_or_else(String::new, |layer| layer.name.to_string()),
        }
    }
}

fn find<'a>(merged: &'a Dict, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let first = merged.get(parts.next()?);
    parts.fold(first, |value, part| value?.as_dict()?.get(part))
}

/// A value that has one form in files, and is text in the environment and in flags.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Bool(..) | Value::Num(..) => Some(show(value)),
        _ => None,
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => quoted(text),
        Value::Char(_, char) => quoted(&char.to_string()),
        Value::Bool(_, bool) => bool.to_string(),
        Value::Num(_, number) => match (number.to_i128(), number.to_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(broken)) => format!("{broken:?}"),
            (None, None) => "a number".to_owned(),
        },
        Value::Array(_, items) => {
            let items: Vec<_> = items.iter().map(show).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Dict(..) => "a table".to_owned(),
        Value::Empty(..) => "nothing".to_owned(),
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}
