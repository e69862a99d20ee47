//! JSON lines exactly as clients of the code port have always received them.
//!
//! The separators are `", "` and `": "`, and every character outside printable ASCII is escaped. The second is a
//! must: one official client splits lines at U+0085 and U+2028 too, another decodes each network chunk alone and
//! breaks characters that straddle two chunks.

use std::io::{self, Write};

use bytes::Bytes;
use serde::Serialize;
use serde_json::{
    Serializer,
    ser::{CompactFormatter, Formatter},
};

/// One line under construction: an object whose first key is `type`.
pub(super) struct Line {
    buffer: Vec<u8>,
}

impl Line {
    /// Starts `{"type": "<kind>"`; `kind` is one of our own plain words.
    pub(super) fn new(kind: &'static str) -> Self {
        Self::with_capacity(kind, 96)
    }

    /// As [`Line::new`], for a line that will hold about `capacity` bytes.
    pub(super) fn with_capacity(kind: &'static str, capacity: usize) -> Self {
        let mut buffer = Vec::with_capacity(capacity);
        buffer.extend_from_slice(b"{\"type\": ");
        append(&mut buffer, kind);
        Self { buffer }
    }

    /// Adds a field; `name` is one of our own plain words.
    pub(super) fn field<T: Serialize + ?Sized>(mut self, name: &'static str, value: &T) -> Self {
        self.buffer.extend_from_slice(b", \"");
        self.buffer.extend_from_slice(name.as_bytes());
        self.buffer.extend_from_slice(b"\": ");
        append(&mut self.buffer, value);
        self
    }

    /// Closes the object and the line.
    pub(super) fn end(mut self) -> Bytes {
        self.buffer.extend_from_slice(b"}\n");
        self.buffer.into()
    }
}

/// One value in the same style, such as for an error text that holds JSON.
pub(super) fn to_text<T: Serialize + ?Sized>(value: &T) -> String {
    let mut buffer = Vec::new();
    append(&mut buffer, value);
    String::from_utf8(buffer).unwrap_or_default()
}

fn append<T: Serialize + ?Sized>(buffer: &mut Vec<u8>, value: &T) {
    let start = buffer.len();
    // Strings, numbers and JSON values cannot fail to serialise into memory; a line must stay valid all the same.
    if value.serialize(&mut Serializer::with_formatter(&mut *buffer, Ascii)).is_err() {
        buffer.truncate(start);
        buffer.extend_from_slice(b"null");
    }
}

struct Ascii;

impl Formatter for Ascii {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    /// The shortest digits that read back as the same number, with an exponent of at least two digits and a sign.
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let magnitude = value.abs();
        if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
            return CompactFormatter.write_f64(writer, value);
        }
        let text = format!("{value:e}");
        match text.split_once('e') {
            Some((digits, exponent)) => {
                let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
                write!(writer, "{digits}e{sign}{exponent:0>2}")
            }
            None => writer.write_all(text.as_bytes()),
        }
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let is_plain = |byte: u8| byte < 0x7f;
        let bytes = fragment.as_bytes();
        // Long base64 strings and program output are plain; both checks are vectorised.
        if bytes.is_ascii() && !bytes.contains(&0x7f) {
            return writer.write_all(bytes);
        }
        let mut rest = fragment;
        while let Some(at) = rest.bytes().position(|byte| !is_plain(byte)) {
            // A byte that is not ASCII only follows ASCII here, so `at` is a character boundary.
            let (plain, special) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut letters = special.chars();
            if let Some(letter) = letters.next() {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = letters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn separators_have_blanks_and_order_is_kept() {
        assert_eq!(to_text(&json!({"b": [1, 2, {}], "a": {"c": null}})), r#"{"b": [1, 2, {}], "a": {"c": null}}"#);
        assert_eq!(to_text(&json!([])), "[]");
    }

    #[test]
    fn everything_but_printable_ascii_is_escaped() {
        let nasty = "a\u{85}\u{2028}\u{2029}é\u{7f}\u{0}\u{b}\u{c}\u{8}\t\r\n\"\\/😀z\u{ffff}";
        let text = to_text(nasty);
        let expected =
            concat!(r#""a\u0085\u2028\u2029\u00e9\u007f\u0000\u000b\f\b\t\r\n\"\\/"#, r#"\ud83d\ude00z\uffff""#);
        assert_eq!(text, expected);
        assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), nasty);
        assert_eq!(to_text(&json!({"é": 1})), r#"{"\u00e9": 1}"#);
    }

    #[test]
    fn numbers_look_as_the_kernel_wrote_them() {
        let text = "[1, 1.0, -0.0, 0.1, 1e-05, 0.0001, 1.5e-07, 1e+16, 1.2345e+200, 18446744073709551615, -9223372036854775808]";
        assert_eq!(to_text(&serde_json::from_str::<Value>(text).unwrap()), text);
        assert_eq!(to_text(&json!(1e15)), "1000000000000000.0");
    }

    #[test]
    fn a_line_is_one_object_with_the_type_first() {
        let line = Line::new("stdout").field("text", "hi\n").field("timestamp", "t").end();
        assert_eq!(line, "{\"type\": \"stdout\", \"text\": \"hi\\n\", \"timestamp\": \"t\"}\n");
        assert_eq!(Line::new("keepalive").end(), "{\"type\": \"keepalive\"}\n");
    }
}
