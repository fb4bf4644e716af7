//! `publish` and `broadcast`.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Answer, Api, Reply, answer, fields::Fields};
use crate::{
    access::caller::Caller,
    config::Scope,
    delta::Epoch,
    http::{
        error::Problem,
        publish::{self, Outcome},
    },
    log::publisher::{NewDelta, PublishError},
    protocol::codes::ErrorCode,
};

/// Where a delta is; nothing if it has no place, or none that is known yet.
#[derive(Serialize)]
struct Place<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a Epoch>,
}

#[derive(Serialize)]
struct Responses<'a> {
    responses: Vec<Reply<'a>>,
}

/// What is published, whatever the room.
struct Said<'a> {
    data: &'a RawValue,
    key: Option<String>,
    skip_history: bool,
}

impl<'a> Said<'a> {
    fn read(fields: &mut Fields<'a>) -> Result<Self, ErrorCode> {
        // It asks for fewer bytes on the wire, not for another meaning.
        fields.take::<bool>("delta")?;
        Ok(Self {
            data: fields.raw("data")?,
            key: fields.take("idempotency_key")?,
            skip_history: fields.take("skip_history")?.unwrap_or_default(),
        })
    }

    fn to(&self, api: &Api<'_>, caller: &Caller, channel: &str) -> Result<NewDelta, ErrorCode> {
        let key = self.key.as_deref().filter(|key| !key.is_empty());
        let delta = api.state.new_delta(caller, channel, self.data, key)?;
        match self.skip_history && api.state.services.stores(&delta.room) {
            true => Err(ErrorCode::NOT_AVAILABLE.because(
                "skip_history is for rooms of a namespace that stores nothing; this one stores",
            )),
            false => Ok(delta),
        }
    }
}

pub async fn publish(api: &Api<'_>, mut fields: Fields<'_>) -> Answer {
    let caller = api.caller(Scope::Publish)?;
    let channel: String = fields.need("channel")?;
    let said = Said::read(&mut fields)?;
    fields.end()?;
    let delta = said.to(api, &caller, &channel)?;
    let outcome = publish::publish(api.state, vec![delta]).await.pop();
    place(outcome)
}

/// The same to several rooms, one answer for each.
pub async fn broadcast(api: &Api<'_>, mut fields: Fields<'_>) -> Answer {
    let caller = api.caller(Scope::Publish)?;
    let channels: Vec<String> = fields.need("channels")?;
    let said = Said::read(&mut fields)?;
    fields.end()?;
    let limit = api.state.services.publish.max_batch;
    if channels.len() > limit {
        return Err(Problem::too_many_deltas(channels.len(), limit).into());
    }
    let checked: Vec<Result<NewDelta, ErrorCode>> = channels
        .iter()
        .map(|channel| said.to(api, &caller, channel))
        .collect();
    let valid = checked.iter().flatten().cloned().collect();
    let mut published = publish::publish(api.state, valid).await.into_iter();
    let responses = checked.into_iter().map(|checked| Reply {
        name: "result".into(),
        answer: checked.and_then(|_| place(published.next())),
    });
    answer(&Responses {
        responses: responses.collect(),
    })
}

fn place(outcome: Option<Result<Outcome, PublishError>>) -> Answer {
    let outcome = outcome.unwrap_or(Err(PublishError::OutcomeUnknown));
    match outcome.map_err(Problem::from)? {
        Outcome::Placed(published) => answer(&Place {
            offset: Some(published.offset),
            epoch: Some(&published.epoch),
        }),
        Outcome::Unplaced(_) => answer(&Place {
            offset: None,
            epoch: None,
        }),
    }
}
