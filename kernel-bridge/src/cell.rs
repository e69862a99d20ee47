//! What one request to the kernel has brought so far, and when it is over. No I/O.
//!
//! iopub is the authority on order: what the shell reply says counts only once iopub has gone idle, or has been
//! silent for so long that its idle must be lost.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::{
    event::{Channel, ErrorReport, Event},
    wire::{Message, Request},
};

/// How long the channel that is still missing may be silent before what it should have said counts as lost.
/// That hardly ever happens (a full queue in the kernel), while a machine that is busy or was paused may well
/// be late.
const GRACE: Duration = Duration::from_secs(2);

/// A request that was sent, and what came back.
pub(crate) struct Cell {
    id: String,
    reply: Option<Reply>,
    /// The kernel has taken the request up.
    busy: bool,
    /// The kernel has taken the code up: an interrupt hits the code from now on, not the kernel's own work.
    accepted: bool,
    idle: bool,
    failed: bool,
    /// When the last thing about this request was heard.
    heard: Instant,
}

/// What the shell channel said.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Reply {
    /// The kernel refused to run the code.
    pub(crate) aborted: bool,
    /// The failure, when the status is `error`.
    pub(crate) error: Option<ErrorReport>,
    /// The code asked the kernel to end (`exit()` in IPython).
    pub(crate) exits: bool,
}

impl Cell {
    /// A cell for a request that is about to be sent.
    pub(crate) fn new(request: &Request) -> Self {
        Self {
            id: request.id.clone(),
            reply: None,
            busy: false,
            accepted: false,
            idle: false,
            failed: false,
            heard: Instant::now(),
        }
    }

    /// Takes in a message of iopub; messages of other requests are none of its business. Returns what the
    /// client shall see.
    pub(crate) fn hear(&mut self, message: &Message) -> Option<Event> {
        if message.parent.as_ref() != Some(&self.id) {
            return None;
        }
        self.heard = Instant::now();
        match message.kind.as_str() {
            "stream" | "execute_result" | "display_data" | "error" | "execute_input" | "status" => {}
            _ => return None,
        }
        self.busy = true;
        let content = match message.content() {
            Ok(content) => content,
            Err(error) => {
                let text = format!("[a {} message of the kernel cannot be read: {error}]\n", message.kind);
                return Some(Event::Stream { channel: Channel::Stderr, text, date: message.date.clone() });
            }
        };
        self.take(message, content)
    }

    fn take(&mut self, message: &Message, mut content: Value) -> Option<Event> {
        match message.kind.as_str() {
            "status" => {
                self.idle |= content.get("execution_state").and_then(Value::as_str) == Some("idle");
                None
            }
            "execute_input" => {
                self.accepted = true;
                let execution_count = content.get("execution_count").and_then(Value::as_i64)?;
                Some(Event::Input { execution_count })
            }
            "stream" => {
                self.accepted = true;
                let channel = match content.get("name").and_then(Value::as_str) {
                    Some("stderr") => Channel::Stderr,
                    _ => Channel::Stdout,
                };
                let text = into_text(content.get_mut("text").map(Value::take).unwrap_or_default());
                Some(Event::Stream { channel, text, date: message.date.clone() })
            }
            "error" => {
                self.accepted = true;
                let first = !std::mem::replace(&mut self.failed, true);
                first.then(|| Event::Error(error_report(&mut content)))
            }
            kind => {
                self.accepted = true;
                let main = kind == "execute_result";
                Some(Event::Result { data: mime_bundle(&mut content), main })
            }
        }
    }

    /// Takes in a message of the shell channel.
    pub(crate) fn answer(&mut self, message: &Message) {
        if message.parent.as_ref() == Some(&self.id) && message.kind == "execute_reply" {
            self.heard = Instant::now();
            self.reply = Some(Reply::parse(message.content().unwrap_or_default()));
        }
    }

    /// Whether an interrupt would reach the code.
    pub(crate) fn can_interrupt(&self) -> bool {
        self.accepted
    }

