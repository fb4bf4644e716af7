//! The actor of a client that only reads: it follows the rooms that it named when it came, and says nothing more. Streams
//! of events and held polls have one. A transport owns the wire that events go out on.
//!
//! Bounds: what waits for a room whose mailbox is full is one message for each room of the client.

use std::{rc::Rc, sync::Arc};

use actix::prelude::*;
use tracing::debug;

use super::{
    Services,
    hub::{LocalHub, SessionWire},
    life::Admission,
    subscribing::{self, Failed},
};
use crate::{
    delta::RoomName,
    metrics::{Closing, Transport},
    protocol::{codes::Disconnect, reply::Lasting},
    rooms::sequence::{Join, Start, SubId},
};

/// What a reader follows, and from where.
pub type Follow = (RoomName, Start);

pub struct Follower {
    rooms: Vec<Follow>,
    /// Empty: anonymous, or an API key.
    user: Arc<str>,
    wire: Rc<dyn SessionWire>,
    hub: Rc<LocalHub>,
    services: Arc<Services>,
    transport: Transport,
    /// In the ping wheel.
    slot: Option<usize>,
    closing: Option<Closing>,
    /// The reader's place on this server, given back at its end.
    admission: Admission,
}

impl Follower {
    pub fn new(
        rooms: Vec<Follow>,
        user: Arc<str>,
        transport: Transport,
        wire: Rc<dyn SessionWire>,
        hub: Rc<LocalHub>,
        services: Arc<Services>,
        admission: Admission,
    ) -> Self {
        Self {
            rooms,
            user,
            wire,
            hub,
            services,
            transport,
            slot: None,
            closing: None,
            admission,
        }
    }

    fn subs(&self) -> impl Iterator<Item = (SubId, &Follow)> {
        let session = self.admission.session();
        let sub = move |number| SubId { session, number };
        (1..).map(sub).zip(&self.rooms)
    }

    fn subscribe(&mut self, ctx: &mut Context<Self>) {
        for (sub, (room, start)) in self.subs() {
            let join = Join {
                sub,
                hub: self.hub.id,
                command: 0,
                start: start.clone(),
                lasting: Lasting::default(),
                must_recover: false,
                join_leave: false,
                is_named: false,
                info: None,
            };
            match subscribing::subscribe(&self.services, &self.hub, room, join) {
                Ok(None) => {}
                Err(Failed) => self.wire.close(Disconnect::INTERNAL),
                Ok(Some(under_way)) => {
                    ctx.spawn(under_way.into_actor(self).map(|sent, follower, _| {
                        if sent.is_err() {
                            follower.wire.close(Disconnect::INTERNAL);
                        }
                    }));
                }
            }
        }
    }

    /// Ends the session with what the transport has to say at its end.
    pub fn end(&self, why: Disconnect) {
        self.wire.close(why);
    }

    /// The wire has nothing queued any more.
    pub fn drained(&self) {
        self.hub.drained(self.admission.session());
    }

    /// A room has failed; a reader that follows it must come back.
    pub fn room_failed(&self, room: &RoomName) {
        if self.rooms.iter().any(|(followed, _)| followed == room) {
            self.wire.close(Disconnect::INTERNAL);
        }
    }

    /// The reader may not follow the room any more. It comes back, and is told so.
    pub fn revoked(&self, room: &RoomName) {
        if self.rooms.iter().any(|(followed, _)| followed == room) {
            self.wire.close(Disconnect::FORCED);
        }
    }

    /// The room could not serve it; it comes back to where it stands.
    pub fn subscription_ended(&self) {
        self.wire.close(Disconnect::INTERNAL);
    }

    /// For the metrics: who ended the session. The first reason counts.
    pub fn closing(&mut self, why: Disconnect) {
        if self.closing.is_none() {
            self.closing = Some(Closing::Server(why.code));
            if why == Disconnect::SLOW {
                self.services.metrics.slow_disconnect();
            }
        }
    }
}

impl Actor for Follower {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let session = self.admission.session();
        self.hub.open(session, self.wire.clone());
        self.hub.belongs(session, &self.user);
        // Numbers that follow each other are spread evenly over the wheel.
        self.slot = Some(self.hub.ping(session, session));
        self.services.metrics.session_opened(self.transport);
        self.subscribe(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let session = self.admission.session();
        self.hub.close(session);
        self.hub.belongs_no_more(session, &self.user);
        if let Some(slot) = self.slot.take() {
            self.hub.stop_pinging(session, slot);
        }
        for (sub, (room, _)) in self.subs() {
            subscribing::leave(&self.services, &self.hub, room, sub);
        }
        let closing = self.closing.unwrap_or(Closing::Client);
        self.services
            .metrics
            .session_closed(self.transport, closing);
        debug!(
            session,
            transport = self.transport.name(),
            ?closing,
            "session ended"
        );
    }
}
