//! `google.protobuf.Timestamp`, whose JSON form is RFC 3339 in UTC with `Z` and 0, 3, 6 or 9 digits of fraction.
//!
//! Ours, because `pbjson-types` writes `+00:00` for `Z` and brings a calendar library along.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The range that the JSON form can express: the years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const SECONDS_PER_DAY: i64 = 86_400;
const DAYS_PER_ERA: i64 = 146_097;

/// A moment, counted from 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Timestamp {
    /// Whole seconds, negative before 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds after the second, 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// A moment moved to the nearest end of the years 1 to 9999, so that it can always be written.
    pub fn clamped(seconds: i64, nanos: i32) -> Self {
        Self { seconds: seconds.clamp(*SECONDS.start(), *SECONDS.end()), nanos: nanos.clamp(0, 999_999_999) }
    }
}

/// RFC 3339.
struct Text(Timestamp);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Timestamp { seconds, nanos } = self.0;
        let (year, month, day) = civil(seconds.div_euclid(SECONDS_PER_DAY));
        let second = seconds.rem_euclid(SECONDS_PER_DAY);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match nanos {
            0 => write!(f, "Z"),
            n if n % 1_000_000 == 0 => write!(f, ".{:03}Z", n / 1_000_000),
            n if n % 1000 == 0 => write!(f, ".{:06}Z", n / 1000),
            n => write!(f, ".{n:09}Z"),
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01. Years start in March here, so that the leap day is the
/// last day of a year, and the calendar repeats every 400 years ("era").
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * DAYS_PER_ERA + 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn parse(text: &str) -> Option<Timestamp> {
    let (date, rest) = (text.get(..10)?, text.get(10..)?.strip_prefix(['T', 't'])?);
    let (clock, rest) = (rest.get(..8)?, rest.get(8..)?);
    let (date, clock) = (fields(date, '-', &[4, 2, 2])?, fields(clock, ':', &[2, 2, 2])?);
    let ([year, month @ 1..=12, day @ 1..=31], [hour @ 0..=23, minute @ 0..=59, second @ 0..=59]) =
        (&date[..], &clock[..])
    else {
        return None;
    };
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at_checked(rest.find(|letter: char| !letter.is_ascii_digit())?)?,
        None => ("0", rest),
    };
    if !(1..=9).contains(&fraction.len()) {
        return None;
    }
    let nanos = i32::try_from(number(fraction)?).ok()? * 10_i32.pow(9 - u32::try_from(fraction.len()).ok()?);
    let day_number = days(*year, *month, *day);
    // A day that the month does not have comes out as one of the next month.
    if civil(day_number) != (*year, *month, *day) {
        return None;
    }
    let local = day_number * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
    let seconds = local - offset(zone)?;
    SECONDS.contains(&seconds).then_some(Timestamp { seconds, nanos })
}

/// Seconds east of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, clock) = match zone.strip_prefix('+') {
        Some(clock) => (1, clock),
        None => (-1, zone.strip_prefix('-')?),
    };
    match fields(clock, ':', &[2, 2])?[..] {
        [hours @ 0..=23, minutes @ 0..=59] => Some(sign * (hours * 3600 + minutes * 60)),
        _ => None,
    }
}

/// Numbers with exactly so many digits each.
fn fields(text: &str, separator: char, widths: &[usize]) -> Option<Vec<i64>> {
    let parts: Vec<&str> = text.split(separator).collect();
    let fits = parts.len() == widths.len() && parts.iter().zip(widths).all(|(part, width)| part.len() == *width);
    if fits { parts.into_iter().map(number).collect() } else { None }
}

fn number(digits: &str) -> Option<i64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Text(Self::clamped(self.seconds, self.nanos)))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom(format_args!("invalid timestamp: {text:?}")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc_with_the_shortest_fraction() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (0, 500_000_000, "1970-01-01T00:00:00.500Z"),
            (951_782_400, 1000, "2000-02-29T00:00:00.000001Z"),
            (1_700_000_000, 1, "2023-11-14T22:13:20.000000001Z"),
            (-1, 999_999_999, "1969-12-31T23:59:59.999999999Z"),
            (*SECONDS.start(), 0, "0001-01-01T00:00:00Z"),
            (*SECONDS.end(), 999_999_999, "9999-12-31T23:59:59.999999999Z"),
        ] {
            let moment = Timestamp { seconds, nanos };
            assert_eq!(serde_json::to_value(moment).unwrap(), text);
            assert_eq!(parse(text), Some(moment), "{text}");
        }
    }

    #[test]
    fn moments_out_of_range_are_moved_into_it() {
        let json = serde_json::to_value(Timestamp { seconds: i64::MAX, nanos: -1 }).unwrap();
        assert_eq!(json, "9999-12-31T23:59:59Z");
    }

    #[test]
    fn offsets_are_read_and_nonsense_is_refused() {
        assert_eq!(parse("1970-01-01T01:30:00+01:30"), Some(Timestamp { seconds: 0, nanos: 0 }));
        assert_eq!(parse("1969-12-31t19:00:00.5-05:00"), Some(Timestamp { seconds: 0, nanos: 500_000_000 }));
        for text in [
            "",
            "1970",
            "1970-01-01",
            "1970-02-30T00:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00.1234567890Z",
            "1970-01-01T00:00:00+1:000",
            "1970-1-001T00:00:00Z",
            "é970-01-01T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
