//! Until when the tokens that a client has shown count.

/// Seconds behind the end of a token in which its client may still refresh it.
const GRACE: u64 = 25;

/// Ends are in seconds since the Unix epoch. What lasts for ever is not here.
#[derive(Debug, Default)]
pub struct Deadlines {
    connection: Option<u64>,
    /// By the numbers of subscriptions.
    subscriptions: Vec<(u32, u64)>,
}

/// What has ended, for good.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    Connection,
    Subscription(u32),
}

impl Deadlines {
    pub fn set_connection(&mut self, end: Option<u64>) {
        self.connection = end;
    }

    pub fn set_subscription(&mut self, number: u32, end: Option<u64>) {
        self.forget(number);
        self.subscriptions.extend(end.map(|end| (number, end)));
    }

    pub fn forget(&mut self, number: u32) {
        self.subscriptions.retain(|(known, _)| *known != number);
    }

    /// When something ends next unless it is refreshed.
    pub fn next(&self) -> Option<u64> {
        let ends = self.subscriptions.iter().map(|(_, end)| *end);
        let first = ends.chain(self.connection).min();
        first.map(|end| end.saturating_add(GRACE))
    }

    /// Takes one that has ended at `now`, the connection first.
    pub fn take_ended(&mut self, now: u64) -> Option<Ended> {
        let over = |end: u64| end.saturating_add(GRACE) <= now;
        if self.connection.is_some_and(over) {
            self.connection = None;
            return Some(Ended::Connection);
        }
        let at = self.subscriptions.iter().position(|(_, end)| over(*end))?;
        let (number, _) = self.subscriptions.swap_remove(at);
        Some(Ended::Subscription(number))
    }
}

/// Seconds from `now` to `end`, at least one: SDKs take none for an error.
pub fn ttl(end: u64, now: u64) -> u32 {
    let left = end.saturating_sub(now).max(1);
    u32::try_from(left).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_refreshed_ends_some_time_behind_its_token() {
        let mut deadlines = Deadlines::default();
        assert_eq!(deadlines.next(), None);
        deadlines.set_connection(Some(100));
        deadlines.set_subscription(1, Some(90));
        deadlines.set_subscription(2, None);
        assert_eq!(deadlines.next(), Some(90 + GRACE));
        assert_eq!(deadlines.take_ended(90 + GRACE - 1), None);
        assert_eq!(
            deadlines.take_ended(90 + GRACE),
            Some(Ended::Subscription(1))
        );
        assert_eq!(deadlines.next(), Some(100 + GRACE));
        deadlines.set_connection(Some(200));
        assert_eq!(deadlines.take_ended(100 + GRACE), None);
        deadlines.set_subscription(3, Some(1));
        deadlines.forget(3);
        assert_eq!(deadlines.take_ended(300), Some(Ended::Connection));
        assert_eq!((deadlines.take_ended(300), deadlines.next()), (None, None));
    }

    #[test]
    fn a_ttl_is_never_zero() {
        assert_eq!(ttl(100, 40), 60);
        assert_eq!(ttl(100, 100), 1);
        assert_eq!(ttl(100, 200), 1);
        assert_eq!(ttl(u64::MAX, 0), u32::MAX);
    }
}
