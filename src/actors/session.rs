//! The session actor: one client, its protocol state, and its way to the rooms. A transport feeds it with the client's
//! frames and owns the wire that answers go out on.
//!
//! Bounds: when a room's mailbox is full, the session reads nothing more of its client until the room has taken what is
//! under way; so what waits for a session is one frame of commands.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
    time::Duration,
};

use actix::{fut::ActorFuture, prelude::*};
use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota};
use tracing::{Span, debug, info_span};

use super::{
    Services, Topic,
    asking::Asked,
    hub::{LocalHub, SessionWire},
    life::Admission,
    registry::Ticket,
    room::{Ask, Ephemeral, Revoke},
    subscribing::{self, Failed, starts},
};
use crate::{
    delta::RoomName,
    log::publisher::{NewDelta, PublishError, wall_clock_ms},
    metrics::{Closing, Intake, Transport},
    presence::form,
    protocol::{
        client_id,
        codes::{Disconnect, ErrorCode},
        format::Codec,
        frame::FrameBuilder,
        reply::{self, ClientInfo, Emulated, Outcome},
        session::{self as protocol, Effect, Policy, SessionSettings},
    },
    rooms::sequence::{Join, SubId},
};

/// How long a client that may not connect has to close. SDKs do so at once.
const REFUSED: Duration = Duration::from_secs(5);

/// What most sessions never need, and so don't pay for.
#[derive(Default)]
struct Seldom {
    /// What the client may still publish, by namespace.
    rates: HashMap<String, DefaultDirectRateLimiter>,
    /// What comes behind messages that are held up: a room that the client leaves must know of its coming first.
    waiting: VecDeque<Effect>,
    /// When something ends that the client does not refresh, and the timer for it.
    deadline: Option<(u64, SpawnHandle)>,
}

/// Commands of a client that has no socket. Whoever sends them waits until they are handled.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Hear(pub Bytes);

pub struct Session {
    id: u64,
    core: protocol::Session,
    wire: Rc<dyn SessionWire>,
    hub: Rc<LocalHub>,
    services: Arc<Services>,
    transport: Transport,
    /// In the ping wheel.
    slot: Option<usize>,
    stale: Option<SpawnHandle>,
    seldom: Option<Box<Seldom>>,
    /// Messages that rooms have not taken yet.
    held_up: usize,
    /// Wakes the transport when nothing is held up any more.
    reader: Option<Waker>,
    closing: Option<Closing>,
    /// The session's place on this server, given back at its end.
    _admission: Admission,
}

