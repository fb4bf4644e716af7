//! What clients send.

use std::iter;

use prost::Message;
use serde::de::IgnoredAny;

use super::messages;
use crate::protocol::command::{
    Channel, Command, Connect, History, Publish, Refresh, Since, Subscribe,
};

/// The commands of a frame, each behind its length; `None` for what is none, and nothing behind it.
///
/// A frame without any is malformed, as it is in JSON.
pub fn commands(frame: &[u8]) -> impl Iterator<Item = Option<messages::Command>> {
    let mut rest = Some(frame);
    iter::from_fn(move || {
        let mut bytes = rest?;
        let command = messages::Command::decode_length_delimited(&mut bytes).ok();
        rest = (command.is_some() && !bytes.is_empty()).then_some(bytes);
        Some(command)
    })
}

impl<'a> From<&'a messages::Command> for Command<'a> {
    fn from(command: &'a messages::Command) -> Self {
        let any = |request: Option<()>| request.map(|()| IgnoredAny);
        Self {
            id: command.id,
            connect: command.connect.as_ref().map(Connect::from),
            ping: any(command.ping),
            subscribe: command.subscribe.as_ref().map(Subscribe::from),
            unsubscribe: command.unsubscribe.as_ref().map(Channel::from),
            publish: command.publish.as_ref().map(Publish::from),
            presence: command.presence.as_ref().map(Channel::from),
            presence_stats: command.presence_stats.as_ref().map(Channel::from),
            history: command.history.as_ref().map(History::from),
            rpc: any(command.rpc),
            send: any(command.send),
            refresh: command.refresh.as_ref().map(Refresh::from),
            sub_refresh: command.sub_refresh.as_ref().map(Refresh::from),
        }
    }
}

impl<'a> From<&'a messages::ConnectRequest> for Connect<'a> {
    fn from(request: &'a messages::ConnectRequest) -> Self {
        Self {
            token: (&*request.token).into(),
        }
    }
}

impl<'a> From<&'a messages::RefreshRequest> for Refresh<'a> {
    fn from(request: &'a messages::RefreshRequest) -> Self {
        Self {
            channel: "".into(),
            token: (&*request.token).into(),
        }
    }
}

impl<'a> From<&'a messages::SubRefreshRequest> for Refresh<'a> {
    fn from(request: &'a messages::SubRefreshRequest) -> Self {
        Self {
            channel: (&*request.channel).into(),
            token: (&*request.token).into(),
        }
    }
}

impl<'a> From<&'a messages::SubscribeRequest> for Subscribe<'a> {
    fn from(request: &'a messages::SubscribeRequest) -> Self {
        Self {
            channel: (&*request.channel).into(),
            recover: request.recover,
            offset: request.offset,
            epoch: (&*request.epoch).into(),
            join_leave: request.join_leave,
            flag: request.flag.cast_unsigned(),
            kind: request.kind.cast_unsigned(),
            tf: request.tf.map(|()| IgnoredAny),
            token: (&*request.token).into(),
        }
    }
}

impl<'a> From<&'a messages::ChannelRequest> for Channel<'a> {
    fn from(request: &'a messages::ChannelRequest) -> Self {
        Self {
            channel: (&*request.channel).into(),
        }
    }
}

impl<'a> From<&'a messages::PublishRequest> for Publish<'a> {
    fn from(request: &'a messages::PublishRequest) -> Self {
        Self {
            channel: (&*request.channel).into(),
            data: &request.data,
        }
    }
}

impl<'a> From<&'a messages::HistoryRequest> for History<'a> {
    fn from(request: &'a messages::HistoryRequest) -> Self {
        Self {
            channel: (&*request.channel).into(),
            limit: request.limit.into(),
            since: request.since.as_ref().map(|since| Since {
                offset: since.offset,
                epoch: (&*since.epoch).into(),
            }),
            reverse: request.reverse,
        }
    }
}
