//! Durations and sizes as people write them: "500ms", "24h", "64MiB".

use std::time::Duration;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const TIB: u64 = 1 << 40;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// From the largest down, as [`largest_whole`] needs them.
const SIZES: [(&str, u64); 5] = [
    ("TiB", TIB),
    ("GiB", GIB),
    ("MiB", MIB),
    ("KiB", KIB),
    ("B", 1),
];
const DURATIONS_IN_MS: [(&str, u64); 5] = [
    ("d", 24 * 60 * 60 * 1000),
    ("h", 60 * 60 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

/// Bytes: a whole number, alone or with one of B, KiB, MiB, GiB, TiB.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| parse(text, &SIZES))
}

pub(super) fn format_size(bytes: u64) -> String {
    largest_whole(bytes, &SIZES)
}

/// A whole number with one of ms, s, m, h, d; without a unit it would be a guess.
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &DURATIONS_IN_MS).map(Duration::from_millis)
}

pub(super) fn format_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    // One day is better known as 24h.
    let units = if duration > DAY {
        &DURATIONS_IN_MS[..]
    } else {
        &DURATIONS_IN_MS[1..]
    };
    largest_whole(ms, units)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn largest_whole(number: u64, units: &[(&str, u64)]) -> String {
    let fits = |factor: u64| factor == 1 || (number != 0 && number.is_multiple_of(factor));
    units.iter().find(|(_, factor)| fits(*factor)).map_or_else(
        || number.to_string(),
        |(unit, f)| format!("{}{unit}", number / f),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_bytes_or_carry_a_binary_unit() {
        assert_eq!(parse_size("512"), Some(512));
        assert_eq!(parse_size("512B"), Some(512));
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        for wrong in [
            "",
            "MiB",
            "64MB",
            "64 MiB",
            "-1",
            "1.5MiB",
            "64mib",
            "99999999TiB",
        ] {
            assert_eq!(parse_size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("5m"), Some(5 * MINUTE));
        assert_eq!(parse_duration("24h"), Some(DAY));
        for wrong in ["", "30", "s", "-1s", "1.5h", "1h30m", "5 m", "5M"] {
            assert_eq!(parse_duration(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_the_same(number in 0..u64::MAX / 2) {
            prop_assert_eq!(parse_size(&format_size(number)), Some(number));
            let duration = Duration::from_millis(number);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }
    }
}