impl Session {
    /// `token` is what the client showed with its handshake.
    pub fn new(
        transport: Transport,
        token: Option<Box<str>>,
        wire: Rc<dyn SessionWire>,
        hub: Rc<LocalHub>,
        services: Arc<Services>,
        admission: Admission,
    ) -> Self {
        let id = admission.session();
        let client = client_id::of_session(id);
        let settings = SessionSettings {
            ping_interval: services.limits.ping_interval.as_secs(),
            max_rooms: services.limits.max_rooms_per_session,
            max_delta_bytes: services.publish.max_delta_bytes,
        };
        Self {
            id,
            core: protocol::Session::new(client, token, settings),
            wire,
            hub,
            services,
            transport,
            slot: None,
            stale: None,
            seldom: None,
            held_up: 0,
            reader: None,
            closing: None,
            _admission: admission,
        }
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn hub(&self) -> &LocalHub {
        &self.hub
    }

    /// What the client speaks.
    fn codec(&self) -> Codec {
        self.hub.id.format.codec()
    }

    /// The client has no socket, and is told how to name its session.
    pub fn emulate(&mut self, emulated: Emulated) {
        self.core.emulate(emulated);
    }

    /// Whether the transport may read on; if not, `waker` is woken when it may.
    pub fn may_read(&mut self, waker: &Waker) -> bool {
        if self.held_up > 0 {
            self.reader = Some(waker.clone());
        }
        self.held_up == 0
    }

    /// Handles one frame of the client.
    pub fn receive(&mut self, frame: &[u8], ctx: &mut Context<Self>) {
        let _in_span = self.span().entered();
        let (mut replies, mut effects) = (FrameBuilder::new(self.codec()), Vec::new());
        let policy = Policy {
            namespaces: &self.services.namespaces,
            access: &self.services.access,
            now: wall_clock_ms() / 1000,
        };
        self.core.receive(frame, policy, &mut replies, &mut effects);
        if let Some(frame) = replies.finish() {
            self.wire.push(&frame);
        }
        self.perform_in_order(effects.into(), ctx);
        self.watch_deadline(ctx);
    }

    /// Sees to it that what is not refreshed ends in time.
    fn watch_deadline(&mut self, ctx: &mut Context<Self>) {
        let next = self.core.next_deadline();
        let watched = self.seldom.as_ref().and_then(|of| of.deadline);
        if next == watched.map(|(at, _)| at) {
            return;
        }
        if let Some((_, timer)) = watched {
            ctx.cancel_future(timer);
        }
        let deadline = next.map(|at| {
            let left = Duration::from_millis((at * 1000).saturating_sub(wall_clock_ms()));
            (at, ctx.run_later(left, Self::expire))
        });
        self.seldom.get_or_insert_default().deadline = deadline;
    }

    fn expire(&mut self, ctx: &mut Context<Self>) {
        let _in_span = self.span().entered();
        if let Some(seldom) = &mut self.seldom {
            seldom.deadline = None;
        }
        let mut effects = Vec::new();
        self.core.expire(wall_clock_ms() / 1000, &mut effects);
        self.perform_behind(effects, ctx);
        self.watch_deadline(ctx);
    }

    /// Performs what comes from elsewhere than the client, behind what is held up.
    fn perform_behind(&mut self, effects: Vec<Effect>, ctx: &mut Context<Self>) {
        if self.held_up > 0 {
            let waiting = &mut self.seldom.get_or_insert_default().waiting;
            waiting.extend(effects);
        } else {
            self.perform_in_order(effects.into(), ctx);
        }
    }

    fn perform_in_order(&mut self, mut effects: VecDeque<Effect>, ctx: &mut Context<Self>) {
        while self.held_up == 0 {
            match effects.pop_front() {
                Some(effect) => self.perform(effect, ctx),
                None => return,
            }
        }
        self.seldom.get_or_insert_default().waiting = effects;
    }

    /// A room took what was held up.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        self.held_up -= 1;
        if let Some(seldom) = &mut self.seldom {
            let waiting = std::mem::take(&mut seldom.waiting);
            self.perform_in_order(waiting, ctx);
        }
        if self.held_up == 0
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }

    /// The room ended a subscription.
    pub fn subscription_ended(&mut self, number: u32) {
        self.core.subscription_ended(number);
    }

    /// A room has failed; a session that follows it must come back.
    pub fn room_failed(&mut self, room: &RoomName) {
        if self.core.subscriptions().any(|(name, _)| name == room) {
            self.end(Disconnect::INTERNAL);
        }
    }

    /// The client may not follow the room any more.
    pub fn revoked(&mut self, room: &RoomName, ctx: &mut Context<Self>) {
        let mut effects = Vec::new();
        self.core.revoke(room, &mut effects);
        self.perform_behind(effects, ctx);
    }

    /// Ends the session with a close that the client is told.
    pub fn end(&mut self, why: Disconnect) {
        self.wire.close(why);
    }

    /// The session ends because its client does not read.
    pub fn slow(&self) {
        self.services.metrics.slow_disconnect();
    }

    /// For the log and the metrics: who ended the session. The first reason counts.
    pub fn closing(&mut self, closing: Closing) {
        self.closing.get_or_insert(closing);
    }

