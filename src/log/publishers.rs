//! The publishers of all partitions as one.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{
    publisher::{NewDelta, PublishError, Published, Publisher},
    tenure::Tenure,
};
use crate::delta::{Erasure, RoomName, partition_of};

/// Publishes each delta to the partition of its room. Cheap to clone.
#[derive(Clone)]
pub struct Publishers(Arc<[Publisher]>);

impl Publishers {
    /// `publishers` are those of all partitions in their order; at least one.
    pub fn new(publishers: Vec<Publisher>) -> Self {
        assert!(!publishers.is_empty(), "a log has a partition");
        Self(publishers.into())
    }

    /// A tenure over all partitions, which nobody has heard of yet; none of a log that nobody shares.
    pub fn begin_tenure(&self) -> Option<Tenure> {
        Tenure::new(&self.0)
    }

    /// Why some partition takes nothing at the moment, if its log would.
    pub fn refusal(&self) -> Option<PublishError> {
        self.0.iter().find_map(Publisher::refusal)
    }

    /// Takes deltas of a room back, and waits until they are erased here or that is safe in the log.
    pub async fn erase(&self, room: RoomName, erasure: Erasure) -> Result<Published, PublishError> {
        let partitions = u16::try_from(self.0.len()).expect("partitions are numbered by u16");
        let publisher = &self.0[usize::from(partition_of(&room, partitions))];
        publisher.erase(room, erasure).await
    }

    /// Publishes all of `deltas`, those of a room in their order, and waits until each is safe or
    /// refused; one result a delta, in their order.
    pub async fn publish(&self, deltas: Vec<NewDelta>) -> Vec<Result<Published, PublishError>> {
        if let [only] = &*self.0 {
            return only.publish(deltas).await;
        }
        let count = deltas.len();
        let partitions = u16::try_from(self.0.len()).expect("partitions are numbered by u16");
        let mut parts: Vec<(Vec<usize>, Vec<NewDelta>)> = vec![Default::default(); self.0.len()];
        for (index, delta) in deltas.into_iter().enumerate() {
            let (indexes, part) = &mut parts[usize::from(partition_of(&delta.room, partitions))];
            indexes.push(index);
            part.push(delta);
        }
        let meant = self
            .0
            .iter()
            .zip(parts)
            .filter(|(_, (indexes, _))| !indexes.is_empty());
        let publish = |(publisher, (indexes, part)): (&Publisher, (Vec<usize>, Vec<NewDelta>))| {
            let publisher = publisher.clone();
            async move { (indexes, publisher.publish(part).await) }
        };
        let mut results = vec![Err(PublishError::OutcomeUnknown); count];
        for (indexes, part) in join_all(meant.map(publish)).await {
            for (index, result) in indexes.into_iter().zip(part) {
                results[index] = result;
            }
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{
        Event, Next, OrderedLog,
        embedded::{EmbeddedLog, QueueBounds},
        publisher::{Placed, Source},
    };
    use bytes::Bytes;
    use std::time::Duration;

    #[tokio::test]
    async fn a_batch_over_several_partitions_is_answered_in_its_order() {
        let bounds = QueueBounds {
            records: 100,
            bytes: 10_000,
        };
        let logs: Vec<_> = (0..3)
            .map(|_| Arc::new(EmbeddedLog::new(1, bounds)))
            .collect();
        let publisher =
            |log: &Arc<EmbeddedLog>| Publisher::new(log.clone(), Duration::from_secs(9));
        let each: Vec<_> = logs.iter().map(publisher).collect();
        let publishers = Publishers::new(each.clone());
        let rooms: Vec<_> = (0..30)
            .map(|n| RoomName::new(&format!("room{}", n % 10)).unwrap())
            .collect();
        let deltas = (0..).zip(&rooms).map(|(n, room): (usize, _)| NewDelta {
            room: room.clone(),
            body: Bytes::from(n.to_string()),
            key: Some(n.to_string().into()),
            info: Bytes::new(),
            exclude: None,
        });
        // The time of an answer says which record it is for.
        let answer = async {
            let mut partitions_used = 0;
            for (partition, (log, publisher)) in (0..).zip(logs.iter().zip(&each)) {
                let Next::Batch(batch) = log.next(Duration::ZERO) else {
                    continue;
                };
                partitions_used += 1;
                let mut last = std::collections::HashMap::new();
                for (_, record) in batch.iter().filter_map(Event::delta) {
                    assert_eq!(partition_of(&record.room, 3), partition);
                    let number: u64 = record.id.parse().unwrap();
                    assert!(last.insert(record.room.clone(), number) < Some(number));
                }
                let answers = batch.iter().map(|event| {
                    let (offset, record) = event.delta().unwrap();
                    let placed = Placed {
                        offset,
                        time: record.id.parse().unwrap(),
                        epoch: partition.to_string().into(),
                        repeated: false,
                        found: true,
                    };
                    (Source::of(event).unwrap(), Ok(placed))
                });
                publisher.answers().give(answers);
            }
            partitions_used
        };
        let (results, used) = tokio::join!(publishers.publish(deltas.collect()), answer);
        assert_eq!(used, 3);
        for ((n, room), result) in (0..).zip(&rooms).zip(results) {
            let published = result.unwrap();
            assert_eq!((published.time, &published.room), (n, room));
        }
    }
}
