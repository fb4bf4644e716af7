//! Who subscribes to what, and who publishes where. Pure.

use crate::delta::RoomName;

/// One room of the run.
#[derive(Debug, PartialEq, Eq)]
pub struct Room {
    pub name: RoomName,
    pub subscribers: usize,
    /// How many publishers share the room; each has its own numbers there.
    pub lanes: usize,
}

/// The rooms of a run. Subscribers and publishers are spread evenly.
#[derive(Debug)]
pub struct Plan {
    pub rooms: Vec<Room>,
    publishers: usize,
}

impl Plan {
    /// `run` makes the names of the rooms different from those of any other run.
    pub fn new(run: &str, rooms: usize, subscribers: usize, publishers: usize) -> Self {
        let room = |index: usize| Room {
            name: RoomName::new(&format!("bench-{run}-{index}"))
                .expect("letters, digits and dashes make a room name"),
            subscribers: share(subscribers, rooms, index),
            lanes: share(publishers, rooms, index).max(1),
        };
        Self {
            rooms: (0..rooms).map(room).collect(),
            publishers,
        }
    }

    pub fn room_of_subscriber(&self, subscriber: usize) -> usize {
        subscriber % self.rooms.len()
    }

    /// The rooms that a publisher publishes to, and its lane in all of them.
    ///
    /// Two publishers never share a lane: requests of different connections have no order.
    pub fn beat_of(&self, publisher: usize) -> (Vec<usize>, u16) {
        let rooms = self.rooms.len();
        let lane = u16::try_from(publisher / rooms).expect("publishers are at most 1,000");
        let first = publisher % rooms;
        ((first..rooms).step_by(self.publishers).collect(), lane)
    }
}

fn share(things: usize, among: usize, index: usize) -> usize {
    things / among + usize::from(index < things % among)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_lane_of_every_room_has_exactly_one_publisher(
            rooms in 1_usize..50, publishers in 1_usize..50,
        ) {
            let plan = Plan::new("x", rooms, 1000, publishers);
            let mut lanes: Vec<Vec<u16>> = vec![Vec::new(); rooms];
            for publisher in 0..publishers {
                let (beat, lane) = plan.beat_of(publisher);
                for room in beat {
                    lanes[room].push(lane);
                }
            }
            for (room, mut lanes) in plan.rooms.iter().zip(lanes) {
                lanes.sort();
                prop_assert_eq!(lanes, (0..room.lanes as u16).collect::<Vec<_>>());
            }
        }

        #[test]
        fn subscribers_are_spread_evenly(rooms in 1_usize..50, more in 0_usize..200) {
            let subscribers = rooms + more;
            let plan = Plan::new("x", rooms, subscribers, 1);
            let mut seated = vec![0; rooms];
            for subscriber in 0..subscribers {
                seated[plan.room_of_subscriber(subscriber)] += 1;
            }
            let planned: Vec<usize> = plan.rooms.iter().map(|room| room.subscribers).collect();
            prop_assert_eq!(&seated, &planned);
            prop_assert!(seated[0] - seated[rooms - 1] <= 1);
        }
    }
}
