//! `multipart/form-data` (RFC 2046, RFC 7578), read as it arrives and in bounded memory.
//!
//! File contents are handed on as slices of what arrived; only a possible delimiter across two chunks is copied.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::{self, Finder};

use super::{
    headers::Parameterized,
    source::{CUT_OFF, Piece, Source},
};

/// The longest header block of a part, in bytes.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// The most white space behind a delimiter, in bytes.
const PADDING_BYTES_MAX: usize = 1024;

/// What comes next in a form.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A part begins; `None` if its disposition cannot be read.
    Part(Option<Parameterized>),
    /// Content of the part.
    Data(Bytes),
    /// The part is complete.
    PartEnd,
    /// The form is complete.
    End,
    /// Nothing until the source has more.
    Wait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first delimiter.
    Preamble,
    /// Behind a delimiter: either the end or the rest of the line.
    Delimiter,
    Headers,
    /// An empty part may be followed by a delimiter without a line break of its own.
    BodyStart,
    Body,
    End,
}

/// The reader of one form.
pub(super) struct Form {
    /// CR LF, two dashes and the boundary. A CR is nowhere but at its start, because no header can hold one.
    delimiter: Vec<u8>,
    finder: Finder<'static>,
    buffer: Bytes,
    state: State,
}

enum Scan {
    /// A delimiter begins here.
    Delimiter(usize),
    /// So many bytes belong to no delimiter.
    Content(usize),
    /// Undecided.
    More,
}

impl Form {
    /// A form with this boundary.
    pub(super) fn new(boundary: &str) -> Self {
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        let finder = Finder::new(&delimiter).into_owned();
        // The first delimiter has no line before it; with this one it looks like all others.
        Self { delimiter, finder, buffer: Bytes::from_static(b"\r\n"), state: State::Preamble }
    }

    /// The next event; the error is what the client is told.
    pub(super) fn next(&mut self, source: &mut Source) -> Result<Event, String> {
        loop {
            let event = match self.state {
                State::Preamble | State::Body => self.scan_content(),
                State::Delimiter => self.end_delimiter()?,
                State::Headers => self.read_headers()?,
                State::BodyStart => self.start_body(),
                State::End => Some(Event::End),
            };
            match event {
                Some(Event::Wait) => {}
                Some(event) => return Ok(event),
                None => continue,
            }
            match source.next()? {
                Piece::Data(bytes) => self.append(bytes),
                Piece::Wait => return Ok(Event::Wait),
                Piece::End => return Err(CUT_OFF.to_owned()),
            }
        }
    }

    fn append(&mut self, bytes: Bytes) {
        if self.buffer.is_empty() {
            self.buffer = bytes;
            return;
        }
        let mut joined = BytesMut::with_capacity(self.buffer.len() + bytes.len());
        joined.extend_from_slice(&self.buffer);
        joined.extend_from_slice(&bytes);
        self.buffer = joined.freeze();
    }

    // In the following, `None` means: look again, in another state; `Event::Wait`: more bytes are needed.

    fn scan_content(&mut self) -> Option<Event> {
        let is_body = self.state == State::Body;
        match self.scan() {
            Scan::Content(length) | Scan::Delimiter(length) if length > 0 => {
                let content = self.buffer.split_to(length);
                is_body.then_some(Event::Data(content))
            }
            Scan::Delimiter(_) => {
                self.buffer.advance(self.delimiter.len());
                self.state = State::Delimiter;
                is_body.then_some(Event::PartEnd)
            }
            Scan::Content(_) | Scan::More => Some(Event::Wait),
        }
    }

    fn scan(&self) -> Scan {
        let mut from = 0;
        while let Some(found) = self.buffer.get(from..).and_then(|rest| self.finder.find(rest)) {
            let at = from + found;
            match self.is_delimiter(at + self.delimiter.len()) {
                Some(true) => return Scan::Delimiter(at),
                Some(false) => from = at + self.delimiter.len(),
                None if at > 0 => return Scan::Content(at),
                None => return Scan::More,
            }
        }
        let tail = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
        let candidate = self.buffer.get(tail..).and_then(|rest| memchr::memrchr(b'\r', rest)).map(|at| tail + at);
        let is_prefix = |at: &usize| self.buffer.get(*at..).is_some_and(|rest| self.delimiter.starts_with(rest));
        match candidate.filter(is_prefix).unwrap_or(self.buffer.len()) {
            0 => Scan::More,
            length => Scan::Content(length),
        }
    }

    /// Whether what follows the text of a delimiter makes it one, and not the start of a longer word.
    fn is_delimiter(&self, end: usize) -> Option<bool> {
        match (self.buffer.get(end)?, self.buffer.get(end + 1)) {
            (b' ' | b'\t' | b'\r' | b'\n', _) | (b'-', Some(b'-')) => Some(true),
            (b'-', None) => None,
            _ => Some(false),
        }
    }

    fn end_delimiter(&mut self) -> Result<Option<Event>, String> {
        if self.buffer.starts_with(b"--") {
            self.state = State::End;
            return Ok(None);
        }
        match memchr::memchr(b'\n', &self.buffer) {
            Some(at) => {
                let padding = self.buffer.split_to(at + 1);
                if !padding.iter().all(u8::is_ascii_whitespace) {
                    return Err("multipart: expecting a new part".to_owned());
                }
                self.state = State::Headers;
                Ok(None)
            }
            None if self.buffer.len() > PADDING_BYTES_MAX => Err("multipart: expecting a new part".to_owned()),
            None => Ok(Some(Event::Wait)),
        }
    }

