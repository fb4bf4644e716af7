//! Tells whoever watches how far it is.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    plan::Plan,
    world::{Counts, World},
};

/// Between two lines where nobody sees a bar.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

pub struct Progress {
    bar: ProgressBar,
    start: Instant,
    plan: Plan,
    /// Lines written so far.
    lines: AtomicU64,
}

impl Progress {
    pub fn begin(plan: &Plan) -> Self {
        let target = match plan.watched {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(plan.duration.as_secs()), target);
        let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {msg}");
        bar.set_style(style.expect("the template is right"));
        Self {
            bar,
            start: Instant::now(),
            plan: plan.clone(),
            lines: AtomicU64::new(0),
        }
    }

    /// Something happened.
    pub fn says(&self, what: &str) {
        let elapsed = self.start.elapsed().as_secs();
        let line = format!("{:>3}:{:02} {what}", elapsed / 60, elapsed % 60);
        match self.bar.is_hidden() {
            true => println!("{line}"),
            false => self.bar.println(line),
        }
    }

    /// Shows the counts; to be called often.
    pub fn shows(&self, world: &World) {
        let get = Counts::get;
        let counts = &world.counts;
        let message = format!(
            "{} published, {} delivered, {} moves, {} replays",
            get(&counts.published),
            get(&counts.delivered),
            get(&counts.moves),
            get(&counts.replays)
        );
        let elapsed = self.start.elapsed();
        if self.bar.is_hidden() {
            let due = elapsed.as_secs() / LINE_INTERVAL.as_secs();
            if self.plan.watched && self.lines.fetch_max(due, Ordering::Relaxed) < due {
                self.says(&message);
            }
        } else {
            let whole = self.plan.duration.as_secs();
            self.bar.set_position(elapsed.as_secs().min(whole));
            self.bar.set_message(message);
        }
    }

    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
