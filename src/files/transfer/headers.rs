//! Request headers of uploads: metadata and media types with parameters.

use std::collections::BTreeMap;

use http::HeaderMap;
use thiserror::Error;

use super::content::is_token;
use crate::files::metadata::{Metadata, PREFIX};

const HEADER_PREFIX: &str = "x-metadata-";

/// The longest key: the kernel's limit for attribute names (255), less the prefix.
const KEY_BYTES_MAX: usize = 246;

/// The whole set with its prefixes: what one block of an ext4 file system can hold.
const TOTAL_BYTES_MAX: usize = 4096;

/// Which rule the metadata headers break.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MetadataError {
    /// The name of the attribute would be too long.
    #[error("metadata key \"{0}\" exceeds 246 bytes")]
    LongKey(String),
    /// Keys are printable ASCII.
    #[error("metadata key contains non-printable-ASCII byte 0x{byte:02x} at offset {offset}")]
    KeyByte {
        /// The first wrong byte.
        byte: u8,
        /// Where it is.
        offset: usize,
    },
    /// Values are printable ASCII.
    #[error("metadata value for key \"{key}\" contains non-printable-ASCII byte 0x{byte:02x} at offset {offset}")]
    ValueByte {
        /// Whose value.
        key: String,
        /// The first wrong byte.
        byte: u8,
        /// Where it is.
        offset: usize,
    },
    /// All together are too long.
    #[error("total metadata size {0} exceeds 4096 bytes")]
    TooMuch(usize),
}

/// The metadata in `X-Metadata-<key>` headers; the first value of a repeated header counts.
pub(super) fn parse_metadata(headers: &HeaderMap) -> Result<Metadata, MetadataError> {
    let mut metadata = BTreeMap::new();
    let mut total = 0;
    for name in headers.keys() {
        let Some(key) = name.as_str().strip_prefix(HEADER_PREFIX).filter(|key| !key.is_empty()) else { continue };
        if key.len() > KEY_BYTES_MAX {
            return Err(MetadataError::LongKey(key.to_owned()));
        }
        if let Some((offset, byte)) = first_unprintable(key.as_bytes()) {
            return Err(MetadataError::KeyByte { byte, offset });
        }
        let value = headers.get(name).map(|value| value.as_bytes()).unwrap_or_default();
        if let Some((offset, byte)) = first_unprintable(value) {
            return Err(MetadataError::ValueByte { key: key.to_owned(), byte, offset });
        }
        total += PREFIX.len() + key.len() + value.len();
        metadata.insert(key.to_owned(), String::from_utf8_lossy(value).into_owned());
    }
    if total > TOTAL_BYTES_MAX { Err(MetadataError::TooMuch(total)) } else { Ok(metadata) }
}

fn first_unprintable(bytes: &[u8]) -> Option<(usize, u8)> {
    bytes.iter().copied().enumerate().find(|(_, byte)| !(0x20..=0x7E).contains(byte))
}

/// A header value with parameters, such as `multipart/form-data; boundary=x` (RFC 2045, RFC 2183).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parameterized {
    /// What stands before the first `;`, in lower case.
    pub(super) value: String,
    parameters: Vec<(String, String)>,
}

impl Parameterized {
    /// `None` when a parameter is repeated or cannot be read.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (value, mut rest) = header.split_once(';').unwrap_or((header, ""));
        let mut parsed = Self { value: value.trim().to_ascii_lowercase(), parameters: Vec::new() };
        loop {
            rest = rest.trim_start_matches([' ', '\t', ';']);
            if rest.is_empty() {
                return Some(parsed);
            }
            let (name, after) = rest.split_once('=')?;
            let name = name.trim().to_ascii_lowercase();
            if name.is_empty() || !name.bytes().all(is_token) || parsed.parameter(&name).is_some() {
                return None;
            }
            let (text, after) = match after.trim_start().strip_prefix('"') {
                Some(quoted) => unquote(quoted)?,
                // Not only tokens: some clients send paths without quotes.
                None => {
                    let end = after.find(';').unwrap_or(after.len());
                    let (text, after) = after.split_at(end);
                    (text.trim().to_owned(), after)
                }
            };
            parsed.parameters.push((name, text));
            rest = after;
        }
    }

    /// The value of a parameter, by its lower-case name.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The file's name with its directories: `filename*` (RFC 5987) before `filename`.
    pub(super) fn file_name(&self) -> Option<String> {
        if let Some(name) = self.parameter("filename*").and_then(decode_extended) {
            return Some(name);
        }
        // Browsers escape exactly these three in form data (WHATWG, multipart/form-data).
        let name = self.parameter("filename")?;
        Some(name.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n"))
    }
}