    /// What a session does is logged under its client. Made anew each time: a span that is kept costs an idle session
    /// more than its socket does.
    fn span(&self) -> Span {
        info_span!("session", client = %self.core.info().id, transport = self.transport.name())
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Connected => self.connected(ctx),
            Effect::Refused => {
                self.cancel_stale(ctx);
                self.stale = Some(ctx.run_later(REFUSED, |session, _| {
                    session.stale = None;
                    session.end(Disconnect::CLOSED);
                }));
            }
            Effect::Unwelcome(why) => {
                debug!(reason = %why, "the client may not connect");
                self.services.metrics.connection_refused("invalid-token");
                self.end(Disconnect::INVALID_TOKEN);
            }
            // The wire keeps account of pongs.
            Effect::Pong => self.wire.pong(),
            Effect::Subscribe {
                command,
                room,
                number,
                start,
                must_recover,
                join_leave,
                presence,
                lasting,
            } => {
                debug!(room.name = %room, "subscribe");
                let join = Join {
                    sub: self.sub(number),
                    hub: self.hub.id,
                    command,
                    start,
                    lasting,
                    must_recover,
                    join_leave,
                    is_named: !self.core.info().user.is_empty(),
                    info: presence.then(|| self.core.info().clone()),
                };
                self.subscribe(room, join, ctx);
            }
            Effect::Unsubscribe {
                command,
                room,
                number,
            } => {
                debug!(room.name = %room, "unsubscribe");
                match self.services.registry.hold(&room) {
                    Some((live, ticket)) => {
                        let sub = self.sub(number);
                        live.do_send(subscribing::leaving(&self.hub, sub, Some(command), ticket));
                    }
                    // A room with a subscriber is there unless it has failed, and what it had sent may still be under way:
                    // an answer from here would overtake it.
                    None => self.end(Disconnect::INTERNAL),
                }
            }
            Effect::Presence {
                command,
                room,
                stats,
            } => self.ask_presence(command, &room, stats),
            Effect::History {
                command,
                room,
                limit,
                since,
                reverse,
            } => {
                let asked = Asked {
                    room,
                    limit,
                    since,
                    reverse,
                };
                self.read_history(command, asked, ctx);
            }
            Effect::PublishEphemeral {
                command,
                room,
                data,
                rate,
            } => {
                let sent = self.within_rate(&room, rate) && {
                    let info = self.core.info().clone();
                    self.tell_others(&room, &info, &data);
                    let sent = self.services.registry.pass(&room, Ephemeral { data, info });
                    matches!(sent, Some(Ok(())))
                };
                match sent {
                    true => self.reply(command, &Outcome::Publish {}),
                    false => self.fail(command, ErrorCode::TOO_MANY_REQUESTS),
                }
            }
            Effect::PublishStored {
                command,
                room,
                data,
                rate,
            } => match self.within_rate(&room, rate) {
                true => self.publish(command, room, data, ctx),
                false => self.fail(command, ErrorCode::TOO_MANY_REQUESTS),
            },
            Effect::End { room, number, why } => {
                debug!(room.name = %room, why.reason, "subscription ended");
                match self.services.registry.hold(&room) {
                    Some((live, ticket)) => live.do_send(Revoke {
                        sub: self.sub(number),
                        why,
                        ticket,
                    }),
                    None => self.end(Disconnect::INTERNAL),
                }
            }
            Effect::Close(why) => self.end(why),
        }
    }

    fn connected(&mut self, ctx: &mut Context<Self>) {
        self.cancel_stale(ctx);
        let random = self.core.info().id.as_u64_pair().0;
        self.slot = Some(self.hub.ping(self.id, random));
        let user = &self.core.info().user;
        self.hub.belongs(self.id, user);
        let presence = &self.services.presence;
        presence.with(|core, now| core.user_came(now, user));
        debug!("connected");
    }

    fn cancel_stale(&mut self, ctx: &mut Context<Self>) {
        if let Some(stale) = self.stale.take() {
            ctx.cancel_future(stale);
        }
    }

    fn subscribe(&mut self, room: RoomName, join: Join, ctx: &mut Context<Self>) {
        let (command, number) = (join.command, join.sub.number);
        match subscribing::subscribe(&self.services, &self.hub, &room, join) {
            Ok(None) => {}
            Err(Failed) => self.subscribe_failed(command, number),
            Ok(Some(under_way)) => {
                self.held_up += 1;
                let under_way = under_way.into_actor(self);
                ctx.spawn(under_way.map(move |sent, session, ctx| {
                    if sent.is_err() {
                        session.subscribe_failed(command, number);
                    }
                    session.go_on(ctx);
                }));
            }
        }
    }

    fn subscribe_failed(&mut self, command: u32, number: u32) {
        self.core.subscription_ended(number);
        self.fail(command, ErrorCode::INTERNAL);
    }

    fn ask_presence(&mut self, command: u32, room: &RoomName, stats: bool) {
        if self.services.registry.get(room).is_none() {
            let presence = &self.services.presence;
            let frame = presence.answer(room, self.codec(), command, stats);
            self.wire.push(&frame);
            return;
        }
        let ask = |ticket: Ticket| Ask {
            session: self.id,
            hub: (self.hub.id, self.hub.addr.clone()),
            command,
            stats,
            ticket,
        };
        let told = self
            .services
            .registry
            .tell(room, starts(&self.services, room), ask);
        if told.is_err() {
            self.fail(command, ErrorCode::TOO_MANY_REQUESTS);
        }
    }

    fn read_history(&mut self, command: u32, asked: Asked, ctx: &mut Context<Self>) {
        let services = self.services.clone();
        let read = async move { services.read_history(asked).await };
        ctx.spawn(read.into_actor(self).map(move |read, session, _| {
            let _in_span = session.span().entered();
            match read {
                Ok(found) => session.reply(command, &found.outcome()),
                Err(code) => session.fail(command, code),
            }
        }));
    }

    fn publish(&mut self, command: u32, room: RoomName, body: Bytes, ctx: &mut Context<Self>) {
        self.services.look_at_size(&room, body.len());
        let info = serde_json::to_vec(self.core.info()).unwrap_or_default();
        let delta = NewDelta {
            room,
            body,
            key: None,
            info: info.into(),
            exclude: None,
        };
        let publisher = self.services.publisher.clone();
        let published = async move { publisher.publish(vec![delta]).await.pop() };
        ctx.spawn(
            published
                .into_actor(self)
                .map(move |published, session, _| {
                    let published = published.unwrap_or(Err(PublishError::OutcomeUnknown));
                    let intake = published
                        .as_ref()
                        .map_or_else(Intake::from, |_| Intake::Applied);
                    session.services.metrics.deltas_in(intake, 1);
                    match published {
                        Ok(_) | Err(PublishError::Unplaced { .. }) => {
                            session.reply(command, &Outcome::Publish {})
                        }
                        Err(PublishError::NotTaken { .. }) => {
                            session.fail(command, ErrorCode::TOO_MANY_REQUESTS);
                        }
                        Err(error) => session.fail(command, ErrorCode::INTERNAL.because(error)),
                    }
                }),
        );
    }

    /// As well as it goes: those who are at other servers may miss it.
    fn tell_others(&self, room: &RoomName, info: &ClientInfo, data: &Bytes) {
        if let Some(others) = &self.services.others {
            let from = self.services.presence.id();
            let body = form::encode_ephemeral(from, room, info, data);
            if !others.tell(Topic::Ephemeral, body) {
                self.services.metrics.presence().ephemeral_dropped();
            }
        }
    }

    fn within_rate(&mut self, room: &RoomName, rate: u32) -> bool {
        let seldom = self.seldom.get_or_insert_default();
        let limiter = seldom.rates.entry(room.namespace().to_owned());
        let limiter = limiter.or_insert_with(|| {
            let rate = NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN);
            DefaultDirectRateLimiter::direct(Quota::per_second(rate))
        });
        limiter.check().is_ok()
    }

    fn sub(&self, number: u32) -> SubId {
        SubId {
            session: self.id,
            number,
        }
    }

    fn reply(&self, command: u32, outcome: &Outcome<'_>) {
        let frame = reply::reply_frame(self.codec(), command, outcome);
        self.wire.push(&frame);
    }

    fn fail(&self, command: u32, error: ErrorCode) {
        self.reply(command, &Outcome::Error(error));
    }
}