    /// Whether the kernel has said anything about this request.
    pub(crate) fn is_known(&self) -> bool {
        self.busy || self.reply.is_some()
    }

    /// Whether the kernel refused the code, which therefore never ran.
    pub(crate) fn is_aborted(&self) -> bool {
        !self.accepted && self.reply.as_ref().is_some_and(|reply| reply.aborted)
    }

    /// Whether both channels have said that the cell is over.
    pub(crate) fn is_finished(&self) -> bool {
        self.idle && self.reply.is_some()
    }

    /// When to go on without the channel that is still missing.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (self.idle != self.reply.is_some()).then(|| self.heard + GRACE)
    }

    /// Starts the grace anew, for a time in which iopub was not read.
    pub(crate) fn defer(&mut self) {
        self.heard = Instant::now();
    }

    /// The reply, and within it the error only if no other was reported.
    pub(crate) fn into_reply(self) -> Reply {
        let mut reply = self.reply.unwrap_or_default();
        if self.failed {
            reply.error = None;
        }
        reply
    }
}

impl Reply {
    fn parse(mut content: Value) -> Self {
        let status = content.get("status").and_then(Value::as_str).unwrap_or("ok");
        let aborted = matches!(status, "aborted" | "abort");
        let failed = status == "error";
        let payload = content.get("payload").and_then(Value::as_array);
        let exits = payload.is_some_and(|entries| entries.iter().any(asks_exit));
        let error = failed.then(|| error_report(&mut content));
        Self { aborted, error, exits }
    }
}

fn asks_exit(entry: &Value) -> bool {
    entry.get("source").and_then(Value::as_str) == Some("ask_exit")
        && entry.get("keepkernel").and_then(Value::as_bool) != Some(true)
}

fn error_report(content: &mut Value) -> ErrorReport {
    let mut field = |key: &str| content.get_mut(key).map(Value::take).unwrap_or_default();
    let (name, value) = (into_text(field("ename")), into_text(field("evalue")));
    let traceback = match field("traceback") {
        Value::Array(lines) => lines.into_iter().map(into_text).collect(),
        Value::Null => Vec::new(),
        other => vec![into_text(other)],
    };
    ErrorReport { name, value, traceback }
}

/// The MIME bundle of a display message. Text that comes in a list of lines is joined, as in notebooks; lists
/// in JSON types are data.
fn mime_bundle(content: &mut Value) -> Map<String, Value> {
    let Some(Value::Object(mut data)) = content.get_mut("data").map(Value::take) else { return Map::new() };
    for (kind, value) in &mut data {
        let is_json = kind == "application/json" || kind.ends_with("+json") || kind.starts_with("e2b/");
        let is_text = |value: &Value| value.as_array().is_some_and(|lines| lines.iter().all(Value::is_string));
        if !is_json && is_text(value) {
            *value = Value::String(into_text(value.take()));
        }
    }
    data
}