/// The text up to the closing quote, and what follows. A backslash counts only before special characters, because
/// some clients send Windows paths.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut letters = quoted.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((text, quoted.get(at + 1..)?)),
            '\\' => match letters.next_if(|(_, next)| "()<>@,;:\\\"/[]?=".contains(*next)) {
                Some((_, next)) => text.push(next),
                None => text.push('\\'),
            },
            other => text.push(other),
        }
    }
    None
}

fn decode_extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") && !charset.eq_ignore_ascii_case("us-ascii") {
        return None;
    }
    percent_encoding::percent_decode_str(encoded).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn metadata(pairs: &[(&str, &[u8])]) -> Result<Metadata, MetadataError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        parse_metadata(&headers)
    }

    #[test]
    fn keys_are_lower_case_and_the_first_value_counts() {
        let set = metadata(&[("X-Metadata-Author", b"me"), ("x-metadata-author", b"you"), ("X-METADATA-", b"x")]);
        assert_eq!(set.unwrap(), Metadata::from([("author".to_owned(), "me".to_owned())]));
        assert_eq!(metadata(&[("content-type", b"x")]).unwrap(), Metadata::new());
    }

    #[test]
    fn keys_and_values_have_limits() {
        let key = |length: usize| format!("x-metadata-{}", "k".repeat(length));
        assert!(metadata(&[(&key(246), b"")]).is_ok());
        assert_eq!(
            metadata(&[(&key(247), b"")]).unwrap_err().to_string(),
            format!("metadata key \"{}\" exceeds 246 bytes", "k".repeat(247))
        );
        assert_eq!(
            metadata(&[("x-metadata-a", b"ab\xc3\xa9")]).unwrap_err().to_string(),
            "metadata value for key \"a\" contains non-printable-ASCII byte 0xc3 at offset 2"
        );
        assert!(metadata(&[("x-metadata-a", &[b'v'; 4086])]).is_ok());
        assert_eq!(
            metadata(&[("x-metadata-a", &[b'v'; 4087])]).unwrap_err().to_string(),
            "total metadata size 4097 exceeds 4096 bytes"
        );
    }

    fn name(header: &str) -> Option<String> {
        Parameterized::parse(header).and_then(|parsed| parsed.file_name())
    }

    #[test]
    fn file_names_keep_directories_and_are_unescaped() {
        for (parameter, expected) in [
            ("filename=\"/home/user/a.txt\"", "/home/user/a.txt"),
            ("filename=plain.txt", "plain.txt"),
            ("filename=/tmp/x y ; a=b", "/tmp/x y"),
            (r#"filename="say \"hi\"\\""#, r#"say "hi"\"#),
            (r#"filename="C:\dev\x.txt""#, r"C:\dev\x.txt"),
            ("filename=\"%22a%0D%0A%41\"", "\"a\r\n%41"),
            ("filename=\"b\"; filename*=UTF-8''dir%2Fr%C3%A9.txt", "dir/ré.txt"),
            ("filename=\"b\"; filename*=latin1''x", "b"),
            ("filename=\"ré.txt\"", "ré.txt"),
        ] {
            assert_eq!(name(&format!("form-data; name=\"file\"; {parameter}")).as_deref(), Some(expected));
        }
    }

    #[test]
    fn broken_parameters_are_refused() {
        for header in ["a; b", "a; b=\"c", "a; b=1; b=2", "a; =x", "a; b c=x"] {
            assert_eq!(Parameterized::parse(header), None, "{header}");
        }
        let parsed = Parameterized::parse("Multipart/Form-Data ; Boundary=\"a b\";").unwrap();
        assert_eq!((parsed.value.as_str(), parsed.parameter("boundary")), ("multipart/form-data", Some("a b")));
    }
}
