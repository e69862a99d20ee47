//! Bodies of requests: reading them, checking them, and saying where they are wrong.

use std::collections::BTreeMap;

use http::{HeaderMap, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value, json};

use super::answer;
use crate::Body;

/// Largest request body; more than any notebook, less than the memory of a sandbox.
const MAX_BODY_BYTES: usize = 256 << 20;

/// A cell to run. Empty strings count as absent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Execute {
    pub(super) code: String,
    pub(super) context_id: Option<String>,
    pub(super) language: Option<String>,
    pub(super) env_vars: BTreeMap<String, String>,
}

/// A context to create. Empty strings count as absent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Create {
    pub(super) cwd: Option<String>,
    pub(super) language: Option<String>,
}

/// Why a body cannot be used.
#[derive(Debug)]
pub(super) enum Rejection {
    /// What is wrong and where, for a 422.
    Invalid(Vec<Value>),
    /// The body is larger than any that is taken.
    TooLarge,
    /// The body is not text, or the client went away while sending it.
    Unreadable,
}

impl Rejection {
    pub(super) fn into_response(self) -> Response<Body> {
        match self {
            Self::Invalid(details) => answer::detail(StatusCode::UNPROCESSABLE_ENTITY, details),
            Self::TooLarge => answer::detail(StatusCode::PAYLOAD_TOO_LARGE, "the request body is too large"),
            Self::Unreadable => answer::detail(StatusCode::BAD_REQUEST, "There was an error parsing the body"),
        }
    }
}

impl Execute {
    pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Rejection> {
        Self::parse(read_value(headers, body).await?)
    }

    fn parse(body: Value) -> Result<Self, Rejection> {
        let mut fields = Fields::of(body)?;
        let code = fields.required_string("code");
        let context_id = fields.string("context_id");
        let language = fields.string("language");
        let env_vars = fields.strings("env_vars");
        fields.finish(Self { code, context_id, language, env_vars })
    }
}

impl Create {
    pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Rejection> {
        Self::parse(read_value(headers, body).await?)
    }

    fn parse(body: Value) -> Result<Self, Rejection> {
        let mut fields = Fields::of(body)?;
        let cwd = fields.string("cwd");
        let language = fields.string("language");
        fields.finish(Self { cwd, language })
    }
}

async fn read_value(headers: &HeaderMap, body: Body) -> Result<Value, Rejection> {
    let content = match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(content) => content.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(Rejection::TooLarge),
        Err(_) => return Err(Rejection::Unreadable),
    };
    if content.is_empty() {
        return Ok(Value::Null);
    }
    let content = std::str::from_utf8(&content).map_err(|_| Rejection::Unreadable)?;
    if !is_json(headers) {
        return Ok(Value::String(content.to_owned()));
    }
    serde_json::from_str(content).map_err(|error| {
        let at = offset(content, error.line(), error.column());
        Rejection::Invalid(vec![json!({
            "type": "json_invalid",
            "loc": ["body", at],
            "msg": "JSON decode error",
            "input": {},
            "ctx": { "error": error.to_string() },
        })])
    })
}

/// A missing content type is taken for JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let Ok(value) = value.to_str() else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.strip_prefix("application/").is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

