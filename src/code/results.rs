//! Kernel events as lines of the answer: names and order of fields, and the quirks that clients rely on.

use bytes::Bytes;
use kernel_bridge::{Channel, Ending, ErrorReport, Event};
use serde_json::{Map, Value};

use super::{
    ndjson::{self, Line},
    timestamp,
};

/// MIME type and field name, in the order in which fields are written.
const FIELDS: [(&str, &str); 12] = [
    ("text/plain", "text"),
    ("text/html", "html"),
    ("text/markdown", "markdown"),
    ("image/svg+xml", "svg"),
    ("image/png", "png"),
    ("image/jpeg", "jpeg"),
    ("application/pdf", "pdf"),
    ("text/latex", "latex"),
    ("application/json", "json"),
    ("application/javascript", "javascript"),
    ("e2b/data", "data"),
    ("e2b/chart", "chart"),
];

/// The lines of one event, each of which leaves as a chunk of its own. The lines of [`Event::End`] close with
/// `end_of_execution`.
pub(super) fn lines(event: Event) -> Vec<Bytes> {
    match event {
        Event::Input { execution_count } => {
            vec![Line::new("number_of_executions").field("execution_count", &execution_count).end()]
        }
        Event::Stream { channel, text, date } => vec![stream(channel, &text, date.as_deref())],
        Event::Result { data, main } => vec![result(data, main)],
        Event::Error(report) => vec![error(&report.name, &report.value, &traceback(&report))],
        Event::End(ending) => end(ending),
    }
}

/// The line that tells clients and proxies that a silent execution is alive.
pub(super) fn keepalive() -> Bytes {
    Bytes::from_static(b"{\"type\": \"keepalive\"}\n")
}

fn stream(channel: Channel, text: &str, date: Option<&str>) -> Bytes {
    let kind = match channel {
        Channel::Stdout => "stdout",
        Channel::Stderr => "stderr",
    };
    let line = Line::with_capacity(kind, text.len() + text.len() / 8 + 96);
    line.field("text", text).field("timestamp", &timestamp::of(date)).end()
}

fn result(mut data: Map<String, Value>, main: bool) -> Bytes {
    let size: usize = data.values().map(|value| value.as_str().map_or(64, str::len)).sum();
    let mut line = Line::with_capacity("result", size + size / 16 + 128);
    for (mime, field) in FIELDS {
        // `remove` would move the last entry into the gap; what is left over keeps the kernel's order.
        match data.shift_remove(mime) {
            None | Some(Value::Null) => {}
            Some(value) if field == "text" => line = line.field(field, unquoted(&as_text(value))),
            Some(value) => line = line.field(field, &joined(mime, value)),
        }
    }
    let extra: Map<String, Value> = data
        .into_iter()
        .map(|(mime, value)| {
            let value = joined(&mime, value);
            (mime, value)
        })
        .collect();
    line.field("extra", &extra).field("is_main_result", &main).end()
}

/// Text may come as a list of pieces, as notebooks store it; JSON lists are data and stay.
fn joined(mime: &str, value: Value) -> Value {
    let is_text = mime.starts_with("text/")
        || mime.starts_with("image/")
        || matches!(mime, "application/javascript" | "application/pdf");
    match value {
        Value::Array(pieces) if is_text && pieces.iter().all(Value::is_string) => {
            Value::String(pieces.iter().filter_map(Value::as_str).collect())
        }
        other => other,
    }
}

/// Clients require a string here, whatever the kernel sent.
fn as_text(value: Value) -> String {
    match joined("text/plain", value) {
        Value::String(text) => text,
        other => ndjson::to_text(&other),
    }
}

/// Without the quotes of a string's `repr`: the first and the last character go if both are the same kind of
/// quote. A lone quote becomes empty, and inner escapes stay.
fn unquoted(text: &str) -> &str {
    for quote in ['\'', '"'] {
        if let Some(rest) = text.strip_prefix(quote) {
            return if rest.is_empty() { rest } else { rest.strip_suffix(quote).unwrap_or(text) };
        }
    }
    text
}

fn error(name: &str, value: &str, traceback: &str) -> Bytes {
    Line::new("error").field("name", name).field("value", value).field("traceback", traceback).end()
}

