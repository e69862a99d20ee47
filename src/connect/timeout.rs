//! `Connect-Timeout-Ms`.

use std::{future::Future, time::Duration};

use http::HeaderMap;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::{call::header_text, error::ProtocolError};

const HEADER: &str = "connect-timeout-ms";

/// When the caller stops waiting; put into the extensions of every request that came with a time limit
/// (`Connect-Timeout-Ms`, `grpc-timeout`).
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// The moment the call expires.
    pub at: Instant,
    /// The limit as the client gave it, counted from the arrival of the request. Zero: expired on arrival.
    pub limit: Duration,
}

impl Deadline {
    /// Reads `Connect-Timeout-Ms`; an absent or empty header means no limit, zero and negative limits have
    /// expired already.
    pub(super) fn of(headers: &HeaderMap, arrived: Instant) -> Result<Option<Self>, ProtocolError> {
        let Some(text) = header_text(headers, HEADER) else {
            return Ok(None);
        };
        if text.len() > 10 {
            return Err(ProtocolError::TimeoutTooLong(text.into_owned()));
        }
        let Ok(millis) = text.parse::<i64>() else {
            return Err(ProtocolError::TimeoutNotInteger(text.into_owned()));
        };
        let limit = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
        Ok(Some(Self { at: arrived + limit, limit }))
    }

    /// Whether the time is up.
    pub(super) fn expired(&self) -> bool {
        self.limit.is_zero() || self.at <= Instant::now()
    }
}

/// `work`, abandoned when the deadline passes; not even started when it has passed already.
pub(super) async fn before<T>(
    deadline: Option<Deadline>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match deadline {
        None => work.await,
        Some(deadline) if deadline.expired() => Err(ProtocolError::DeadlineExceeded.into()),
        Some(deadline) => {
            timeout_at(deadline.at, work).await.unwrap_or_else(|_| Err(ProtocolError::DeadlineExceeded.into()))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<Option<Deadline>, String> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, value.parse().unwrap());
        Deadline::of(&headers, Instant::now()).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_are_decimal_milliseconds() {
        assert_eq!(parse("60000").unwrap().unwrap().limit, Duration::from_secs(60));
        assert_eq!(parse("9999999999").unwrap().unwrap().limit, Duration::from_millis(9_999_999_999));
        assert!(parse("").unwrap().is_none());
        assert!(Deadline::of(&HeaderMap::new(), Instant::now()).unwrap().is_none());
    }

    #[test]
    fn zero_and_negative_limits_have_expired() {
        for value in ["0", "-1", "-999999999", "+0"] {
            assert!(parse(value).unwrap().unwrap().expired(), "{value}");
        }
    }

    #[test]
    fn odd_limits_are_refused() {
        assert_eq!(parse("10000000000").unwrap_err(), r#"parse timeout: "10000000000" has >10 digits"#);
        for value in ["1.5", "1s", "x", "0x10", "-"] {
            assert!(parse(value).unwrap_err().starts_with("parse timeout: "), "{value}");
        }
    }
}
