//! Which generation of each partition is current. Pure: a fold over the records of one stream,
//! which every instance reads from its start, so that all come to the same result however they
//! raced.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Generation;

/// A generation that nobody else has; its id says when it was made.
pub fn new_generation() -> Generation {
    Uuid::now_v7().simple().to_string().into()
}

/// When a generation was made by its maker's clock, in ms since the Unix epoch.
pub fn made_at(generation: &Generation) -> Option<u64> {
    let (seconds, nanos) = Uuid::try_parse(generation).ok()?.get_timestamp()?.to_unix();
    Some(seconds * 1_000 + u64::from(nanos) / 1_000_000)
}

/// A record of the stream of generations, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaRecord {
    Generation(Proposal),
    /// Says nothing; whoever reads its own has read everything before it.
    Marker(String),
}

/// Proposes a generation for what comes behind another. The first proposal wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    pub partition: u16,
    /// How many there are; the first record of all fixes it.
    pub partitions: u16,
    pub generation: Generation,
    /// What the proposer found to be current; nothing at the very beginning.
    pub predecessor: Option<Generation>,
}

/// The outcome of all proposals so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generations {
    partitions: Option<u16>,
    current: HashMap<u16, Generation>,
}

impl Generations {
    pub fn apply(&mut self, proposal: Proposal) {
        let partitions = *self.partitions.get_or_insert(proposal.partitions);
        let current = self.current.get(&proposal.partition);
        if proposal.partitions == partitions
            && proposal.partition < partitions
            && proposal.predecessor.as_ref() == current
        {
            self.current.insert(proposal.partition, proposal.generation);
        }
    }

    /// How many partitions there are, once somebody has proposed anything.
    pub fn partitions(&self) -> Option<u16> {
        self.partitions
    }

    pub fn current(&self, partition: u16) -> Option<&Generation> {
        self.current.get(&partition)
    }

    /// A proposal for what comes behind the current generation.
    pub fn propose(&self, partition: u16, partitions: u16, generation: Generation) -> Proposal {
        Proposal {
            partition,
            partitions,
            generation,
            predecessor: self.current(partition).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::publisher::wall_clock_ms;
    use proptest::prelude::*;

    fn proposal(partition: u16, generation: &str, predecessor: Option<&str>) -> Proposal {
        Proposal {
            partition,
            partitions: 4,
            generation: generation.into(),
            predecessor: predecessor.map(Into::into),
        }
    }

    fn fold(proposals: impl IntoIterator<Item = Proposal>) -> Generations {
        let mut generations = Generations::default();
        proposals
            .into_iter()
            .for_each(|proposal| generations.apply(proposal));
        generations
    }

    #[test]
    fn a_generation_tells_when_it_was_made() {
        let before = wall_clock_ms();
        let (one, other) = (new_generation(), new_generation());
        let made = made_at(&one).unwrap();
        assert!((before..=wall_clock_ms()).contains(&made));
        assert_ne!(one, other);
        assert_eq!(made_at(&"of another kind".into()), None);
    }

    #[test]
    fn the_first_who_names_a_predecessor_wins() {
        let generations = fold([
            proposal(0, "a", None),
            proposal(0, "b", None),
            proposal(0, "c", Some("b")),
            proposal(0, "d", Some("a")),
            proposal(0, "e", Some("a")),
        ]);
        assert_eq!(generations.current(0).map(|g| &**g), Some("d"));
        assert_eq!(generations.current(1), None);
    }

    #[test]
    fn the_first_record_fixes_the_number_of_partitions() {
        let other = Proposal {
            partitions: 8,
            ..proposal(1, "b", None)
        };
        let outside = proposal(4, "c", None);
        let generations = fold([proposal(0, "a", None), other, outside]);
        assert_eq!(generations.partitions(), Some(4));
        assert_eq!(generations.current(1), None);
        assert_eq!(generations.current(4), None);
    }

    #[test]
    fn records_are_json_that_people_can_read() {
        let record = MetaRecord::Generation(proposal(1, "b", Some("a")));
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(
            json,
            r#"{"generation":{"partition":1,"partitions":4,"generation":"b","predecessor":"a"}}"#
        );
        assert_eq!(serde_json::from_str::<MetaRecord>(&json).unwrap(), record);
    }

    proptest! {
        /// Instances read prefixes of any length, propose, and append in any order.
        #[test]
        fn however_instances_race_all_agree_and_a_winner_stays_until_it_is_replaced(
            steps in prop::collection::vec((0_usize..5, 0_u16..3, any::<bool>()), 1..60),
        ) {
            let mut log: Vec<Proposal> = Vec::new();
            let mut views = vec![Generations::default(); 5];
            for (number, (instance, partition, reads)) in steps.into_iter().enumerate() {
                if reads {
                    views[instance] = fold(log.iter().cloned());
                } else {
                    let generation = format!("g{number}");
                    log.push(views[instance].propose(partition, 3, generation.into()));
                }
            }
            // Every generation that ever was current is the only one behind its predecessor.
            let mut seen = Generations::default();
            let mut chains: HashMap<u16, Vec<Generation>> = HashMap::new();
            for proposal in &log {
                let before = seen.current(proposal.partition).cloned();
                seen.apply(proposal.clone());
                let after = seen.current(proposal.partition).cloned();
                if after != before {
                    prop_assert_eq!(&proposal.predecessor, &before);
                    chains.entry(proposal.partition).or_default().extend(after);
                }
            }
            for (partition, chain) in chains {
                let mut distinct = chain.clone();
                distinct.sort();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), chain.len());
                prop_assert_eq!(seen.current(partition), chain.last());
            }
        }
    }
}