    fn read_headers(&mut self) -> Result<Option<Event>, String> {
        let block = if self.buffer.starts_with(b"\r\n") {
            self.buffer.advance(2);
            Bytes::new()
        } else if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
            let block = self.buffer.split_to(end);
            self.buffer.advance(4);
            block
        } else if self.buffer.len() > HEADER_BYTES_MAX {
            return Err("multipart: header of a part is too long".to_owned());
        } else {
            return Ok(Some(Event::Wait));
        };
        self.state = State::BodyStart;
        Ok(Some(Event::Part(parse_disposition(&block)?)))
    }

    fn start_body(&mut self) -> Option<Event> {
        let bare = self.delimiter.get(2..).unwrap_or_default();
        let looks = if self.buffer.len() < bare.len() {
            bare.starts_with(&self.buffer).then_some(None)
        } else {
            self.buffer.starts_with(bare).then(|| self.is_delimiter(bare.len()))
        };
        match looks {
            Some(None) => Some(Event::Wait),
            Some(Some(true)) => {
                self.buffer.advance(bare.len());
                self.state = State::Delimiter;
                Some(Event::PartEnd)
            }
            Some(Some(false)) | None => {
                self.state = State::Body;
                None
            }
        }
    }
}

/// The `Content-Disposition` of a part's header block.
fn parse_disposition(block: &[u8]) -> Result<Option<Parameterized>, String> {
    let text = String::from_utf8_lossy(block);
    // A line that begins with white space continues the one before (RFC 5322, section 2.2.3).
    let unfolded = text.replace("\r\n ", " ").replace("\r\n\t", " ");
    let mut disposition = None;
    for line in unfolded.split("\r\n").filter(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else {
            return Err("malformed MIME header line".to_owned());
        };
        if disposition.is_none() && name.trim().eq_ignore_ascii_case("content-disposition") {
            disposition = Some(Parameterized::parse(value));
        }
    }
    Ok(disposition.flatten())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::{
        super::source::{Batch, Ending},
        *,
    };

    type Parts = Vec<(Option<String>, Vec<u8>)>;

    /// Reads a form that arrives in chunks of `step` bytes.
    fn read(boundary: &str, body: &[u8], step: usize) -> Result<Parts, String> {
        let mut form = Form::new(boundary);
        let mut source = Source::plain(Batch::default());
        let mut chunks = body.chunks(step);
        let mut parts = Parts::new();
        loop {
            match form.next(&mut source)? {
                Event::Part(disposition) => parts.push((disposition.and_then(|d| d.file_name()), Vec::new())),
                Event::Data(bytes) => parts.last_mut().unwrap().1.extend_from_slice(&bytes),
                Event::PartEnd => {}
                Event::End => return Ok(parts),
                Event::Wait => source.feed(match chunks.next() {
                    Some(chunk) => Batch { chunks: vec![Bytes::copy_from_slice(chunk)], ending: None },
                    None => Batch { chunks: vec![], ending: Some(Ending::Complete) },
                }),
            }
        }
    }

    const BODY: &[u8] = b"preamble\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a/b.txt\"\r\n\
        Content-Type: text/plain\r\n\r\nline\r\n--Bold text\r\n--\r\n\r\n--B \t\r\n\r\n\r\n--B\r\n\
        content-disposition: form-data;\r\n name=\"x\"; filename=c\r\n\r\n--B--\r\nepilogue";

    #[test]
    fn a_form_reads_the_same_in_any_pieces() {
        for step in 1..=BODY.len() {
            let parts = read("B", BODY, step).unwrap();
            let expected = vec![
                (Some("a/b.txt".to_owned()), b"line\r\n--Bold text\r\n--\r\n".to_vec()),
                (None, vec![]),
                (Some("c".to_owned()), vec![]),
            ];
            assert_eq!(parts, expected, "in pieces of {step}");
        }
    }

    #[test]
    fn a_form_that_breaks_off_is_an_error_wherever_it_does() {
        let end = memmem::find(BODY, b"--B--").unwrap() + 5;
        for length in 0..end {
            assert_eq!(read("B", &BODY[..length], 7), Err(CUT_OFF.to_owned()), "{length}");
        }
    }

    #[test]
    fn an_empty_form_has_no_parts() {
        assert_eq!(read("B", b"--B--", 1), Ok(vec![]));
    }

    #[test]
    fn nothing_is_collected_without_bound() {
        let endless = b"x".repeat(HEADER_BYTES_MAX * 2);
        let headers = [b"--B\r\n".as_slice(), &endless].concat();
        assert!(read("B", &headers, 1 << 14).unwrap_err().contains("too long"));
        let spaces = b" ".repeat(PADDING_BYTES_MAX * 2);
        assert!(read("B", &[b"--B".as_slice(), &spaces].concat(), 1 << 14).is_err());
        // A preamble is dropped as it comes.
        assert_eq!(read("B", &endless, 100), Err(CUT_OFF.to_owned()));
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        for round in 0..2000 {
            let body: Vec<u8> = (0..200)
                .map(|_| {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    *b"\r\n--B: ;=\"x".get((seed % 12) as usize).unwrap_or(&0)
                })
                .collect();
            let pieces = read("B", &body, 1 + round % 50);
            assert_eq!(pieces.is_ok(), read("B", &body, 200).is_ok());
        }
    }
}
