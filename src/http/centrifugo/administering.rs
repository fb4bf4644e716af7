//! `disconnect`, `unsubscribe` and `history_remove`.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{Answer, Api, fields::Fields};
use crate::{
    actors::hub::Revoked,
    config::Scope,
    delta::{Erasure, MAX_OFFSET},
    http::{erase, revoke},
};

/// Ends all sessions of a user.
pub async fn disconnect(api: &Api<'_>, mut fields: Fields<'_>) -> Answer {
    api.caller(Scope::Admin)?;
    let user: Arc<str> = fields.need("user")?;
    fields.end()?;
    revoke::revoke(api.state, user, Revoked::Sessions).await?;
    done()
}

/// Ends a user's subscriptions to a room.
pub async fn unsubscribe(api: &Api<'_>, mut fields: Fields<'_>) -> Answer {
    let room = api.room(&mut fields, Scope::Admin)?;
    let user: Arc<str> = fields.need("user")?;
    fields.end()?;
    revoke::revoke(api.state, user, Revoked::Room(room)).await?;
    done()
}

pub async fn history_remove(api: &Api<'_>, mut fields: Fields<'_>) -> Answer {
    let room = api.room(&mut fields, Scope::Admin)?;
    fields.end()?;
    api.state.must_store(&room)?;
    erase::take_back(api.state, &room, Erasure::Upto(MAX_OFFSET)).await?;
    done()
}

/// An empty result.
fn done() -> Answer {
    let empty = RawValue::from_string("{}".to_owned());
    Ok(empty.expect("it is JSON"))
}
