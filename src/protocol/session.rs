//! One client's protocol state: what its commands do and what it is owed. Pure: the same frames give the same effects.
//!
//! A session knows its subscriptions by room and number. The number tells a subscription from an earlier one of the
//! same room, so that what was under way for the earlier one is recognised as late.

mod deadlines;

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use self::deadlines::{Deadlines, Ended, ttl};
use super::{
    codes::{Disconnect, ErrorCode, Unsubscribe},
    command::{self, Command, Connect, Refresh, Subscribe},
    format::Codec,
    frame::FrameBuilder,
    protobuf,
    reply::{self, ClientInfo, Connected, Emulated, Lasting, Outcome, Refreshed},
};
use crate::{
    access::{Access, Grants, Unwelcome, rules, token::TokenError},
    config::{ClientPublish, Namespace, Namespaces},
    delta::{BadRoomName, RoomName, compact_json},
};

/// The limits that a session works under.
#[derive(Debug, Clone, Copy)]
pub struct SessionSettings {
    /// Seconds, told to the client.
    pub ping_interval: u64,
    pub max_rooms: usize,
    /// Largest delta that a client may publish, in bytes.
    pub max_delta_bytes: usize,
}

/// What a client's commands are judged by.
#[derive(Clone, Copy)]
pub struct Policy<'a> {
    pub namespaces: &'a Namespaces,
    pub access: &'a Access,
    /// Seconds since the Unix epoch.
    pub now: u64,
}

/// What the client is told that it talks to.
const VERSION: &str = concat!("roomwire ", env!("CARGO_PKG_VERSION"));

/// Where a client that comes back left off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recover {
    pub offset: u64,
    /// Empty: any epoch.
    pub epoch: Box<str>,
}

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With what comes next.
    Now,
    /// Behind a position that the client has come to. If something behind it is missing, it is told.
    Behind(Recover),
    /// Behind the offset, with what is kept from there on. What is trimmed meanwhile is not missed.
    Kept(u64),
    /// With the newest so many that are kept.
    Newest(u32),
}

/// What the shell is to do, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// The client is connected: from here on it is pinged.
    Connected,
    /// The client may not connect now and was told so: it is to close, and nothing of it is handled any more.
    Refused,
    /// The client may not connect. Nothing of it is handled any more.
    Unwelcome(Unwelcome),
    /// The client answered a ping.
    Pong,
    Subscribe {
        command: u32,
        room: RoomName,
        number: u32,
        start: Start,
        /// Answer an impossible recovery with an error.
        must_recover: bool,
        join_leave: bool,
        presence: bool,
        lasting: Lasting,
    },
    Unsubscribe {
        command: u32,
        room: RoomName,
        number: u32,
    },
    Presence {
        command: u32,
        room: RoomName,
        stats: bool,
    },
    History {
        command: u32,
        room: RoomName,
        limit: i64,
        since: Option<Recover>,
        reverse: bool,
    },
    PublishEphemeral {
        command: u32,
        room: RoomName,
        data: Bytes,
        rate: u32,
    },
    PublishStored {
        command: u32,
        room: RoomName,
        data: Bytes,
        rate: u32,
    },
    /// The subscription ends, and its client is told why.
    End {
        room: RoomName,
        number: u32,
        why: Unsubscribe,
    },
    /// Nothing of the client is handled any more.
    Close(Disconnect),
}

#[derive(Debug)]
struct Subscription {
    room: RoomName,
    number: u32,
    /// By a token of its own, not by the client's.
    by_token: bool,
}

#[derive(Debug)]
pub struct Session {
    info: ClientInfo,
    grants: Option<Box<Grants>>,
    /// Shown with the handshake; kept until the client connects.
    token: Option<Box<str>>,
    /// `None` if everything lasts.
    deadlines: Option<Box<Deadlines>>,
    connected: bool,
    /// Nothing of the client is handled any more.
    closed: bool,
    next_number: u32,
    subscriptions: Vec<Subscription>,
    settings: SessionSettings,
    /// Told to a client without a socket.
    emulated: Option<Emulated>,
}

