//! What goes wrong in a run, one after the other.

use std::{thread, time::Duration};

use crate::{
    plan::{INSTANCES, NODES, Plan},
    random::Random,
    world::World,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The broker node that leads the streams is killed and returns.
    LeaderKilled,
    /// All broker nodes are killed and return.
    BrokersRestarted,
    /// So many broker nodes are killed that the others can't confirm; they return.
    MajorityLost,
    /// A broker node keeps its connections and answers nothing for a while.
    BrokerFrozen,
    /// The brokers take no publishes for a while.
    MemoryAlarm,
    /// An instance is killed and returns.
    InstanceKilled,
    /// An instance is asked to stop and returns.
    InstanceStopped,
    /// An instance loses its connections to the brokers, and opens no new ones for a while.
    InstanceCutOff,
    /// What an instance and the brokers say to each other does not arrive for a while.
    InstanceUnheard,
    /// The instance that takes in what comes through the exchange is frozen for a while.
    InstanceFrozen,
}

/// How a fault went.
#[derive(Debug, Clone)]
pub struct Account {
    pub fault: Fault,
    /// From the strike until all instances published again, where that needs no healing.
    pub without_healing: Option<Duration>,
    /// From the healing until all instances published again.
    pub after: Duration,
}

impl Fault {
    pub const ALL: [Self; 10] = [
        Self::LeaderKilled,
        Self::BrokersRestarted,
        Self::MajorityLost,
        Self::BrokerFrozen,
        Self::MemoryAlarm,
        Self::InstanceKilled,
        Self::InstanceStopped,
        Self::InstanceCutOff,
        Self::InstanceUnheard,
        Self::InstanceFrozen,
    ];

    /// What may happen to an instance while this lasts, and both can be healed in any order.
    pub fn companion(self, random: &mut Random) -> Option<Self> {
        let companions: &[Self] = match self {
            // Two nodes of three are enough for an instance to start.
            Self::LeaderKilled => &[
                Self::InstanceKilled,
                Self::InstanceStopped,
                Self::InstanceCutOff,
                Self::InstanceUnheard,
                Self::InstanceFrozen,
            ],
            Self::BrokersRestarted
            | Self::MajorityLost
            | Self::BrokerFrozen
            | Self::MemoryAlarm => &[
                Self::InstanceCutOff,
                Self::InstanceUnheard,
                Self::InstanceFrozen,
            ],
            _ => &[],
        };
        let which = random.below(companions.len().max(1) as u64) as usize;
        companions.get(which).copied()
    }

    /// Does it, heals it, and waits until all instances publish.
    pub fn strike(self, world: &World, plan: &Plan, random: &mut Random) -> Account {
        let instance = random.below(INSTANCES as u64) as usize;
        let hold = || thread::sleep(plan.outage);
        let mut without_healing = None;
        match self {
            Self::LeaderKilled => {
                let node = world.broker.leader(&world.prefix);
                world.broker.kill(node);
                without_healing = Some(world.await_publishing());
                world.broker.restart(node);
            }
            Self::BrokersRestarted => {
                world.broker.kill_all();
                world.broker.restart_all();
            }
            Self::MajorityLost => {
                let stays = 1 + random.below(NODES as u64) as usize;
                let killed: Vec<usize> = (1..=NODES).filter(|node| *node != stays).collect();
                killed.iter().for_each(|node| world.broker.kill(*node));
                hold();
                world.broker.restart_these(&killed);
            }
            Self::BrokerFrozen => {
                let node = 1 + random.below(NODES as u64) as usize;
                world.broker.pause(node);
                hold();
                world.broker.resume(node);
            }
            Self::MemoryAlarm => {
                world.broker.alarm(true);
                hold();
                world.broker.alarm(false);
            }
            Self::InstanceKilled => {
                let mut server = world.server(instance);
                server.kill9();
                server.restart();
            }
            Self::InstanceStopped => {
                let mut server = world.server(instance);
                assert!(server.stop().success(), "instance {instance} stops badly");
                server.restart();
            }
            Self::InstanceCutOff => {
                world.lines(instance).iter().for_each(|line| line.cut());
                hold();
                world.lines(instance).iter().for_each(|line| line.mend());
            }
            Self::InstanceUnheard => {
                world.lines(instance).iter().for_each(|line| line.silence());
                hold();
                world.lines(instance).iter().for_each(|line| line.mend());
            }
            Self::InstanceFrozen => {
                let holder = world.holder().unwrap_or(instance);
                world.server(holder).pause();
                hold();
                world.server(holder).resume();
            }
        }
        Account {
            fault: self,
            without_healing,
            after: world.await_publishing(),
        }
    }
}

/// All faults in an order of chance.
pub fn shuffled(random: &mut Random) -> Vec<Fault> {
    let mut faults = Fault::ALL.to_vec();
    for last in (1..faults.len()).rev() {
        faults.swap(last, random.below(last as u64 + 1) as usize);
    }
    faults
}
