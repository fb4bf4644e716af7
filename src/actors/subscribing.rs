//! How a session comes to its rooms and leaves them, whatever its client speaks.

use std::sync::Arc;

use actix::{Addr, prelude::Request};

use super::{
    Services,
    hub::LocalHub,
    registry::{Ticket, Unsent},
    room::{Leave, Room, Subscribe},
};
use crate::{
    delta::RoomName,
    rooms::sequence::{Join, SubId},
};

/// A room has failed; the next look-up starts it anew.
pub struct Failed;

/// Sends a join to its room, which is started on this thread if it is not in memory. If its mailbox is full, the join is
/// under way only when what is returned was awaited.
pub fn subscribe(
    services: &Arc<Services>,
    hub: &LocalHub,
    room: &RoomName,
    join: Join,
) -> Result<Option<Request<Room, Subscribe>>, Failed> {
    let hub = hub.addr.clone();
    let message = |ticket| Subscribe { join, hub, ticket };
    let start = starts(services, room);
    match services.registry.tell(room, start, message) {
        Ok(()) => Ok(None),
        Err(Unsent::Full(message, room)) => Ok(Some(room.send(message))),
        Err(Unsent::Failed) => Err(Failed),
    }
}

/// Takes a subscription of a session that has ended out of its room.
pub fn leave(services: &Services, hub: &LocalHub, room: &RoomName, sub: SubId) {
    if let Some((live, ticket)) = services.registry.hold(room) {
        live.do_send(leaving(hub, sub, None, ticket));
    }
}

/// `command` is the id of the command that is to be answered.
pub fn leaving(hub: &LocalHub, sub: SubId, command: Option<u32>, ticket: Ticket) -> Leave {
    Leave {
        sub,
        hub: (hub.id, hub.addr.clone()),
        command,
        ticket,
    }
}

/// Starts the room on this thread, with the key that it is given.
pub fn starts(services: &Arc<Services>, room: &RoomName) -> impl FnOnce(u64) -> Addr<Room> + use<> {
    let (name, services) = (room.clone(), services.clone());
    move |key| Room::start(name, key, services)
}