impl Session {
    /// `id` is the client's for the life of its connection; `token` is one that came before its `connect`.
    pub fn new(id: Uuid, token: Option<Box<str>>, settings: SessionSettings) -> Self {
        Self {
            info: ClientInfo {
                user: Arc::from(""),
                id,
                info: None,
            },
            grants: None,
            token,
            deadlines: None,
            connected: false,
            closed: false,
            next_number: 1,
            subscriptions: Vec::new(),
            settings,
            emulated: None,
        }
    }

    /// The client has no socket, and is told how to name its session.
    pub fn emulate(&mut self, emulated: Emulated) {
        self.emulated = Some(emulated);
    }

    pub fn info(&self) -> &ClientInfo {
        &self.info
    }

    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Rooms and numbers of all subscriptions.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&RoomName, u32)> {
        self.subscriptions.iter().map(|s| (&s.room, s.number))
    }

    /// The room ended a subscription, or never began it. Late news of an earlier one changes nothing.
    pub fn subscription_ended(&mut self, number: u32) {
        self.subscriptions.retain(|s| s.number != number);
        if let Some(deadlines) = &mut self.deadlines {
            deadlines.forget(number);
        }
    }

    /// When [`Session::expire`] is to be called, in seconds since the Unix epoch.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.as_ref()?.next()
    }

    /// Ends what was not refreshed in time.
    pub fn expire(&mut self, now: u64, effects: &mut Vec<Effect>) {
        while let Some(ended) = self.deadlines.as_mut().and_then(|of| of.take_ended(now)) {
            match ended {
                Ended::Connection => {
                    self.closed = true;
                    effects.push(Effect::Close(Disconnect::EXPIRED));
                    return;
                }
                Ended::Subscription(number) => {
                    let of_number = |s: &&Subscription| s.number == number;
                    let ended = self.subscriptions.iter().find(of_number);
                    effects.extend(ended.map(|s| s.end(Unsubscribe::EXPIRED)));
                }
            }
        }
    }

    /// Ends the subscription to `room`, if there is one. It may be under way: until the room has said that it is over,
    /// the client can't subscribe again.
    pub fn revoke(&self, room: &RoomName, effects: &mut Vec<Effect>) {
        let revoked = self.subscriptions.iter().find(|s| s.room == *room);
        effects.extend(revoked.map(|s| s.end(Unsubscribe::REVOKED)));
    }

    /// Handles one frame. Replies that need nobody else are written to `replies`, in the order of their commands;
    /// everything else becomes an effect. After [`Effect::Close`] nothing is handled. The client speaks the codec of
    /// `replies`.
    pub fn receive(
        &mut self,
        frame: &[u8],
        policy: Policy<'_>,
        replies: &mut FrameBuilder,
        effects: &mut Vec<Effect>,
    ) {
        match replies.codec() {
            // Even where it is not looked at: the frame as a whole is a text (RFC 6455 §5.6).
            Codec::Json if std::str::from_utf8(frame).is_err() => {
                self.handle(None, policy, replies, effects);
            }
            Codec::Json => {
                for line in command::lines(frame) {
                    self.handle(Command::parse(line), policy, replies, effects);
                }
            }
            Codec::Protobuf => {
                for message in protobuf::commands(frame) {
                    let command = message.as_ref().map(Command::from);
                    self.handle(command, policy, replies, effects);
                }
            }
        }
    }

    /// Handles one command; `None` is something that is none.
    fn handle(
        &mut self,
        command: Option<Command<'_>>,
        policy: Policy<'_>,
        replies: &mut FrameBuilder,
        effects: &mut Vec<Effect>,
    ) {
        if self.closed {
            return;
        }
        let handled = match command {
            Some(command) => self.command(command, policy, effects),
            None => Err(Refusal::Close(Disconnect::BAD_REQUEST)),
        };
        match handled {
            Ok(None) => {}
            Ok(Some((id, outcome))) => reply::write_reply(replies, id, &outcome),
            Err(Refusal::Error(id, error)) => {
                reply::write_reply(replies, id, &Outcome::Error(error))
            }
            Err(Refusal::Close(disconnect)) => {
                self.closed = true;
                effects.push(Effect::Close(disconnect));
            }
        }
    }

    fn command(
        &mut self,
        command: Command<'_>,
        policy: Policy<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<(u32, Outcome<'static>)>, Refusal> {
        let id = command.id;
        if id == 0 {
            return self.without_id(&command, effects);
        }
        if let Some(request) = command.connect {
            return self.connect(id, &request, policy, effects);
        }
        if !self.connected || command.ping.is_some() {
            return Err(Refusal::Close(Disconnect::BAD_REQUEST));
        }
        let fail = |error| Refusal::Error(id, error);
        if let Some(request) = command.subscribe {
            effects.push(self.subscribe(id, request, policy)?);
        } else if let Some(request) = command.unsubscribe {
            match self.unsubscribe(id, &request.channel) {
                Some(effect) => effects.push(effect),
                None => return Ok(Some((id, Outcome::Unsubscribe {}))),
            }
        } else if let Some(request) = command.publish {
            effects.push(
                self.publish(id, &request, policy.namespaces)
                    .map_err(fail)?,
            );
        } else if let Some(request) = command.presence {
            let room = self
                .presence_room(&request.channel, policy, false)
                .map_err(fail)?;
            effects.push(Effect::Presence {
                command: id,
                room,
                stats: false,
            });
        } else if let Some(request) = command.presence_stats {
            let room = self
                .presence_room(&request.channel, policy, true)
                .map_err(fail)?;
            effects.push(Effect::Presence {
                command: id,
                room,
                stats: true,
            });
        } else if let Some(request) = command.history {
            effects.push(self.history(id, &request, policy).map_err(fail)?);
        } else if command.rpc.is_some() {
            return Err(fail(
                ErrorCode::NOT_AVAILABLE
                    .because("there are no remote procedures; call your own HTTP API"),
            ));
        } else if command.send.is_some() {
            return Err(Refusal::Close(Disconnect::NOT_AVAILABLE));
        } else if let Some(request) = command.refresh {
            let outcome = self.refresh(&request, policy, effects)?;
            return Ok(Some((id, outcome)));
        } else if let Some(request) = command.sub_refresh {
            let outcome = self.refresh_subscription(id, &request, policy)?;
            return Ok(Some((id, outcome)));
        } else {
            return Err(fail(ErrorCode::METHOD_NOT_FOUND));
        }
        Ok(None)
    }

    /// Without an id a command is a pong, or a `send`.
    fn without_id(
        &mut self,
        command: &Command<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<(u32, Outcome<'static>)>, Refusal> {
        let asks = command.connect.is_some()
            || command.ping.is_some()
            || command.subscribe.is_some()
            || command.unsubscribe.is_some()
            || command.publish.is_some()
            || command.presence.is_some()
            || command.presence_stats.is_some()
            || command.history.is_some()
            || command.rpc.is_some()
            || command.refresh.is_some()
            || command.sub_refresh.is_some();
        if asks || !self.connected {
            return Err(Refusal::Close(Disconnect::BAD_REQUEST));
        }
        if command.send.is_some() {
            return Err(Refusal::Close(Disconnect::NOT_AVAILABLE));
        }
        effects.push(Effect::Pong);
        Ok(None)
    }

    fn connect(
        &mut self,
        id: u32,
        request: &Connect<'_>,
        policy: Policy<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<(u32, Outcome<'static>)>, Refusal> {
        if self.connected {
            return Err(Refusal::Close(Disconnect::BAD_REQUEST));
        }
        let shown = self.token.take().unwrap_or_default();
        let token = match request.token.is_empty() {
            true => &*shown,
            false => &*request.token,
        };
        let lasting;
        match policy.access.client(token, policy.now) {
            Ok(client) => {
                self.info.user = client.user;
                self.info.info = client.info;
                self.grants = client.grants;
                lasting = self.connection_lasts(client.expires, policy.now);
            }
            Err(Unwelcome::Token(TokenError::Expired)) => {
                self.closed = true;
                effects.push(Effect::Refused);
                return Err(Refusal::Error(id, ErrorCode::TOKEN_EXPIRED));
            }
            Err(why) => {
                self.closed = true;
                effects.push(Effect::Unwelcome(why));
                return Ok(None);
            }
        }
        self.connected = true;
        effects.push(Effect::Connected);
        let connected = Connected {
            client: self.info.id.hyphenated().to_string(),
            version: VERSION,
            ping: self.settings.ping_interval,
            pong: true,
            lasting,
            emulated: self.emulated.take(),
        };
        Ok(Some((id, Outcome::Connect(connected))))
    }

    fn connection_lasts(&mut self, end: Option<u64>, now: u64) -> Lasting {
        if end.is_some() || self.deadlines.is_some() {
            let deadlines = self.deadlines.get_or_insert_default();
            deadlines.set_connection(end);
        }
        lasting(end, now)
    }

    fn refresh(
        &mut self,
        request: &Refresh<'_>,
        policy: Policy<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome<'static>, Refusal> {
        let invalid = Refusal::Close(Disconnect::INVALID_TOKEN);
        if request.token.is_empty() {
            return Err(invalid);
        }
        let client = match policy.access.client(&request.token, policy.now) {
            Ok(client) if client.user == self.info.user => client,
            // It comes back, and is told to fetch another.
            Err(Unwelcome::Token(TokenError::Expired)) => {
                return Err(Refusal::Close(Disconnect::EXPIRED));
            }
            _ => return Err(invalid),
        };
        self.grants = client.grants;
        let lasting = self.connection_lasts(client.expires, policy.now);
        let gone = |s: &&Subscription| !s.by_token && !self.admits(&s.room, policy.namespaces);
        let gone = self.subscriptions.iter().filter(gone);
        effects.extend(gone.map(|s| s.end(Unsubscribe::REVOKED)));
        Ok(Outcome::Refresh(Refreshed {
            client: self.info.id.hyphenated().to_string(),
            version: VERSION,
            lasting,
        }))
    }

    fn refresh_subscription(
        &mut self,
        id: u32,
        request: &Refresh<'_>,
        policy: Policy<'_>,
    ) -> Result<Outcome<'static>, Refusal> {
        let fail = |error| Refusal::Error(id, error);
        let room = room_name(&request.channel).map_err(fail)?;
        let number = self.number_of(room.as_str()).ok_or_else(|| {
            fail(ErrorCode::PERMISSION_DENIED.because("there is no such subscription"))
        })?;
        let user = &self.info.user;
        let refreshed = policy
            .access
            .subscription(&request.token, user, room.as_str(), policy.now);
        let end = refreshed.map_err(|why| match why {
            TokenError::User => Refusal::Close(Disconnect::INVALID_TOKEN),
            TokenError::Expired => fail(ErrorCode::EXPIRED),
            why => fail(ErrorCode::PERMISSION_DENIED.because(why)),
        })?;
        let deadlines = self.deadlines.get_or_insert_default();
        deadlines.set_subscription(number, end);
        Ok(Outcome::SubRefresh(lasting(end, policy.now)))
    }

    /// Whether the room is open to the client without a token for just that.
    fn admits(&self, room: &RoomName, namespaces: &Namespaces) -> bool {
        let grants = self.grants.as_deref();
        namespaces
            .of(room)
            .is_ok_and(|namespace| rules::admits(namespace.access, &self.info.user, grants, room))
    }

    fn subscribe(
        &mut self,
        command: u32,
        request: Subscribe<'_>,
        policy: Policy<'_>,
    ) -> Result<Effect, Refusal> {
        let fail = |error| Refusal::Error(command, error);
        let room = room_name(&request.channel).map_err(fail)?;
        let namespace = namespace_of(&room, policy.namespaces).map_err(fail)?;
        let by_token = self
            .may_subscribe(&room, namespace, &request.token, policy)
            .map_err(|refused| match refused {
                // Who shows somebody else's token is not to be talked to.
                Some(TokenError::User) => Refusal::Close(Disconnect::INVALID_TOKEN),
                Some(TokenError::Expired) => fail(ErrorCode::TOKEN_EXPIRED),
                Some(why) => fail(ErrorCode::PERMISSION_DENIED.because(why)),
                None => {
                    fail(ErrorCode::PERMISSION_DENIED.because("a token for the room is needed"))
                }
            })?;
        let effect = self
            .subscribe_permitted(command, room, namespace, request, by_token, policy.now)
            .map_err(fail)?;
        Ok(effect)
    }

    /// The end of the token by which the client may, if it is by one. `Err(None)` if the room is not open to the client
    /// and it shows no token for it.
    fn may_subscribe(
        &self,
        room: &RoomName,
        namespace: &Namespace,
        token: &str,
        Policy { access, now, .. }: Policy<'_>,
    ) -> Result<Option<TokenEnd>, Option<TokenError>> {
        if rules::admits(
            namespace.access,
            &self.info.user,
            self.grants.as_deref(),
            room,
        ) {
            return Ok(None);
        }
        if token.is_empty() {
            return Err(None);
        }
        access
            .subscription(token, &self.info.user, room.as_str(), now)
            .map(Some)
            .map_err(Some)
    }

    fn subscribe_permitted(
        &mut self,
        command: u32,
        room: RoomName,
        namespace: &Namespace,
        request: Subscribe<'_>,
        by_token: Option<TokenEnd>,
        now: u64,
    ) -> Result<Effect, ErrorCode> {
        if request.kind != 0 {
            return Err(
                ErrorCode::NOT_AVAILABLE.because("only plain subscriptions (type 0) are served")
            );
        }
        if request.tf.is_some() {
            return Err(ErrorCode::BAD_REQUEST.because("filters by tags are not served"));
        }
        if self.number_of(&request.channel).is_some() {
            return Err(ErrorCode::ALREADY_SUBSCRIBED);
        }
        let most = self.settings.max_rooms;
        if self.subscriptions.len() >= most {
            return Err(ErrorCode::LIMIT_EXCEEDED
                .because(format_args!("a session takes at most {most} rooms")));
        }
        let number = self.next_number;
        self.next_number += 1;
        // Most sessions follow one room, and a vector that grows starts with more.
        self.subscriptions
            .reserve_exact(usize::from(self.subscriptions.is_empty()));
        self.subscriptions.push(Subscription {
            room: room.clone(),
            number,
            by_token: by_token.is_some(),
        });
        let end = by_token.flatten();
        if end.is_some() {
            let deadlines = self.deadlines.get_or_insert_default();
            deadlines.set_subscription(number, end);
        }
        let start = match namespace.rewind {
            _ if request.recover => Start::Behind(Recover {
                offset: request.offset,
                epoch: request.epoch.into(),
            }),
            0 => Start::Now,
            count => Start::Newest(count),
        };
        Ok(Effect::Subscribe {
            command,
            room,
            number,
            start,
            must_recover: request.flag & Subscribe::ERROR_UNLESS_RECOVERED != 0,
            join_leave: namespace.join_leave && request.join_leave,
            presence: namespace.presence || namespace.join_leave,
            lasting: lasting(end, now),
        })
    }

    /// `None` if there is no such subscription: an unsubscribe never fails, an SDK would reconnect.
    fn unsubscribe(&mut self, command: u32, channel: &str) -> Option<Effect> {
        let at = self
            .subscriptions
            .iter()
            .position(|s| s.room.as_str() == channel)?;
        let Subscription { room, number, .. } = self.subscriptions.swap_remove(at);
        if let Some(deadlines) = &mut self.deadlines {
            deadlines.forget(number);
        }
        Some(Effect::Unsubscribe {
            command,
            room,
            number,
        })
    }

    fn publish(
        &self,
        command: u32,
        request: &command::Publish<'_>,
        namespaces: &Namespaces,
    ) -> Result<Effect, ErrorCode> {
        let room = room_name(&request.channel)?;
        let namespace = namespace_of(&room, namespaces)?;
        if namespace.client_publish == ClientPublish::Off {
            return Err(ErrorCode::NOT_AVAILABLE.because("publish through the HTTP API"));
        }
        if self.number_of(room.as_str()).is_none() {
            return Err(
                ErrorCode::PERMISSION_DENIED.because("only subscribers of the room publish")
            );
        }
        let data = request.data;
        if data.is_empty() {
            return Err(ErrorCode::BAD_REQUEST.because("data is missing"));
        }
        let most = self.settings.max_delta_bytes;
        if data.len() > most {
            return Err(ErrorCode::LIMIT_EXCEEDED
                .because(format_args!("a delta takes at most {most} bytes")));
        }
        let data = compact_json(data).map_err(|e| ErrorCode::BAD_REQUEST.because(e))?;
        let rate = namespace.client_publish_rate;
        Ok(match namespace.client_publish {
            ClientPublish::Stored => Effect::PublishStored {
                command,
                room,
                data,
                rate,
            },
            _ => Effect::PublishEphemeral {
                command,
                room,
                data,
                rate,
            },
        })
    }

    /// Whoever follows a room may ask about it, and whoever could.
    fn may_ask(&self, room: &RoomName, namespace: &Namespace) -> Result<(), ErrorCode> {
        let grants = self.grants.as_deref();
        let may = self.number_of(room.as_str()).is_some()
            || rules::admits(namespace.access, &self.info.user, grants, room);
        may.then_some(())
            .ok_or_else(|| ErrorCode::PERMISSION_DENIED.because("subscribe to the room first"))
    }

    /// How many are in a room (`stats`) may be asked of any; who they are, where its namespace says so.
    fn presence_room(
        &self,
        channel: &str,
        policy: Policy<'_>,
        stats: bool,
    ) -> Result<RoomName, ErrorCode> {
        let room = room_name(channel)?;
        let namespace = namespace_of(&room, policy.namespaces)?;
        self.may_ask(&room, namespace)?;
        match stats || namespace.presence {
            true => Ok(room),
            false => {
                Err(ErrorCode::NOT_AVAILABLE.because("the room's namespace keeps no presence"))
            }
        }
    }

    fn history(
        &self,
        command: u32,
        request: &command::History<'_>,
        policy: Policy<'_>,
    ) -> Result<Effect, ErrorCode> {
        let room = room_name(&request.channel)?;
        let namespace = namespace_of(&room, policy.namespaces)?;
        self.may_ask(&room, namespace)?;
        if !namespace.store {
            return Err(ErrorCode::NOT_AVAILABLE.because("the room's namespace stores nothing"));
        }
        let since = request.since.as_ref().map(|since| Recover {
            offset: since.offset,
            epoch: (&*since.epoch).into(),
        });
        if request.reverse && since.as_ref().is_some_and(|since| since.offset == 0) {
            return Err(ErrorCode::BAD_REQUEST.because("nothing stands before offset 0"));
        }
        Ok(Effect::History {
            command,
            room,
            limit: request.limit,
            since,
            reverse: request.reverse,
        })
    }

    fn number_of(&self, channel: &str) -> Option<u32> {
        self.subscriptions
            .iter()
            .find(|s| s.room.as_str() == channel)
            .map(|s| s.number)
    }
}

impl Subscription {
    fn end(&self, why: Unsubscribe) -> Effect {
        Effect::End {
            room: self.room.clone(),
            number: self.number,
            why,
        }
    }
}

/// When a token ends, in seconds since the Unix epoch; `None` is never.
type TokenEnd = Option<u64>;

fn lasting(end: TokenEnd, now: u64) -> Lasting {
    end.map_or_else(Lasting::default, |end| Lasting::seconds(ttl(end, now)))
}

enum Refusal {
    Error(u32, ErrorCode),
    Close(Disconnect),
}

fn room_name(channel: &str) -> Result<RoomName, ErrorCode> {
    RoomName::new(channel).map_err(|error: BadRoomName| ErrorCode::BAD_REQUEST.because(error))
}

fn namespace_of<'a>(
    room: &RoomName,
    namespaces: &'a Namespaces,
) -> Result<&'a Namespace, ErrorCode> {
    namespaces
        .of(room)
        .map_err(|unknown| ErrorCode::UNKNOWN_CHANNEL.because(unknown))
}

#[cfg(test)]
mod refresh_tests;
#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
