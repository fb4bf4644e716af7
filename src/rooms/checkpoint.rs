//! How far a partition of the log is applied, and what that says about what comes next.

use super::{
    layout::{Fields, FirstSeen, VERSION},
    producers::{Gap, Last, Producers},
    store::StoreError,
};
use crate::log::{
    Event, Place, Record,
    record::{Entry, Identity},
};

/// Up to where a partition of the log is applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything up to here is applied, or can't be read any more.
    pub offset: u64,
    /// The running maximum of the applied entries' stamps.
    pub clock: u64,
    pub floor: Floor,
    /// The last applied entry.
    pub place: Option<Place>,
    pub producers: Producers,
}

/// Below what a partition can't be read any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Floor {
    /// Nothing at or below it is shown; 0 for everything is.
    pub offset: u64,
    /// What is not shown is not younger, in log time.
    pub time: u64,
}

impl Checkpoint {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let mut number = |number: u64| out.extend_from_slice(&number.to_be_bytes());
        number(self.offset);
        number(self.clock);
        number(self.floor.offset);
        number(self.floor.time);
        number(match self.producers.gap {
            Gap::None => 0,
            Gap::Open => u64::MAX,
            Gap::Until(end) => end,
        });
        out.push(u8::from(self.place.is_some()));
        if let Some(place) = self.place {
            out.extend_from_slice(&place.position.to_be_bytes());
            out.extend_from_slice(&place.identity.to_bytes());
        }
        out.push(u8::from(self.producers.tenure.is_some()));
        if let Some(tenure) = self.producers.tenure {
            out.extend_from_slice(&tenure.to_be_bytes());
        }
        for (producer, last) in &self.producers.known {
            out.extend_from_slice(&producer.to_be_bytes());
            out.extend_from_slice(&last.sequence.to_be_bytes());
            out.extend_from_slice(&last.time.to_be_bytes());
        }
        out
    }

    pub fn decode(key: &[u8], record: &[u8]) -> Result<Self, StoreError> {
        let mut fields = Fields::versioned(key, record)?;
        let (offset, clock) = (fields.u64()?, fields.u64()?);
        let floor = Floor {
            offset: fields.u64()?,
            time: fields.u64()?,
        };
        let gap = match fields.u64()? {
            0 => Gap::None,
            u64::MAX => Gap::Open,
            end => Gap::Until(end),
        };
        let place = match fields.u8()? {
            0 => None,
            _ => Some(Place {
                position: fields.u64()?,
                identity: Identity::from_bytes(fields.array()?),
            }),
        };
        let tenure = match fields.u8()? {
            0 => None,
            _ => Some(u128::from_be_bytes(fields.array()?)),
        };
        let mut producers = Producers {
            tenure,
            gap,
            ..Producers::default()
        };
        while !fields.rest.is_empty() {
            let producer = u128::from_be_bytes(fields.array()?);
            let (sequence, time) = (fields.u64()?, fields.u64()?);
            producers.known.insert(producer, Last { sequence, time });
        }
        Ok(Self {
            offset,
            clock,
            floor,
            place,
            producers,
        })
    }

    /// Moves behind `event`; gives the delta in it and where it is, if it is one that counts.
    pub fn advance<'a>(&mut self, event: &'a Event) -> Option<(&'a Record, FirstSeen)> {
        let (position, entry) = match event {
            Event::Entry { position, entry } => (*position, entry),
            Event::Floor(floor) if *floor > self.floor.offset => {
                self.offset = self.offset.max(*floor);
                self.floor = Floor {
                    offset: *floor,
                    time: u64::MAX,
                };
                self.producers.gap();
                return None;
            }
            // A new life begins with another checkpoint.
            Event::Floor(_) | Event::Replaced(_) => return None,
        };
        debug_assert!(position > self.offset, "positions grow strictly");
        self.offset = position;
        // A clock that is ahead must not make everybody forget keys. Whoever has it publishes no
        // deltas, and yet beats, fences and seals.
        if matches!(entry, Entry::Delta { .. }) {
            self.clock = self.clock.max(entry.stamped());
            self.producers.tick(self.clock);
        }
        let latest = self.clock.max(entry.stamped());
        self.floor.time = self.floor.time.min(latest);
        self.place = Some(Place {
            position,
            identity: entry.identity(),
        });
        match entry {
            Entry::Delta { record, tenure } => {
                let (producer, sequence) = (record.producer, record.sequence);
                let here = FirstSeen {
                    offset: position,
                    time: self.clock,
                };
                self.producers
                    .counts(producer, sequence, *tenure, self.clock)
                    .then_some((record, here))
            }
            Entry::Fence(fence) => {
                self.producers.fence(fence.tenure);
                None
            }
            Entry::Heartbeat(_) | Entry::Seal(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_checkpoint_is_read_as_it_was_written_and_its_torn_end_never(
            numbers: [u64; 4],
            known in prop::collection::btree_map(any::<u128>(), any::<(u64, u64)>(), 0..4),
            tenure: Option<u128>,
            place: Option<(u64, [u8; Identity::BYTES])>,
            gap in prop_oneof![Just(Gap::None), Just(Gap::Open), (1..u64::MAX).prop_map(Gap::Until)],
        ) {
            let last = |(sequence, time)| Last { sequence, time };
            let [offset, clock, floor, time] = numbers;
            let checkpoint = Checkpoint {
                offset,
                clock,
                floor: Floor { offset: floor, time },
                place: place.map(|(position, identity)| Place {
                    position,
                    identity: Identity::from_bytes(identity),
                }),
                producers: Producers {
                    known: known.into_iter().map(|(id, known)| (id, last(known))).collect(),
                    tenure,
                    gap,
                },
            };
            let record = checkpoint.encode();
            prop_assert!(Checkpoint::decode(b"c", &record[..record.len() - 1]).is_err());
            prop_assert_eq!(Checkpoint::decode(b"c", &record).unwrap(), checkpoint);
        }
    }
}
