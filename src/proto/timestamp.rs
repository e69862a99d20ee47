//! Timestamps in protobuf JSON: RFC 3339 in UTC with `Z` and a fraction of 0, 3, 6 or 9 digits.
//!
//! `pbjson_types` writes the offset as `+00:00`, which clients that look for `Z` do not expect.

use std::fmt;

use pbjson_types::Timestamp;
use serde::{Serialize, Serializer, ser::Error};

const DAY_SECONDS: i64 = 86_400;
/// 0001-01-01T00:00:00Z, the first moment that the mapping allows.
const FIRST_SECOND: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z, the last one.
const LAST_SECOND: i64 = 253_402_300_799;

/// A timestamp that serializes as the JSON mapping asks.
#[derive(Debug)]
pub struct Rfc3339<'a>(pub &'a Timestamp);

impl Serialize for Rfc3339<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Timestamp { seconds, nanos } = *self.0;
        if !(FIRST_SECOND..=LAST_SECOND).contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
            return Err(S::Error::custom("timestamp out of range"));
        }
        serializer.collect_str(self)
    }
}

impl fmt::Display for Rfc3339<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Timestamp { seconds, nanos } = *self.0;
        let (year, month, day) = civil_date(seconds.div_euclid(DAY_SECONDS));
        let second = seconds.rem_euclid(DAY_SECONDS);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match nanos {
            0 => f.write_str("Z"),
            _ if nanos % 1_000_000 == 0 => write!(f, ".{:03}Z", nanos / 1_000_000),
            _ if nanos % 1000 == 0 => write!(f, ".{:06}Z", nanos / 1000),
            _ => write!(f, ".{nanos:09}Z"),
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Years are taken
/// to begin in March, so that the leap day is the last of its year, and eras of 400 years all look the same.
fn civil_date(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    // Day 0 becomes 0000-03-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on alternate in a pattern of 153 days in five months.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;
    use crate::proto::filesystem::EntryInfo;

    fn text(seconds: i64, nanos: i32) -> String {
        Rfc3339(&Timestamp { seconds, nanos }).to_string()
    }

    #[test]
    fn fractions_have_as_many_digits_as_they_need() {
        assert_eq!(text(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(text(1_709_210_096, 120_000_000), "2024-02-29T12:34:56.120Z");
        assert_eq!(text(1_709_210_096, 120_000), "2024-02-29T12:34:56.000120Z");
        assert_eq!(text(-1, 999_999_999), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(text(FIRST_SECOND, 0), "0001-01-01T00:00:00Z");
        assert_eq!(text(LAST_SECOND, 1), "9999-12-31T23:59:59.000000001Z");
    }

    #[test]
    fn every_day_is_the_one_that_a_reader_finds() {
        for day in (FIRST_SECOND / DAY_SECONDS..=LAST_SECOND / DAY_SECONDS).step_by(97) {
            let stamp = Timestamp { seconds: day * DAY_SECONDS, nanos: 0 };
            let read: Timestamp = serde_json::from_str(&format!("\"{}\"", Rfc3339(&stamp))).unwrap();
            assert_eq!(read.seconds, stamp.seconds);
        }
    }

    #[test]
    fn entries_use_it() {
        let entry = EntryInfo { modified_time: Some(Timestamp { seconds: 1, nanos: 5000 }), ..Default::default() };
        assert_eq!(serde_json::to_string(&entry).unwrap(), r#"{"modifiedTime":"1970-01-01T00:00:01.000005Z"}"#);
        let never = EntryInfo { modified_time: Some(Timestamp { seconds: i64::MAX, nanos: 0 }), ..entry };
        assert!(serde_json::to_string(&never).is_err());
    }
}
