//! Namespaces: what rooms with the same first part of their names have in common.

use std::{collections::BTreeMap, time::Duration};

use figment::Figment;

use super::{
    reader::Reader,
    units::{DAY, KIB, MIB, SECOND, TIB},
};
use crate::delta::{DEFAULT_NAMESPACE, RoomName};

/// All namespaces; [`DEFAULT_NAMESPACE`] is always among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespaces {
    by_name: BTreeMap<String, Namespace>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    pub access: RoomAccess,
    /// Whether deltas are kept at all.
    pub store: bool,
    pub history: History,
    pub slow: Slow,
    pub client_publish: ClientPublish,
    /// What one session may publish in a second.
    pub client_publish_rate: u32,
    /// Deltas that a client gets which subscribes for the first time, the newest; 0 for none.
    pub rewind: u32,
    /// Clients may ask who is in a room, and not only how many.
    pub presence: bool,
    pub join_leave: bool,
    /// The backend hears of rooms that are occupied and vacated.
    pub events: bool,
}

/// Who may follow a room. A client's token may open more; see `access/rules.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomAccess {
    /// Every client.
    Public,
    /// Nobody without a token for it.
    Token,
    /// The users in its name.
    UserLimited,
}

/// What is kept of a room; the oldest deltas go as soon as one of the three is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// Deltas.
    pub size: u64,
    pub ttl: Duration,
    pub bytes: u64,
}

/// What becomes of a client that reads more slowly than a room goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slow {
    /// It is disconnected, and comes back.
    Disconnect,
    /// It is taken out of the room, and enters again at the newest.
    Skip,
}

/// What becomes of a delta that a client publishes through its own socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientPublish {
    /// It is refused.
    Off,
    /// It is delivered to those who are there, and not stored.
    Ephemeral,
    /// It goes through the log like one that was posted.
    Stored,
}

/// A room that belongs to no namespace of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "room {room:?} is in the namespace {namespace:?}, which the configuration does not define; \
     add [namespaces.{namespace}] or use one of: {defined}"
)]
pub struct UnknownNamespace {
    pub room: RoomName,
    pub namespace: String,
    /// The names that are defined, with commas.
    pub defined: String,
}

impl Namespaces {
    /// With `dev`, rooms are public where nothing is said.
    pub(super) fn read(from: &mut Reader, dev: bool) -> Self {
        let accepted = "ASCII letters, digits, _ and -";
        let mut names = from.names("namespaces", accepted, |name| {
            let right = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            !name.is_empty() && name.chars().all(right)
        });
        if !names.iter().any(|name| name == DEFAULT_NAMESPACE) {
            names.push(DEFAULT_NAMESPACE.to_owned());
        }
        let by_name = names
            .into_iter()
            .map(|name| {
                let namespace = Namespace::read(from, &format!("namespaces.{name}"), dev);
                (name, namespace)
            })
            .collect();
        Self { by_name }
    }

    pub fn default_namespace(&self) -> &Namespace {
        &self.by_name[DEFAULT_NAMESPACE]
    }

    /// How long a delta is kept, at most.
    pub fn longest_ttl(&self) -> Duration {
        let kept = self.by_name.values().map(|namespace| namespace.history.ttl);
        kept.max().unwrap_or_default()
    }

    /// Whether the backend hears of some room.
    pub fn have_events(&self) -> bool {
        self.by_name.values().any(|namespace| namespace.events)
    }

    /// The namespace that a room belongs to.
    pub fn of(&self, room: &RoomName) -> Result<&Namespace, UnknownNamespace> {
        self.by_name
            .get(room.namespace())
            .ok_or_else(|| UnknownNamespace {
                room: room.clone(),
                namespace: room.namespace().to_owned(),
                defined: self.by_name.keys().cloned().collect::<Vec<_>>().join(", "),
            })
    }
}

/// [`DEFAULT_NAMESPACE`] is there with its defaults if it is not among them.
impl<'a> FromIterator<(&'a str, Namespace)> for Namespaces {
    fn from_iter<I: IntoIterator<Item = (&'a str, Namespace)>>(namespaces: I) -> Self {
        let default = (DEFAULT_NAMESPACE.to_owned(), Namespace::default());
        let given = namespaces.into_iter();
        let given = given.map(|(name, namespace)| (name.to_owned(), namespace));
        Self {
            by_name: std::iter::once(default).chain(given).collect(),
        }
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::read(&mut Reader::new(Figment::new()), DEFAULT_NAMESPACE, false)
    }
}

impl Namespace {
    fn read(from: &mut Reader, section: &str, dev: bool) -> Self {
        let key = |name: &str| format!("{section}.{name}");
        let access = match dev {
            true => RoomAccess::Public,
            false => RoomAccess::Token,
        };
        let namespace = Self {
            access: from.choice(
                &key("access"),
                access,
                &[
                    ("public", RoomAccess::Public),
                    ("token", RoomAccess::Token),
                    ("user-limited", RoomAccess::UserLimited),
                ],
            ),
            store: from.switch(&key("store"), true),
            history: History {
                size: from.number(&key("history_size"), 10_000, 1..=1_000_000_000),
                ttl: from.duration(&key("history_ttl"), DAY, SECOND..=3650 * DAY),
                bytes: from.size(&key("history_bytes"), 16 * MIB, KIB..=TIB),
            },
            slow: from.choice(
                &key("slow"),
                Slow::Disconnect,
                &[("disconnect", Slow::Disconnect), ("skip", Slow::Skip)],
            ),
            client_publish: from.choice(
                &key("client_publish"),
                ClientPublish::Off,
                &[
                    ("off", ClientPublish::Off),
                    ("ephemeral", ClientPublish::Ephemeral),
                    ("stored", ClientPublish::Stored),
                ],
            ),
            client_publish_rate: from.number(&key("client_publish_rate"), 10, 1..=1000),
            rewind: from.number(&key("rewind"), 0, 0..=1000),
            presence: from.switch(&key("presence"), false),
            join_leave: from.switch(&key("join_leave"), false),
            events: from.switch(&key("events"), false),
        };
        from.require(
            namespace.store || namespace.client_publish != ClientPublish::Stored,
            &key("client_publish"),
            "something else beside",
            &key("store"),
        );
        namespace
    }
}
