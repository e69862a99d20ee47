//! The events of a stream, read with as little work as possible: of output only the ends of each message are looked at,
//! unless its bytes are asked for.

use std::io::{BufRead, Read};

use crate::{base64, http::as_u64, messages::Wire};

/// As much of a message as is always kept; every message without output is shorter.
const HEAD_BYTES: usize = 512;
/// As much of the end of a longer one: JSON's padding and brackets.
const TAIL_BYTES: usize = 8;

/// What a message said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The process runs, and its id.
    Start(u32),
    /// So many bytes of output.
    Data(u64),
    /// The process has ended: its status.
    End(String),
    /// The stream is complete.
    Close,
}

/// Reads the events of one stream after the other.
pub(crate) struct Events {
    wire: Wire,
    keep: bool,
    message: Vec<u8>,
    /// The output of the last [`Event::Data`], if it is kept.
    pub(crate) output: Vec<u8>,
}

impl Events {
    /// Reads events and counts output.
    pub(crate) fn counting(wire: Wire) -> Self {
        Self { wire, keep: false, message: Vec::new(), output: Vec::new() }
    }

    /// Reads events and decodes output.
    pub(crate) fn keeping(wire: Wire) -> Self {
        Self { keep: true, ..Self::counting(wire) }
    }

    /// Waits for the next event. Keep-alives are passed over.
    pub(crate) fn next(&mut self, body: &mut (impl BufRead + ?Sized)) -> Event {
        loop {
            if self.wire == Wire::Grpc && body.fill_buf().unwrap().is_empty() {
                return Event::Close;
            }
            let mut prefix = [0; 5];
            body.read_exact(&mut prefix).unwrap();
            let [flags, length @ ..] = prefix;
            let length = usize::try_from(u32::from_be_bytes(length)).unwrap();
            self.read_message(body, length);
            if flags == 2 {
                assert_eq!(self.message, b"{}", "{}", String::from_utf8_lossy(&self.message));
                assert!(body.fill_buf().unwrap().is_empty(), "something follows the end of the stream");
                return Event::Close;
            }
            assert_eq!(flags, 0, "flags of an envelope");
            let event = if self.wire == Wire::Json { self.json(length) } else { self.proto(length) };
            if let Some(event) = event {
                return event;
            }
        }
    }

    /// Reads on until the stream is complete, to its status and the count of its output. `take` gets the output if it
    /// is kept.
    pub(crate) fn read_to_end(
        &mut self,
        body: &mut (impl BufRead + ?Sized),
        mut take: impl FnMut(&[u8]),
    ) -> (String, u64) {
        let (mut status, mut total) = (None, 0);
        loop {
            match self.next(body) {
                Event::Start(_) => {}
                Event::Data(count) => {
                    total += count;
                    take(&self.output);
                }
                Event::End(text) => status = Some(text),
                Event::Close => return (status.unwrap(), total),
            }
        }
    }

    /// Reads a message: all of it, or its head and its tail.
    fn read_message(&mut self, body: &mut (impl BufRead + ?Sized), length: usize) {
        let whole = self.keep || length <= HEAD_BYTES + TAIL_BYTES;
        self.message.resize(if whole { length } else { HEAD_BYTES + TAIL_BYTES }, 0);
        if whole {
            return body.read_exact(&mut self.message).unwrap();
        }
        let (head, tail) = self.message.split_at_mut(HEAD_BYTES);
        body.read_exact(head).unwrap();
        let mut left = length - HEAD_BYTES - TAIL_BYTES;
        while left > 0 {
            let count = body.fill_buf().unwrap().len().min(left);
            assert_ne!(count, 0, "a message ended {left} bytes early");
            body.consume(count);
            left -= count;
        }
        body.read_exact(tail).unwrap();
    }