/// The items of a traceback mostly lack their line ends, some have them.
fn traceback(report: &ErrorReport) -> String {
    let mut text = String::new();
    for (index, item) in report.traceback.iter().enumerate() {
        let left = index.checked_sub(1).and_then(|left| report.traceback.get(left));
        if left.is_some_and(|left| !left.ends_with('\n')) {
            text.push('\n');
        }
        text.push_str(item);
    }
    text
}

/// Clients match on these names and texts, and they count two errors when a channel is lost.
fn end(ending: Ending) -> Vec<Bytes> {
    let closed =
        ("UnexpectedEndOfExecution", "Connection to the execution was closed before the execution was finished");
    let errors: &[(&str, &str)] = match ending {
        Ending::Finished => &[],
        Ending::Aborted => &[("ExecutionAborted", "Execution was aborted")],
        Ending::KernelDied => &[("ContextRestarting", "Context was restarted")],
        Ending::Restarted | Ending::Deleted => {
            &[("WebSocketError", "The connections was lost, rerun the code to get the results"), closed]
        }
        Ending::Unavailable => &[("WebSocketError", "Failed to send execution request"), closed],
    };
    let mut lines: Vec<Bytes> = errors.iter().map(|(name, value)| error(name, value, "")).collect();
    lines.push(Bytes::from_static(b"{\"type\": \"end_of_execution\"}\n"));
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]
mod tests {
    use serde_json::json;

    use super::*;

    fn text_of(event: Event) -> String {
        lines(event).iter().map(|line| std::str::from_utf8(line).unwrap()).collect()
    }

    fn result_of(data: Value, main: bool) -> String {
        let Value::Object(data) = data else { panic!("not an object") };
        text_of(Event::Result { data, main })
    }

    #[test]
    fn counts_and_streams() {
        assert_eq!(
            text_of(Event::Input { execution_count: 1 }),
            "{\"type\": \"number_of_executions\", \"execution_count\": 1}\n"
        );
        let date = Some("2026-11-20T20:02:55.100736Z".to_owned());
        assert_eq!(
            text_of(Event::Stream { channel: Channel::Stdout, text: "hi\n".into(), date }),
            "{\"type\": \"stdout\", \"text\": \"hi\\n\", \"timestamp\": \"2026-11-20T20:02:55.100736+00:00\"}\n"
        );
        let undated = text_of(Event::Stream { channel: Channel::Stderr, text: "é".into(), date: None });
        assert!(undated.starts_with("{\"type\": \"stderr\", \"text\": \"\\u00e9\", \"timestamp\": \"2"), "{undated}");
    }

    #[test]
    fn results_have_their_fields_in_order_and_the_rest_in_extra() {
        assert_eq!(
            result_of(json!({"text/plain": "2"}), true),
            "{\"type\": \"result\", \"text\": \"2\", \"extra\": {}, \"is_main_result\": true}\n"
        );
        assert_eq!(
            result_of(json!({"application/json": [1, 2, {"a": null}], "text/plain": "[1, 2, {'a': nan}]"}), true),
            "{\"type\": \"result\", \"text\": \"[1, 2, {'a': nan}]\", \"json\": [1, 2, {\"a\": null}], \"extra\": {}, \
             \"is_main_result\": true}\n"
        );
        assert_eq!(
            result_of(json!({"application/vnd.x+json": {"a": 1}, "text/html": "<b>", "text/plain": "p"}), false),
            "{\"type\": \"result\", \"text\": \"p\", \"html\": \"<b>\", \"extra\": {\"application/vnd.x+json\": {\"a\": 1}}, \
             \"is_main_result\": false}\n"
        );
        let mut every = Map::new();
        for (mime, _) in FIELDS.iter().rev() {
            every.insert((*mime).to_owned(), json!(1.0));
        }
        let fields: Vec<String> = FIELDS
            .iter()
            .map(
                |(_, field)| {
                    if *field == "text" { "\"text\": \"1.0\"".to_owned() } else { format!("\"{field}\": 1.0") }
                },
            )
            .collect();
        assert_eq!(
            result_of(Value::Object(every), false),
            format!("{{\"type\": \"result\", {}, \"extra\": {{}}, \"is_main_result\": false}}\n", fields.join(", "))
        );
    }

