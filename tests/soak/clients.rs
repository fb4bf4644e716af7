//! Clients that go from instance to instance, as the official SDKs do it: with the positions of
//! their rooms, and a pause after a failure.

use std::{
    collections::HashMap,
    convert::Infallible,
    io, iter,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::{
    common::{
        Socket, View,
        client::messages,
        socket::{CLOSE, Frame, TEXT, close_of},
    },
    plan::Plan,
    publishers::now_ms,
    random::Random,
    world::{Counts, IMPATIENCE, World},
};

/// Between two attempts to connect.
const BACKOFF: Duration = Duration::from_millis(100);

/// Between two looks at the time.
const LOOK: Duration = Duration::from_millis(200);

/// How long a client waits for the answers to its subscribes.
const ANSWER_PATIENCE: Duration = Duration::from_secs(8);

/// A ping has to come before: the interval, and what an SDK adds to it.
const SILENCE: Duration = Duration::from_secs(20);

/// The commands that are subscribes follow this number.
const FIRST_SUBSCRIBE: usize = 2;

/// How long a client waits for the last deltas when nobody publishes any more.
const LAST_WAIT: Duration = Duration::from_secs(60);

/// Every n-th client stays where it is as long as it can.
const RESIDENTS: usize = 5;

/// The last offset of each room, set when nobody publishes any more.
pub type Goal = OnceLock<HashMap<String, u64>>;

/// A client of the run and what it saw.
pub struct Client<'a> {
    world: &'a World,
    goal: &'a Goal,
    random: Random,
    stays: bool,
    pub views: Vec<View>,
    /// What it was told that no client may be told.
    pub wrong: Vec<String>,
    /// Times that it lost a connection against its will.
    pub lost: u64,
    /// From leaving until all rooms were followed again.
    pub slowest_return: Duration,
    /// From publishing to the client, in ms, for what came while all its rooms were followed.
    pub latency: Histogram<u64>,
    /// Since when it has not followed all its rooms.
    away: Option<Instant>,
    /// Since when it waits for the last deltas.
    waits: Option<Instant>,
}

/// Why a client does not stay at an instance.
enum Left {
    /// It has seen all that there is, or gives up.
    ForGood,
    ItsOwnWish,
    Lost,
}

impl From<io::Error> for Left {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

impl<'a> Client<'a> {
    pub fn new(world: &'a World, plan: &Plan, goal: &'a Goal, number: usize) -> Self {
        let mut random = Random::new(plan.seed.wrapping_mul(31) + number as u64);
        let first = random.below(plan.rooms as u64);
        let rooms = (0..plan.followed as u64).map(|n| (first + n * 7) % plan.rooms as u64);
        Self {
            world,
            goal,
            views: rooms.map(|room| View::new(&Plan::room(room))).collect(),
            random,
            stays: number.is_multiple_of(RESIDENTS),
            wrong: Vec::new(),
            lost: 0,
            slowest_return: Duration::ZERO,
            latency: Histogram::new(3).expect("three digits are allowed"),
            away: None,
            waits: None,
        }
    }

    /// Lives until it has seen the goal, or has waited for it too long.
    pub fn run(mut self) -> Self {
        loop {
            self.away.get_or_insert_with(Instant::now);
            match self.visit() {
                Left::ForGood => return self,
                Left::ItsOwnWish => {}
                Left::Lost => {
                    self.lost += 1;
                    thread::sleep(BACKOFF);
                }
            }
            Counts::add(&self.world.counts.moves, 1);
        }
    }

    fn visit(&mut self) -> Left {
        match self.stay() {
            Ok(never) => match never {},
            Err(left) => left,
        }
    }

    fn stay(&mut self) -> Result<Infallible, Left> {
        self.look_at_goal()?;
        let address = self.world.any(&mut self.random);
        let mut socket = Socket::try_open(address, IMPATIENCE)?;
        let commands: Vec<String> = iter::once(json!({"id": 1, "connect": {}}))
            .chain((0..self.views.len()).map(|n| self.subscribe(n)))
            .map(|command| command.to_string())
            .collect();
        say(&mut socket, &commands.join("\n"))?;
        let mut following = vec![false; self.views.len()];
        let came = Instant::now();
        let leaves = match self.stays {
            true => None,
            false => Some(came + Duration::from_millis(500 + self.random.below(10_000))),
        };
        let mut heard = came;
        loop {
            self.look_at_goal()?;
            if self.waits.is_none() && leaves.is_some_and(|leaves| Instant::now() > leaves) {
                return Err(Left::ItsOwnWish);
            }
            let answers = self.away.is_none() || came.elapsed() < ANSWER_PATIENCE;
            if !answers || heard.elapsed() > SILENCE {
                return Err(Left::Lost);
            }
            if !socket.frame_comes(LOOK)? {
                continue;
            }
            heard = Instant::now();
            let frame = socket.try_read()?;
            match frame.opcode {
                TEXT => {
                    for message in messages(frame.text()) {
                        self.take(&message, &mut following, &mut socket)?;
                    }
                }
                CLOSE => {
                    self.closed(close_of(&frame));
                    return Err(Left::Lost);
                }
                _ => {}
            }
        }
    }

