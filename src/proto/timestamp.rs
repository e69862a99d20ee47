//! `google.protobuf.Timestamp`, whose JSON form is RFC 3339 in UTC with `Z` and 0, 3, 6 or 9 digits of fraction.
//!
//! Our own message around `prost_types::Timestamp`, which knows the calendar but not serde; `pbjson_types` writes
//! `+00:00` where clients look for `Z`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The range that the JSON form can express: the years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

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

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { seconds, nanos } = Self::clamped(self.seconds, self.nanos);
        serializer.collect_str(&prost_types::Timestamp { seconds, nanos })
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let invalid = || D::Error::custom(format_args!("invalid timestamp: {text:?}"));
        let prost_types::Timestamp { seconds, nanos } = text.parse().map_err(|_| invalid())?;
        if SECONDS.contains(&seconds) { Ok(Self { seconds, nanos }) } else { Err(invalid()) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Timestamp> {
        serde_json::from_value(text.into()).ok()
    }

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
        for text in [
            "",
            "1970",
            "1970-02-30T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00.Z",
            "é970-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