    fn json(&mut self, length: usize) -> Option<Event> {
        let event = self.message.strip_prefix(br#"{"event":{""#).unwrap();
        if let Some(data) = event.strip_prefix(br#"data":{""#) {
            let colon = data.iter().position(|byte| *byte == b':').unwrap();
            let encoded = data.get(colon + 2..).unwrap().strip_suffix(br#""}}}"#).unwrap();
            let padding = encoded.iter().rev().take_while(|byte| **byte == b'=').count();
            let characters = encoded.len() + length - self.message.len();
            assert_eq!(characters % 4, 0, "characters of base64");
            if self.keep {
                self.output.clear();
                base64::decode(encoded, &mut self.output);
            }
            return Some(Event::Data(as_u64(characters / 4 * 3 - padding)));
        }
        let text = String::from_utf8_lossy(event);
        let after = |name: &str| text.split_once(name).map(|(_, rest)| rest);
        if let Some(pid) = after(r#"start":{"pid":"#) {
            return Some(Event::Start(pid.trim_end_matches('}').parse().unwrap()));
        }
        if text.starts_with("end") {
            let status = after(r#""status":""#).and_then(|rest| rest.split('"').next());
            return Some(Event::End(status.unwrap().to_owned()));
        }
        assert!(text.starts_with("keepalive"), "{text}");
        None
    }

    fn proto(&mut self, length: usize) -> Option<Event> {
        let mut rest = self.message.as_slice();
        assert_eq!(tag(&mut rest).0, 1, "the event of a response");
        let (kind, _) = tag(&mut rest);
        match kind {
            1 => Some(Event::Start(u32::try_from(tag(&mut rest).1).unwrap())),
            2 => {
                let (stream, count) = tag(&mut rest);
                assert!((1..=3).contains(&stream), "stream {stream}");
                assert_eq!(as_u64(rest.len() + length - self.message.len()), count, "the length of output");
                if self.keep {
                    self.output.clear();
                    self.output.extend(rest);
                }
                Some(Event::Data(count))
            }
            3 => loop {
                let (number, value) = tag(&mut rest);
                if number == 3 {
                    let status = rest.get(..usize::try_from(value).unwrap()).unwrap();
                    return Some(Event::End(String::from_utf8_lossy(status).into_owned()));
                }
            },
            _ => None,
        }
    }
}

/// The number of the next field, and its value or length.
fn tag(rest: &mut &[u8]) -> (u64, u64) {
    (varint(rest) >> 3, varint(rest))
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        rest.read_exact(&mut byte).unwrap();
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::{Event, Events};
    use crate::{
        base64,
        messages::{Wire, envelope, field},
    };

    const STATUS: &str = "exit status 0";

    /// A stream with two pieces of output as an agent would send it.
    fn stream(wire: Wire, output: &[u8]) -> Vec<u8> {
        let (mut messages, halves) = (Vec::new(), output.split_at(output.len() / 3));
        if wire == Wire::Json {
            messages.push(r#"{"event":{"start":{"pid":7}}}"#.to_owned().into_bytes());
            for half in [halves.0, halves.1] {
                messages
                    .push(format!(r#"{{"event":{{"data":{{"stderr":"{}"}}}}}}"#, base64::encode(half)).into_bytes());
            }
            messages.push(br#"{"event":{"keepalive":{}}}"#.to_vec());
            messages.push(format!(r#"{{"event":{{"end":{{"exited":true,"status":"{STATUS}"}}}}}}"#).into_bytes());
        } else {
            let event = |number, content: &[u8]| field(1, &field(number, content));
            messages.push(event(1, &[8, 7]));
            messages.extend([halves.0, halves.1].map(|half| event(2, &field(2, half))));
            messages.push(event(4, &[]));
            messages.push(event(3, &[&[0x10, 1], field(3, STATUS.as_bytes()).as_slice()].concat()));
        }
        let mut stream: Vec<u8> = messages.iter().flat_map(|message| envelope(message)).collect();
        if wire != Wire::Grpc {
            stream.extend(b"\x02\0\0\0\x02{}");
        }
        stream
    }

    #[test]
    fn output_is_counted_and_kept_on_every_wire() {
        for wire in [Wire::Json, Wire::Proto, Wire::Grpc] {
            for length in [3, 4, 5, 1000, 2001, 70_000] {
                let output: Vec<u8> = (0..=255).cycle().take(length).collect();
                let stream = stream(wire, &output);
                let expected = (STATUS.to_owned(), u64::try_from(length).unwrap());
                assert_eq!(Events::counting(wire).read_to_end(&mut stream.as_slice(), |_| {}), expected);
                let mut kept = Vec::new();
                let mut events = Events::keeping(wire);
                assert_eq!(events.read_to_end(&mut stream.as_slice(), |bytes| kept.extend_from_slice(bytes)), expected);
                assert_eq!(kept, output, "{wire:?} with {length} bytes");
                assert_eq!(Events::counting(wire).next(&mut stream.as_slice()), Event::Start(7));
            }
        }
    }

    #[test]
    #[should_panic(expected = "a message ended")]
    fn a_message_that_ends_early_is_an_error() {
        let stream = stream(Wire::Proto, &[7; 10_000]);
        Events::counting(Wire::Proto).read_to_end(&mut stream.split_at(6000).0, |_| {});
    }
}