    fn look_at_goal(&mut self) -> Result<(), Left> {
        let Some(goal) = self.goal.get() else {
            return Ok(());
        };
        let waits = *self.waits.get_or_insert_with(Instant::now);
        let has_all = |view: &View| goal.get(&view.room).is_none_or(|last| view.offset >= *last);
        match self.views.iter().all(has_all) || waits.elapsed() > LAST_WAIT {
            true => Err(Left::ForGood),
            false => Ok(()),
        }
    }

    fn subscribe(&self, which: usize) -> Value {
        let view = &self.views[which];
        let mut request = json!({"channel": view.room, "recoverable": true});
        if view.joined() {
            Counts::add(&self.world.counts.replays, 1);
            request["recover"] = true.into();
            request["offset"] = view.offset.into();
            request["epoch"] = view.epoch.clone().into();
        }
        json!({"id": which + FIRST_SUBSCRIBE, "subscribe": request})
    }

    fn take(
        &mut self,
        message: &Value,
        following: &mut [bool],
        socket: &mut Socket,
    ) -> Result<(), Left> {
        if message.as_object().is_some_and(|fields| fields.is_empty()) {
            return say(socket, "{}");
        }
        if let Some(error) = message.get("error") {
            // What is temporary is tried again elsewhere.
            if error["temporary"] != true {
                self.wrong.push(format!("told {message}"));
            }
            return Err(Left::Lost);
        }
        if let Some(result) = message.get("subscribe") {
            let id = message["id"].as_u64().expect("a reply has the id");
            self.subscribed(id as usize - FIRST_SUBSCRIBE, result, following);
            return Ok(());
        }
        let push = &message["push"];
        let Some(which) = self
            .views
            .iter()
            .position(|view| push["channel"] == view.room)
        else {
            return Ok(());
        };
        if push["pub"].is_object() {
            self.publication(which, &push["pub"], following);
        } else if push["unsubscribe"].is_object() {
            following[which] = false;
            self.away.get_or_insert_with(Instant::now);
            return say(socket, &self.subscribe(which).to_string());
        }
        Ok(())
    }

    fn subscribed(&mut self, which: usize, result: &Value, following: &mut [bool]) {
        let view = &mut self.views[which];
        let had = (view.joined(), view.epoch.clone());
        view.subscribed(result);
        Counts::add(&self.world.counts.delivered, count(&result["publications"]));
        if had.0 && had.1 != view.epoch {
            let (room, epoch) = (&view.room, &view.epoch);
            let wrong = format!("{room}: epoch {epoch} after {}", had.1);
            self.wrong.push(wrong);
        }
        following[which] = true;
        if following.iter().all(|is| *is)
            && let Some(since) = self.away.take()
        {
            self.slowest_return = self.slowest_return.max(since.elapsed());
        }
    }

    fn publication(&mut self, which: usize, publication: &Value, following: &[bool]) {
        if !following[which] {
            self.wrong
                .push(format!("a push before its reply: {publication}"));
        }
        if self.away.is_none()
            && let Some(published) = publication["data"]["t"].as_u64()
        {
            // Clocks of one machine; the same millisecond counts as one.
            let took = now_ms().saturating_sub(published).max(1);
            let recorded = self.latency.record(took);
            recorded.expect("it grows with what it has to hold");
        }
        Counts::add(&self.world.counts.delivered, 1);
        self.views[which].publication(publication);
    }

    /// A server may only end what the client comes back from.
    fn closed(&mut self, (code, reason): (u16, String)) {
        if matches!(code, 3500..4000 | 4500..5000) {
            self.wrong.push(format!("closed for good: {code} {reason}"));
        }
    }
}

fn say(socket: &mut Socket, line: &str) -> Result<(), Left> {
    let frame = Frame::new(TEXT, line);
    Ok(socket.send_bytes(&frame.masked())?)
}

fn count(list: &Value) -> u64 {
    list.as_array().map_or(0, |items| items.len() as u64)
}
