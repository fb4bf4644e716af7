//! What drives presence: time.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    actors::{Services, presence::PresenceNews},
    config::Config,
    presence::core::Settings,
};

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(50);

pub fn settings(config: &Config, shared: bool) -> Settings {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let of = &config.presence;
    Settings {
        grace: ms(of.leave_grace),
        max_members: of.max_members,
        beat: ms(of.beat),
        user_events: of.user_events && shared,
        shared,
    }
}

/// Does what is due, for ever.
pub async fn run(services: Arc<Services>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tick(&services);
    }
}

fn tick(services: &Services) {
    let output = services.presence.with(|core, now| core.tick(now));
    for room in &output.rooms {
        // A room that is full is asked again; one that is not in memory has nobody to tell.
        services.registry.pass(room, PresenceNews);
    }
    services.presence.with(|core, _| {
        let figures = services.metrics.presence();
        figures.presence(core.peers(), core.due(), core.take_dropped());
    });
}
