//! Conditional requests (RFC 9110, section 13): what the client has already.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, header};

/// What identifies one version of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Validators {
    /// Strong: inode, size and modification time to the nanosecond.
    pub(super) etag: Option<String>,
    /// The modification time in whole seconds, as `Last-Modified` can say it.
    pub(super) modified: Option<SystemTime>,
}

/// The last second of the year 9999, the last one that an HTTP date can name.
const LAST_HTTP_SECOND: u64 = 253_402_300_799;

impl Validators {
    /// Of a file with this inode, size in bytes and mtime; the epoch and times before it have no date.
    pub(super) fn of(inode: u64, size: u64, seconds: i64, nanoseconds: i64) -> Self {
        let modified = u64::try_from(seconds)
            .ok()
            .filter(|seconds| (1..=LAST_HTTP_SECOND).contains(seconds))
            .map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        let etag = Some(format!("\"{inode:x}-{size:x}-{seconds:x}.{nanoseconds:x}\""));
        Self { etag, modified }
    }

    fn has_tag(&self, list: &str, weak_matches: bool) -> bool {
        list.trim() == "*"
            || self.etag.as_deref().is_some_and(|own| {
                list.split(',').map(str::trim).any(|tag| match tag.strip_prefix("W/") {
                    Some(weak) => weak_matches && weak == own,
                    None => tag == own,
                })
            })
    }
}

/// What the conditions of a request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send the file; `ranges` tells whether a `Range` header counts.
    Send { ranges: bool },
    /// The client has this version (304).
    NotModified,
    /// The client wanted another version (412).
    Failed,
}

/// Whether gzip must give way, because the request names bytes or versions of the plain file.
pub(super) fn needs_identity(headers: &HeaderMap) -> bool {
    [header::RANGE, header::IF_MODIFIED_SINCE, header::IF_NONE_MATCH, header::IF_RANGE]
        .iter()
        .any(|name| headers.contains_key(name))
}

/// Evaluates the conditional headers in the order of RFC 9110, section 13.2.2.
pub(super) fn evaluate(headers: &HeaderMap, file: &Validators) -> Verdict {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let date = |name: HeaderName| text(name).and_then(|value| httpdate::parse_http_date(value).ok());
    if let Some(list) = text(header::IF_MATCH) {
        if !file.has_tag(list, false) {
            return Verdict::Failed;
        }
    } else if let (Some(limit), Some(modified)) = (date(header::IF_UNMODIFIED_SINCE), file.modified)
        && modified > limit
    {
        return Verdict::Failed;
    }
    if let Some(list) = text(header::IF_NONE_MATCH) {
        if file.has_tag(list, true) {
            return Verdict::NotModified;
        }
    } else if let (Some(since), Some(modified)) = (date(header::IF_MODIFIED_SINCE), file.modified)
        && modified <= since
    {
        return Verdict::NotModified;
    }
    let ranges = text(header::IF_RANGE).is_none_or(|validator| {
        if validator.starts_with('"') || validator.starts_with("W/") {
            validator != "*" && file.has_tag(validator, false)
        } else {
            file.modified.is_some() && httpdate::parse_http_date(validator).ok() == file.modified
        }
    });
    Verdict::Send { ranges }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    const SEND: Verdict = Verdict::Send { ranges: true };
    const WHOLE: Verdict = Verdict::Send { ranges: false };

    fn verdict(headers: &[(HeaderName, &str)]) -> Verdict {
        // Sun, 06 Nov 1994 08:49:37 GMT, the date of the RFCs.
        let file = Validators::of(7, 100, 784_111_777, 5);
        assert_eq!(file.etag.as_deref(), Some("\"7-64-2ebc98a1.5\""));
        let map = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        evaluate(&map, &file)
    }

    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const ETAG: &str = "\"7-64-2ebc98a1.5\"";

    #[test]
    fn dates() {
        assert_eq!(verdict(&[(header::IF_MODIFIED_SINCE, SAME)]), Verdict::NotModified);
        assert_eq!(verdict(&[(header::IF_MODIFIED_SINCE, BEFORE)]), SEND);
        assert_eq!(verdict(&[(header::IF_MODIFIED_SINCE, "yesterday")]), SEND);
        assert_eq!(verdict(&[(header::IF_UNMODIFIED_SINCE, BEFORE)]), Verdict::Failed);
        assert_eq!(verdict(&[(header::IF_UNMODIFIED_SINCE, SAME)]), SEND);
    }

    #[test]
    fn tags() {
        assert_eq!(verdict(&[(header::IF_NONE_MATCH, "*")]), Verdict::NotModified);
        assert_eq!(verdict(&[(header::IF_NONE_MATCH, ETAG)]), Verdict::NotModified);
        assert_eq!(verdict(&[(header::IF_NONE_MATCH, "\"a\", W/\"7-64-2ebc98a1.5\"")]), Verdict::NotModified);
        assert_eq!(verdict(&[(header::IF_NONE_MATCH, "\"a\""), (header::IF_MODIFIED_SINCE, SAME)]), SEND);
        assert_eq!(verdict(&[(header::IF_MATCH, "*")]), SEND);
        assert_eq!(verdict(&[(header::IF_MATCH, ETAG)]), SEND);
        assert_eq!(verdict(&[(header::IF_MATCH, "\"a\"")]), Verdict::Failed);
        assert_eq!(verdict(&[(header::IF_MATCH, "W/\"7-64-2ebc98a1.5\"")]), Verdict::Failed);
    }

    #[test]
    fn if_range_decides_about_ranges_only() {
        assert_eq!(verdict(&[(header::IF_RANGE, SAME)]), SEND);
        assert_eq!(verdict(&[(header::IF_RANGE, ETAG)]), SEND);
        for other in [BEFORE, "\"a\"", "W/\"7-64-2ebc98a1.5\"", "rubbish"] {
            assert_eq!(verdict(&[(header::IF_RANGE, other)]), WHOLE, "{other}");
        }
    }

    #[test]
    fn impossible_dates_are_left_out() {
        for seconds in [i64::MIN, -1, 0, 253_402_300_800, i64::MAX] {
            assert_eq!(Validators::of(1, 1, seconds, 0).modified, None, "{seconds}");
        }
    }
}
