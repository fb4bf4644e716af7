//! The list of what there is in the broker besides the streams of the log, and what was there
//! before somebody set it up.

use lapin::Connection;

use super::{
    Generation, Topology, TopologyError, exchanges::exchange_exists, streams::queue_exists,
};

/// What an object of the broker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    DirectExchange,
    FanoutExchange,
    TopicExchange,
    QuorumQueue,
    Stream,
}

impl Kind {
    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DirectExchange => "direct exchange",
            Self::FanoutExchange => "fanout exchange",
            Self::TopicExchange => "topic exchange",
            Self::QuorumQueue => "quorum queue",
            Self::Stream => "stream",
        }
    }
}

/// One object of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub kind: Kind,
    pub name: String,
}

/// One object, and whether it was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub object: Object,
    pub was_there: bool,
}

impl Topology {
    /// Everything with a fixed name.
    pub fn objects(&self) -> Vec<Object> {
        let object = |kind, name| Object { kind, name };
        vec![
            object(Kind::DirectExchange, self.exchange()),
            object(Kind::Stream, self.meta()),
            object(Kind::TopicExchange, self.entrance()),
            object(Kind::QuorumQueue, self.ingress()),
            object(Kind::QuorumQueue, self.rejected()),
            object(Kind::FanoutExchange, self.bus()),
            object(Kind::TopicExchange, self.events()),
        ]
    }

    /// Makes what is missing, the streams of the partitions included; gives everything there is,
    /// with what was there before.
    pub async fn set_up(&self) -> Result<Vec<Found>, TopologyError> {
        let (mut found, known) = self
            .connected(async |connection| {
                let found = self.look(connection).await?;
                let meta = self.meta();
                let known = match found
                    .iter()
                    .any(|of| of.object.name == meta && of.was_there)
                {
                    true => Some(self.read(connection).await?),
                    false => None,
                };
                Ok((found, known))
            })
            .await?;
        let generations = self.establish().await?;
        for (partition, generation) in (0..).zip(&generations) {
            let before = known.as_ref().and_then(|known| known.current(partition));
            found.push(self.found_stream(partition, generation, before == Some(generation)));
        }
        Ok(found)
    }

    /// Which of the objects are there. Changes nothing.
    pub(super) async fn look(&self, connection: &Connection) -> Result<Vec<Found>, TopologyError> {
        let mut found = Vec::new();
        for object in self.objects() {
            let was_there = match object.kind {
                Kind::Stream | Kind::QuorumQueue => queue_exists(connection, &object.name).await?,
                Kind::DirectExchange | Kind::FanoutExchange | Kind::TopicExchange => {
                    exchange_exists(connection, &object.name).await?
                }
            };
            found.push(Found { object, was_there });
        }
        Ok(found)
    }

    fn found_stream(&self, partition: u16, generation: &Generation, was_there: bool) -> Found {
        Found {
            object: Object {
                kind: Kind::Stream,
                name: self.stream(partition, generation),
            },
            was_there,
        }
    }
}
