//! What a client is told, checked word by word.

use roomwire::protocol::codes::{Disconnect, ErrorCode, Unsubscribe};
use serde_json::Value;

use super::{Asked, Client, Position, Request, Truth};
use crate::{
    Checked, ensure,
    rooms::{CROWD, ROOMS},
    tell,
};

impl Client {
    /// Reads some bytes of what was sent to it; whether there was anything.
    pub fn read(&mut self, most: usize, truth: &Truth<'_>) -> Checked<bool> {
        let Some(link) = &self.link else {
            return Ok(false);
        };
        let read = link.wire.read(most);
        let at_end = link.wire.is_at_end();
        let any = !read.is_empty() || at_end;
        self.unread.extend(read);
        while let Some((opcode, payload)) = next_frame(&mut self.unread) {
            match opcode {
                1 => {
                    for line in payload.split(|&byte| byte == b'\n') {
                        self.line(line, truth)?;
                    }
                }
                8 => {
                    self.closed(&payload, truth)?;
                    return Ok(true);
                }
                _ => return Err(format!("a frame with opcode {opcode}")),
            }
        }
        if at_end {
            self.disconnect();
        }
        Ok(any)
    }

    fn closed(&mut self, payload: &[u8], truth: &Truth<'_>) -> Checked {
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        let failed = truth.troubled && code == Some(Disconnect::INTERNAL.code);
        ensure(failed || code == Some(Disconnect::SLOW.code), || {
            format!("closed with {code:?}")
        })?;
        self.disconnect();
        Ok(())
    }

    fn line(&mut self, line: &[u8], truth: &Truth<'_>) -> Checked {
        let session = self.link.as_ref().map(|link| link.session);
        tell(|| {
            format!(
                "session {session:?} is told {}",
                String::from_utf8_lossy(line)
            )
        });
        let message: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if let Some(push) = message.get("push") {
            return self.push(push, truth);
        }
        let id = message["id"].as_u64().ok_or("neither an id nor a push")? as u32;
        let asked = self
            .asked
            .remove(&id)
            .ok_or("an answer that nobody asked for")?;
        match asked {
            Asked::Connect => ensure(message["connect"].is_object(), || message.to_string()),
            Asked::Unsubscribe { room } => {
                self.views[room].live = None;
                ensure(message["unsubscribe"].is_object(), || message.to_string())
            }
            Asked::Publish => {
                let refusals = [ErrorCode::PERMISSION_DENIED, ErrorCode::NOT_AVAILABLE];
                let mut refusals = refusals.iter().map(|error| error.code);
                let refused = refusals.any(|code| message["error"]["code"] == code);
                ensure(refused || message["publish"].is_object(), || {
                    message.to_string()
                })
            }
            Asked::Subscribe(request) => {
                let current = self.views[request.room].attempt == Some(id);
                match message.get("subscribe") {
                    Some(result) => self.subscribed(&request, result, current, truth),
                    None => self.refused(&request, &message["error"], current, truth),
                }
            }
        }
    }

    fn subscribed(
        &mut self,
        request: &Request,
        result: &Value,
        current: bool,
        truth: &Truth<'_>,
    ) -> Checked {
        // With a failed room the answer to an unsubscribe is lost.
        let leaves =
            |asked: &Asked| matches!(asked, Asked::Unsubscribe { room } if *room == request.room);
        let lost = truth.troubled && self.asked.values().any(leaves);
        let view = &mut self.views[request.room];
        ensure(lost || view.live.is_none(), || "subscribed twice".into())?;
        ensure(result["epoch"] == truth.epoch, || {
            format!("epoch of {result}")
        })?;
        let offset = result["offset"].as_u64().unwrap_or(0);
        ensure(offset <= truth.durable(), || {
            format!("{offset} is not durable")
        })?;
        let told = |key: &str| result[key].as_bool().unwrap_or(false);
        match (&request.position, told("was_recovering"), told("recovered")) {
            (None, false, false) => {}
            (Some(position), true, true) => {
                let fits = position.epoch.is_empty() || position.epoch == truth.epoch;
                ensure(fits && position.offset == offset, || {
                    format!("recovered {position:?} as {result}")
                })?;
            }
            (Some(_), true, false) => may_be_lost(request, truth)?,
            _ => return Err(format!("asked from {:?}, told {result}", request.position)),
        }
        view.live = Some(offset);
        view.without = request.dispatched;
        view.following = current;
        if current {
            view.position = Some(Position {
                offset,
                epoch: truth.epoch.into(),
            });
        }
        let publications = result["publications"].as_array();
        ensure(told("recovered") || publications.is_none(), || {
            "publications without recovery".into()
        })?;
        for publication in publications.into_iter().flatten() {
            self.delta(request.room, publication, truth)?;
        }
        Ok(())
    }

