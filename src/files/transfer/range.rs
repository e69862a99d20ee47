//! The `Range` header (RFC 9110, section 14).

/// Bytes `start..start + length` of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteRange {
    pub(super) start: u64,
    pub(super) length: u64,
}

impl ByteRange {
    /// The value of `Content-Range`.
    pub(super) fn content_range(self, size: u64) -> String {
        format!("bytes {}-{}/{size}", self.start, (self.start + self.length).saturating_sub(1))
    }
}

/// Why no range can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeError {
    /// Not `bytes=` followed by ranges.
    Malformed,
    /// Well-formed, but everything lies behind the end of the file.
    BehindEnd,
}

/// The ranges asked for, cut to `size`. Empty means the whole file: no range at all, an empty file, or ranges
/// that together are longer than the file, where sending it once is cheaper.
pub(super) fn parse_ranges(header: &str, size: u64) -> Result<Vec<ByteRange>, RangeError> {
    let list = header.strip_prefix("bytes=").ok_or(RangeError::Malformed)?;
    let mut ranges = Vec::new();
    let mut behind = false;
    for element in list.split(',').map(str::trim).filter(|element| !element.is_empty()) {
        match parse_range(element, size)? {
            Some(range) => ranges.push(range),
            None => behind = true,
        }
    }
    // Some clients send a range with everything; an empty file is still a fine answer.
    if ranges.is_empty() && behind && size > 0 {
        return Err(RangeError::BehindEnd);
    }
    let total = ranges.iter().fold(0_u64, |sum, range| sum.saturating_add(range.length));
    Ok(if total > size { Vec::new() } else { ranges })
}

fn parse_range(element: &str, size: u64) -> Result<Option<ByteRange>, RangeError> {
    let (first, last) = element.split_once('-').ok_or(RangeError::Malformed)?;
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        let length = parse_number(last)?.min(size);
        return Ok((length > 0).then(|| ByteRange { start: size - length, length }));
    }
    let start = parse_number(first)?;
    let end = if last.is_empty() { u64::MAX } else { parse_number(last)? };
    if end < start {
        return Err(RangeError::Malformed);
    }
    if start >= size {
        return Ok(None);
    }
    Ok(Some(ByteRange { start, length: end.min(size - 1) - start + 1 }))
}

/// Digits only: no sign, as `str::parse` would take.
fn parse_number(text: &str) -> Result<u64, RangeError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RangeError::Malformed);
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(header: &str, size: u64) -> Result<Vec<(u64, u64)>, RangeError> {
        parse_ranges(header, size).map(|ranges| ranges.iter().map(|range| (range.start, range.length)).collect())
    }

    #[test]
    fn single_and_suffix_ranges() {
        assert_eq!(of("bytes=0-0", 10), Ok(vec![(0, 1)]));
        assert_eq!(of("bytes=2-5", 10), Ok(vec![(2, 4)]));
        assert_eq!(of("bytes=7-", 10), Ok(vec![(7, 3)]));
        assert_eq!(of("bytes=7-99", 10), Ok(vec![(7, 3)]));
        assert_eq!(of("bytes=-3", 10), Ok(vec![(7, 3)]));
        assert_eq!(of("bytes=-99", 10), Ok(vec![(0, 10)]));
        assert_eq!(of("bytes=0-99999999999999999999999", 10), Ok(vec![(0, 10)]));
    }

    #[test]
    fn several_ranges_until_they_exceed_the_file() {
        assert_eq!(of("bytes=0-1, 4-5,-1", 10), Ok(vec![(0, 2), (4, 2), (9, 1)]));
        assert_eq!(of("bytes=0-8,1-9", 10), Ok(vec![]));
        assert_eq!(of("bytes=0-1,50-60", 10), Ok(vec![(0, 2)]));
        assert_eq!(of("bytes=", 10), Ok(vec![]));
    }

    #[test]
    fn unsatisfiable_and_malformed_are_told_apart() {
        for header in ["bytes=10-", "bytes=50-60", "bytes=10-12,20-", "bytes=-0"] {
            assert_eq!(of(header, 10), Err(RangeError::BehindEnd), "{header}");
        }
        for header in
            ["", "bytes", "lines=1-2", "bytes=5-2", "bytes=a-b", "bytes=--1", "bytes=1", "bytes=+1-2", "bytes=-"]
        {
            assert_eq!(of(header, 10), Err(RangeError::Malformed), "{header}");
        }
    }

    #[test]
    fn an_empty_file_has_no_range_to_miss() {
        assert_eq!(of("bytes=0-5", 0), Ok(vec![]));
        assert_eq!(of("bytes=-5", 0), Ok(vec![]));
    }
}