/// Text from whatever a kernel puts where text belongs.
fn into_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        Value::Array(parts) if parts.iter().all(Value::is_string) => parts.into_iter().map(into_text).collect(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed expectation is the test's failure")]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn cell() -> Cell {
        Cell::new(&Request::execute("1+1", false))
    }

    fn message(cell: &Cell, kind: &str, content: &Value) -> Message {
        Message {
            kind: kind.to_owned(),
            date: None,
            parent: Some(cell.id.clone()),
            content: Bytes::from(content.to_string()),
        }
    }

    fn hear(cell: &mut Cell, kind: &str, content: &Value) -> Option<Event> {
        let message = message(cell, kind, content);
        cell.hear(&message)
    }

    fn answer(cell: &mut Cell, content: &Value) {
        let message = message(cell, "execute_reply", content);
        cell.answer(&message);
    }

    #[test]
    fn a_cell_ends_with_idle_and_reply_in_either_order() {
        for idle_first in [true, false] {
            let mut cell = cell();
            for idle in [idle_first, !idle_first] {
                assert!(!cell.is_finished());
                if idle {
                    hear(&mut cell, "status", &json!({"execution_state": "idle"}));
                } else {
                    answer(&mut cell, &json!({"status": "ok"}));
                }
            }
            assert!(cell.is_finished());
            assert_eq!(cell.into_reply(), Reply::default());
        }
    }

    #[test]
    fn messages_of_other_requests_change_nothing() {
        let mut cell = cell();
        let mut foreign = message(&cell, "status", &json!({"execution_state": "idle"}));
        foreign.parent = Some("other".to_owned());
        assert_eq!(cell.hear(&foreign), None);
        foreign.parent = None;
        assert_eq!(cell.hear(&foreign), None);
        foreign.kind = "execute_reply".to_owned();
        cell.answer(&foreign);
        assert!(!cell.is_known());
        assert_eq!(cell.deadline(), None);
    }

    #[test]
    fn an_error_is_reported_once_and_odd_fields_become_text() {
        let mut cell = cell();
        let report = hear(&mut cell, "error", &json!({"ename": null, "evalue": 3, "traceback": "line"}));
        let expected = ErrorReport { name: String::new(), value: "3".to_owned(), traceback: vec!["line".to_owned()] };
        assert_eq!(report, Some(Event::Error(expected)));
        assert_eq!(hear(&mut cell, "error", &json!({"ename": "again"})), None);
        answer(&mut cell, &json!({"status": "error", "ename": "E"}));
        assert_eq!(cell.into_reply().error, None);
    }

    #[test]
    fn an_error_may_exist_in_the_reply_alone() {
        let mut cell = cell();
        answer(&mut cell, &json!({"status": "error", "ename": "", "evalue": "1", "traceback": []}));
        let error = cell.into_reply().error.expect("error");
        assert_eq!((error.name.as_str(), error.value.as_str()), ("", "1"));
    }

    #[test]
    fn refused_code_is_known_by_both_spellings_and_only_if_it_never_ran() {
        for status in ["aborted", "abort"] {
            let mut cell = cell();
            answer(&mut cell, &json!({"status": status}));
            assert!(cell.is_aborted());
            hear(&mut cell, "execute_input", &json!({"execution_count": 1}));
            assert!(!cell.is_aborted());
        }
    }

    #[test]
    fn leaving_is_announced_by_the_payload_unless_the_kernel_stays() {
        let exits = |payload: Value| Reply::parse(json!({"status": "ok", "payload": payload})).exits;
        assert!(exits(json!([{"source": "page"}, {"source": "ask_exit", "keepkernel": false}])));
        assert!(!exits(json!([{"source": "ask_exit", "keepkernel": true}])));
        assert!(!exits(json!("ask_exit")));
    }

    #[test]
    fn lines_of_text_are_joined_and_lists_in_json_are_kept() {
        let mut cell = cell();
        let data = json!({"text/plain": ["a\n", "b"], "application/json": ["a", "b"], "text/html": [1], "x/y": null});
        let Some(Event::Result { data, main: false }) = hear(&mut cell, "display_data", &json!({"data": data})) else {
            panic!("a result was expected");
        };
        let expected = json!({"text/plain": "a\nb", "application/json": ["a", "b"], "text/html": [1], "x/y": null});
        assert_eq!(Value::Object(data), expected);
        let odd = hear(&mut cell, "execute_result", &json!({"data": "odd"}));
        assert_eq!(odd, Some(Event::Result { data: Map::new(), main: true }));
    }

    #[test]
    fn output_that_cannot_be_read_is_told_and_other_types_are_ignored() {
        let mut cell = cell();
        let mut broken = message(&cell, "display_data", &json!({}));
        broken.content = Bytes::from_static(b"{");
        let Some(Event::Stream { channel: Channel::Stderr, text, .. }) = cell.hear(&broken) else {
            panic!("a note was expected");
        };
        assert!(text.contains("display_data"));
        broken.kind = "comm_open".to_owned();
        assert_eq!(cell.hear(&broken), None);
    }
}