impl Handler<Hear> for Session {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, Hear(commands): Hear, _: &mut Self::Context) -> Self::Result {
        Box::pin(Hearing(commands))
    }
}

/// Waits until the session may be read.
struct Hearing(Bytes);

impl ActorFuture<Session> for Hearing {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        session: &mut Session,
        ctx: &mut Context<Session>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        if !session.may_read(cx.waker()) {
            return Poll::Pending;
        }
        session.receive(&self.0, ctx);
        Poll::Ready(())
    }
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.hub.open(self.id, self.wire.clone());
        self.services.metrics.session_opened(self.transport);
        let patience = self.services.limits.connect_timeout;
        self.stale = Some(ctx.run_later(patience, |session, _| {
            session.stale = None;
            session.end(Disconnect::STALE);
        }));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let _in_span = self.span().entered();
        self.hub.close(self.id);
        self.hub.belongs_no_more(self.id, &self.core.info().user);
        if let Some(slot) = self.slot.take() {
            self.hub.stop_pinging(self.id, slot);
            let user = &self.core.info().user;
            let presence = &self.services.presence;
            presence.with(|core, now| core.user_went(now, user));
        }
        for (room, number) in self.core.subscriptions() {
            subscribing::leave(&self.services, &self.hub, room, self.sub(number));
        }
        let closing = self.closing.unwrap_or(Closing::Client);
        self.services
            .metrics
            .session_closed(self.transport, closing);
        debug!(?closing, "session ended");
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