/// Characters before a place that is given as line and column in bytes, both from one.
fn offset(content: &str, line: usize, column: usize) -> usize {
    let before: usize = content.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let bytes = content.as_bytes().get(..before + column.saturating_sub(1)).unwrap_or(content.as_bytes());
    // Continuation bytes do not start a character.
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

/// Takes fields out of an object and collects what is wrong with them.
struct Fields {
    object: Map<String, Value>,
    details: Vec<Value>,
}

impl Fields {
    fn of(body: Value) -> Result<Self, Rejection> {
        match body {
            Value::Object(object) => Ok(Self { object, details: vec![] }),
            Value::Null => {
                Err(Rejection::Invalid(vec![complaint("missing", &["body"], "Field required", &Value::Null)]))
            }
            other => Err(Rejection::Invalid(vec![complaint(
                "model_attributes_type",
                &["body"],
                "Input should be a valid dictionary or object to extract fields from",
                &other,
            )])),
        }
    }

    fn required_string(&mut self, name: &str) -> String {
        match self.object.get_mut(name) {
            Some(Value::String(text)) => std::mem::take(text),
            Some(other) => {
                let complaint = not_a_string(&["body", name], other);
                self.details.push(complaint);
                String::new()
            }
            None => {
                let object = Value::Object(self.object.clone());
                self.details.push(complaint("missing", &["body", name], "Field required", &object));
                String::new()
            }
        }
    }

    fn string(&mut self, name: &str) -> Option<String> {
        match self.object.get_mut(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(std::mem::take(text)).filter(|text| !text.is_empty()),
            Some(other) => {
                let complaint = not_a_string(&["body", name], other);
                self.details.push(complaint);
                None
            }
        }
    }

    fn strings(&mut self, name: &str) -> BTreeMap<String, String> {
        let mut strings = BTreeMap::new();
        match self.object.remove(name) {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => {
                for (key, value) in entries {
                    match value {
                        Value::String(text) => {
                            strings.insert(key, text);
                        }
                        other => self.details.push(not_a_string(&["body", name, &key], &other)),
                    }
                }
            }
            Some(other) => {
                self.details.push(complaint("dict_type", &["body", name], "Input should be a valid dictionary", &other))
            }
        }
        strings
    }

    fn finish<T>(self, parsed: T) -> Result<T, Rejection> {
        if self.details.is_empty() { Ok(parsed) } else { Err(Rejection::Invalid(self.details)) }
    }
}

fn complaint(kind: &str, place: &[&str], message: &str, input: &Value) -> Value {
    json!({ "type": kind, "loc": place, "msg": message, "input": input })
}

fn not_a_string(place: &[&str], input: &Value) -> Value {
    complaint("string_type", place, "Input should be a valid string", input)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    async fn details(content_type: Option<&'static str>, content: &'static [u8]) -> Value {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type {
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
        }
        let body = Body::new(http_body_util::Full::new(bytes::Bytes::from_static(content)));
        match Execute::read(&headers, body).await {
            Err(Rejection::Invalid(details)) => Value::Array(details),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nulls_and_empty_strings_are_absent_and_unknown_fields_are_ignored() {
        let body = json!({"code": "1", "context_id": null, "language": "", "env_vars": null, "new": [1]});
        assert_eq!(Execute::parse(body).unwrap(), Execute { code: "1".into(), ..Execute::default() });
        assert_eq!(Create::parse(json!({"cwd": null, "language": ""})).unwrap(), Create::default());
        let body = json!({"code": "", "context_id": "c", "env_vars": {"A": "b\n\"$"}});
        let parsed = Execute::parse(body).unwrap();
        assert_eq!(parsed.context_id.as_deref(), Some("c"));
        assert_eq!(parsed.env_vars.get("A").map(String::as_str), Some("b\n\"$"));
    }

    #[tokio::test]
    async fn wrong_bodies_are_told_by_place() {
        let json = Some("application/json; charset=utf-8");
        assert_eq!(
            details(json, br#"{"language": "js"}"#).await,
            json!([{"type": "missing", "loc": ["body", "code"], "msg": "Field required", "input": {"language": "js"}}])
        );
        assert_eq!(
            details(None, br#"{"code": 1, "env_vars": {"A": 2, "B": null, "C": "x"}}"#).await,
            json!([
                {"type": "string_type", "loc": ["body", "code"], "msg": "Input should be a valid string", "input": 1},
                {"type": "string_type", "loc": ["body", "env_vars", "A"], "msg": "Input should be a valid string", "input": 2},
                {"type": "string_type", "loc": ["body", "env_vars", "B"], "msg": "Input should be a valid string", "input": null},
            ])
        );
        assert_eq!(details(json, b"").await[0]["loc"], json!(["body"]));
        assert_eq!(details(json, b"[1]").await[0]["type"], "model_attributes_type");
        assert_eq!(details(Some("text/plain"), b"{\"code\": \"1\"}").await[0]["type"], "model_attributes_type");
        assert_eq!(details(json, br#"{"code": "1", "env_vars": [1]}"#).await[0]["type"], "dict_type");
        let broken = details(json, "{\"code\": \"é\"\n x".as_bytes()).await;
        assert_eq!((&broken[0]["type"], &broken[0]["loc"]), (&json!("json_invalid"), &json!(["body", 14])));
    }

    #[tokio::test]
    async fn deep_nesting_and_bytes_that_are_no_text_are_refused() {
        let deep: &'static [u8] = vec![b'['; 100_000].leak();
        assert_eq!(details(None, deep).await[0]["type"], "json_invalid");
        let body = Body::new(http_body_util::Full::new(bytes::Bytes::from_static(b"{\"code\": \"\xff\"}")));
        assert!(matches!(Execute::read(&HeaderMap::new(), body).await, Err(Rejection::Unreadable)));
    }
}