    #[test]
    fn nulls_are_dropped_and_empty_values_stay() {
        assert_eq!(
            result_of(json!({"text/html": null, "text/plain": "", "e2b/chart": {}, "application/json": null}), false),
            "{\"type\": \"result\", \"text\": \"\", \"chart\": {}, \"extra\": {}, \"is_main_result\": false}\n"
        );
        assert_eq!(
            result_of(json!({"text/latex": "x"}), false),
            "{\"type\": \"result\", \"latex\": \"x\", \"extra\": {}, \"is_main_result\": false}\n"
        );
    }

    #[test]
    fn quotes_around_text_go() {
        for (sent, wanted) in [
            ("'abc'", "abc"),
            ("\"it's\"", "it's"),
            (r#"'it\'s "q"'"#, r#"it\'s "q""#),
            ("'foo' and 'bar'", "foo' and 'bar"),
            ("'", ""),
            ("\"", ""),
            ("''", ""),
            ("'a\"", "'a\""),
            ("a'", "a'"),
            ("", ""),
        ] {
            assert_eq!(unquoted(sent), wanted, "{sent}");
        }
    }

    #[test]
    fn lists_of_text_are_joined_and_lists_of_data_are_not() {
        let line = result_of(
            json!({
                "text/plain": ["'a", "b'"], "text/html": ["<p>", "</p>"], "image/png": ["AA", "BB"],
                "application/json": ["x", "y"], "e2b/data": ["x"], "image/gif": ["R0", "lG"], "text/x": ["1", 2],
            }),
            false,
        );
        assert_eq!(
            line,
            "{\"type\": \"result\", \"text\": \"ab\", \"html\": \"<p></p>\", \"png\": \"AABB\", \"json\": [\"x\", \"y\"], \
             \"data\": [\"x\"], \"extra\": {\"image/gif\": \"R0lG\", \"text/x\": [\"1\", 2]}, \"is_main_result\": false}\n"
        );
        assert!(result_of(json!({"text/plain": ["a", 1]}), true).contains(r#""text": "[\"a\", 1]""#));
    }

    #[test]
    fn errors_join_their_traceback_by_lines() {
        let report = |items: &[&str]| ErrorReport {
            name: "E".into(),
            value: "v".into(),
            traceback: items.iter().map(|item| (*item).to_owned()).collect(),
        };
        assert_eq!(traceback(&report(&["a", "b\n", "c"])), "a\nb\nc");
        assert_eq!(traceback(&report(&["An exception\n", "SystemExit: 3\n"])), "An exception\nSystemExit: 3\n");
        assert_eq!(traceback(&report(&[])), "");
        assert_eq!(
            text_of(Event::Error(ErrorReport { name: String::new(), value: "1".into(), traceback: vec![] })),
            "{\"type\": \"error\", \"name\": \"\", \"value\": \"1\", \"traceback\": \"\"}\n"
        );
    }

    #[test]
    fn every_ending_says_why_and_closes() {
        const END: &str = "{\"type\": \"end_of_execution\"}\n";
        const CLOSED: &str = "{\"type\": \"error\", \"name\": \"UnexpectedEndOfExecution\", \"value\": \
             \"Connection to the execution was closed before the execution was finished\", \"traceback\": \"\"}\n";
        assert_eq!(text_of(Event::End(Ending::Finished)), END);
        let lost = format!(
            "{{\"type\": \"error\", \"name\": \"WebSocketError\", \"value\": \
             \"The connections was lost, rerun the code to get the results\", \"traceback\": \"\"}}\n{CLOSED}{END}"
        );
        assert_eq!(text_of(Event::End(Ending::Restarted)), lost);
        assert_eq!(text_of(Event::End(Ending::Deleted)), lost);
        for (ending, name, value) in [
            (Ending::KernelDied, "ContextRestarting", "Context was restarted"),
            (Ending::Aborted, "ExecutionAborted", "Execution was aborted"),
        ] {
            let wanted = format!(
                "{{\"type\": \"error\", \"name\": \"{name}\", \"value\": \"{value}\", \"traceback\": \"\"}}\n{END}"
            );
            assert_eq!(text_of(Event::End(ending)), wanted);
        }
        let unavailable = text_of(Event::End(Ending::Unavailable));
        assert!(unavailable.contains("Failed to send execution request") && unavailable.ends_with(END));
        assert_eq!(lines(Event::End(Ending::Unavailable)).len(), 3);
    }
}
