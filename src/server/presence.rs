//! What drives presence: time, the messages of other servers, and the backend that wants to hear.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    actors::{
        Others, Services, Topic,
        hub::{Hubs, Revoked},
        presence::{Presence, PresenceNews},
        registry::Registry,
        revoking::Known,
        room::{Ephemeral, Pass},
    },
    amqp::{
        bus::{Bus, Listener},
        events::{Notice, Notifier},
    },
    config::Config,
    log::publisher::wall_clock_ms,
    metrics::{Intake, Metrics},
    presence::{
        core::Settings,
        form::{self, Message, Revocation},
        subjects::{Event, Subject},
    },
    rooms::sequence::Passing,
};

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(50);

/// How long a server that stops takes for its last words to the others.
const GOODBYE: Duration = Duration::from_millis(500);

const PRESENCE: &str = "presence";
const EPHEMERAL: &str = "ephemeral";
const UNSTORED: &str = "unstored";
const REVOKED: &str = "revoked";

pub fn settings(config: &Config, shared: bool) -> Settings {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let of = &config.presence;
    Settings {
        grace: ms(of.leave_grace),
        max_members: of.max_members,
        beat: ms(of.beat),
        user_events: of.user_events && shared,
        shared,
    }
}

impl Others for Bus {
    fn tell(&self, topic: Topic, body: bytes::Bytes) -> bool {
        let topic = match topic {
            Topic::Presence => PRESENCE,
            Topic::Ephemeral => EPHEMERAL,
            Topic::Unstored => UNSTORED,
            Topic::Revoked => REVOKED,
        };
        self.send(topic, body)
    }

    fn is_busy(&self) -> bool {
        Bus::is_busy(self)
    }
}

/// Takes what other servers say.
pub struct Listens {
    pub presence: Arc<Presence>,
    pub registry: Arc<Registry>,
    pub hubs: Arc<Hubs>,
    pub revoked: Mutex<Known>,
    pub metrics: Metrics,
}

impl Listener for Listens {
    fn connected(&self) {
        self.metrics.presence().bus_connected();
        self.presence.with(|core, now| core.connected(now));
    }

    fn lost(&self) {
        self.metrics.presence().bus_lost();
        self.presence.with(|core, _| core.disconnected());
    }

    fn heard(&self, topic: &str, body: &[u8]) {
        let heard = match topic {
            PRESENCE => Message::decode(body)
                .map(|message| self.presence.with(|core, now| core.heard(now, message))),
            EPHEMERAL => form::decode_ephemeral(body).map(|message| self.pass_on(message)),
            UNSTORED => form::Unstored::decode(body).map(|message| self.deliver(message)),
            REVOKED => Revocation::decode(body).map(|message| self.revoke(message)),
            // Something that a later build has for its like.
            _ => Ok(()),
        };
        if let Err(error) = heard {
            self.metrics.presence().bus_unreadable();
            tracing::debug!(topic, %error, "a message of another server can't be read");
        }
    }
}

impl Listens {
    fn revoke(&self, message: Revocation) {
        if message.from == self.presence.id() {
            return;
        }
        let mut known = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.is_new(&message.id) {
            return;
        }
        let what = message.room.map_or(Revoked::Sessions, Revoked::Room);
        info!(user = %message.user, ?what, "another server revoked");
        self.hubs.begin_to_revoke(&message.user, &what);
    }

    fn deliver(&self, message: form::Unstored) {
        if message.from == self.presence.id() {
            return;
        }
        let passing = Passing {
            data: message.data,
            key: message.key,
            exclude: message.exclude,
            stamped: wall_clock_ms(),
        };
        if let Some(Err(_)) = self.registry.pass(&message.room, Pass(passing)) {
            self.metrics.deltas_in(Intake::Dropped, 1);
        }
    }

    fn pass_on(&self, message: form::Ephemeral) {
        let form::Ephemeral {
            from,
            room,
            info,
            data,
        } = message;
        if from == self.presence.id() {
            return;
        }
        if let Some(Err(_)) = self.registry.pass(&room, Ephemeral { data, info }) {
            self.metrics.presence().ephemeral_dropped();
        }
    }
}

/// Does what is due, for ever. Without a notifier the backend hears nothing.
pub async fn run(services: Arc<Services>, notifier: Option<Notifier>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tick(&services, notifier.as_ref());
    }
}

/// Tells the others that nobody is here any more.
pub async fn say_goodbye(services: &Services) {
    let Some(others) = &services.others else {
        return;
    };
    tick(services, None);
    let bye = services.presence.with(|core, _| core.bye());
    others.tell(Topic::Presence, bye.encode());
    let sent = async {
        while others.is_busy() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(GOODBYE, sent).await.is_err() {
        warn!("the other servers may not have heard that this one stops");
    }
}

fn tick(services: &Services, notifier: Option<&Notifier>) {
    let output = services.presence.with(|core, now| core.tick(now));
    for room in &output.rooms {
        // A room that is full is asked again; one that is not in memory has nobody to tell.
        services.registry.pass(room, PresenceNews);
    }
    if let Some(others) = &services.others {
        for message in &output.messages {
            // What is refused is lost like on the way: the next beat shows it.
            others.tell(Topic::Presence, message.encode());
        }
    }
    for event in output.events {
        match notifier {
            Some(notifier) => notifier.send(notice(event, services)),
            None => services.presence.with(|core, _| core.unsent(&event)),
        }
    }
    services.presence.with(|core, _| {
        let figures = services.metrics.presence();
        figures.presence(core.peers(), core.due(), core.take_dropped());
    });
}

#[derive(Serialize)]
struct Body<'a> {
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    /// Milliseconds since the Unix epoch.
    time: u64,
}

fn notice(event: Event, services: &Services) -> Notice {
    let (routing_key, header, name) = match (&event.subject, event.present) {
        (Subject::Room(room), true) => ("room.occupied", "room", room.as_str()),
        (Subject::Room(room), false) => ("room.vacated", "room", room.as_str()),
        (Subject::User(user), true) => ("user.online", "user", &**user),
        (Subject::User(user), false) => ("user.offline", "user", &**user),
    };
    let body = Body {
        event: routing_key,
        room: (header == "room").then_some(name),
        user: (header == "user").then_some(name),
        time: wall_clock_ms(),
    };
    let body = serde_json::to_vec(&body).expect("texts and a number have a form in JSON");
    let headers = vec![("event", routing_key.to_owned()), (header, name.to_owned())];
    let (presence, metrics) = (services.presence.clone(), services.metrics.clone());
    Notice {
        routing_key,
        headers,
        body,
        id: Uuid::now_v7().to_string(),
        done: Box::new(move |sent| match sent {
            true => {
                metrics.presence().event_sent();
                presence.with(|core, now| core.sent(now, event));
            }
            false => presence.with(|core, _| core.unsent(&event)),
        }),
    }
}