    fn refused(
        &mut self,
        request: &Request,
        error: &Value,
        current: bool,
        truth: &Truth<'_>,
    ) -> Checked {
        let code = error["code"].as_u64();
        let view = &mut self.views[request.room];
        if code == Some(ErrorCode::UNRECOVERABLE_POSITION.code.into()) && request.must_recover {
            may_be_lost(request, truth)?;
            if current {
                view.position = None;
            }
        } else {
            let internal = code == Some(ErrorCode::INTERNAL.code.into());
            // Whoever unsubscribes before the answer gets an error for one.
            ensure(internal && (truth.troubled || !current), || {
                format!("a subscribe was answered {error}")
            })?;
        }
        if current {
            view.attempt = None;
        }
        Ok(())
    }

    fn push(&mut self, push: &Value, truth: &Truth<'_>) -> Checked {
        let named = |(name, _): &(&str, _)| push["channel"] == *name;
        let room = ROOMS.iter().position(named).ok_or("a push for no room")?;
        let view = &mut self.views[room];
        let Some(live) = view.live else {
            return Err(format!("a push to whom nothing is owed: {push}"));
        };
        if let Some(publication) = push.get("pub") {
            let stored = publication.get("offset").is_some();
            return match stored {
                true => self.delta(room, publication, truth),
                false => Ok(()),
            };
        }
        if let Some(end) = push.get("unsubscribe") {
            ensure(end["code"] == Unsubscribe::INSUFFICIENT_STATE.code, || {
                push.to_string()
            })?;
            let overtaken = live < truth.ledger.highest_floor(room) || ROOMS[room].0 == CROWD;
            ensure(overtaken || truth.troubled, || {
                format!("a replay at {live} was ended, and nothing was trimmed there")
            })?;
            view.live = None;
            if view.following {
                (view.following, view.attempt) = (false, None);
                self.attempt(room, false, truth);
            }
            return Ok(());
        }
        let membership = push.get("join").or(push.get("leave"));
        ensure(membership.is_some(), || format!("an unknown push: {push}"))
    }

    /// A delta must be the very next one of its room.
    fn delta(&mut self, room: usize, publication: &Value, truth: &Truth<'_>) -> Checked {
        let view = &mut self.views[room];
        let live = view.live.ok_or("a delta to whom nothing is owed")?;
        // Until it was known to be erased, it may have been sent; from then on it may be left out.
        let mut owed = truth.ledger.room(room).next_after(live);
        while let Some(entry) = owed
            && truth.ledger.may_be_left_out(room, entry.offset)
            && publication["offset"] != entry.offset
        {
            owed = truth.ledger.room(room).next_after(entry.offset);
        }
        let same = owed.is_some_and(|owed| {
            publication["offset"] == owed.offset
                && publication["time"] == owed.time
                && publication["data"].to_string().as_bytes() == owed.body
        });
        let erased = owed.and_then(|owed| truth.ledger.room(room).erased_at(owed.offset));
        ensure(erased.is_none_or(|at| at > view.without), || {
            format!("erased at {erased:?}, and sent to whom asked later: {publication}")
        })?;
        ensure(same, || {
            format!(
                "room {} is owed {owed:?} behind {live}, got {publication}",
                ROOMS[room].0
            )
        })?;
        let offset = owed.map_or(live, |owed| owed.offset);
        view.live = Some(offset);
        if view.following
            && let Some(position) = &mut view.position
        {
            position.offset = offset;
        }
        Ok(())
    }
}

/// Whether it is right to say that a position can't be recovered.
fn may_be_lost(request: &Request, truth: &Truth<'_>) -> Checked {
    let Some(Position { offset, epoch }) = &request.position else {
        return Err("a fresh subscription was told of a loss".into());
    };
    let foreign = !epoch.is_empty() && epoch != truth.epoch;
    let trimmed = *offset < truth.ledger.highest_floor(request.room);
    ensure(foreign || trimmed || *offset > request.durable, || {
        format!("offset {offset} could be recovered, and was not")
    })
}

/// Cuts one whole WebSocket frame off: its opcode and its payload.
fn next_frame(unread: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (&opcode, &length) = (unread.first()?, unread.get(1)?);
    let (start, length) = match length {
        126 => (
            4,
            u16::from_be_bytes(*unread.get(2..)?.first_chunk()?).into(),
        ),
        127 => (
            10,
            u64::from_be_bytes(*unread.get(2..)?.first_chunk()?) as usize,
        ),
        short => (2, usize::from(short)),
    };
    let payload = unread.get(start..start + length)?.to_vec();
    unread.drain(..start + length);
    Some((opcode & 0x0f, payload))
}
