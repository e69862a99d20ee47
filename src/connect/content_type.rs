//! Content types: which codec, and whether the body is enveloped.

use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Json,
    Proto,
}

/// A content type of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentType {
    pub(super) codec: Codec,
    /// Enveloped frames instead of one bare message.
    pub(super) streaming: bool,
    charset: bool,
}

impl ContentType {
    /// The request's content type, if it is one of the protocol's. `charset=utf-8` is the only parameter that
    /// JSON may carry.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
        let (codec, streaming) = match essence.trim().to_ascii_lowercase().as_str() {
            "application/json" => (Codec::Json, false),
            "application/proto" => (Codec::Proto, false),
            "application/connect+json" => (Codec::Json, true),
            "application/connect+proto" => (Codec::Proto, true),
            _ => return None,
        };
        let charset = match parameters.trim().to_ascii_lowercase().as_str() {
            "" => false,
            r#"charset=utf-8"# | r#"charset="utf-8""# if codec == Codec::Json => true,
            _ => return None,
        };
        Some(Self { codec, streaming, charset })
    }

    /// The canonical spelling, for the response.
    pub(super) fn header(self) -> HeaderValue {
        HeaderValue::from_static(match (self.streaming, self.codec, self.charset) {
            (false, Codec::Json, false) => "application/json",
            (false, Codec::Json, true) => "application/json; charset=utf-8",
            (false, Codec::Proto, _) => "application/proto",
            (true, Codec::Json, false) => "application/connect+json",
            (true, Codec::Json, true) => "application/connect+json; charset=utf-8",
            (true, Codec::Proto, _) => "application/connect+proto",
        })
    }
}

/// What a method accepts, for `Accept-Post`.
pub(super) fn accepted(streaming: bool) -> HeaderValue {
    HeaderValue::from_static(if streaming {
        "application/connect+json, application/connect+json; charset=utf-8, application/connect+proto"
    } else {
        "application/json, application/json; charset=utf-8, application/proto"
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    fn canonical(value: &str) -> Option<HeaderValue> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, value.parse().unwrap());
        ContentType::of(&headers).map(ContentType::header)
    }

    #[test]
    fn known_types_come_back_in_canonical_form() {
        for (sent, answered) in [
            ("application/json", "application/json"),
            ("Application/JSON;charset=UTF-8", "application/json; charset=utf-8"),
            ("application/json; charset=\"utf-8\"", "application/json; charset=utf-8"),
            ("application/proto", "application/proto"),
            ("application/connect+json", "application/connect+json"),
            ("application/connect+json; charset=utf-8", "application/connect+json; charset=utf-8"),
            ("application/connect+proto", "application/connect+proto"),
        ] {
            assert_eq!(canonical(sent).unwrap(), answered, "{sent}");
        }
    }

    #[test]
    fn other_types_are_refused() {
        for sent in [
            "",
            "text/plain",
            "application/jsonx",
            "application/connect+xml",
            "application/json; charset=latin1",
            "application/json; charset=utf-8; x=y",
            "application/proto; charset=utf-8",
            "application/grpc",
        ] {
            assert_eq!(canonical(sent), None, "{sent}");
        }
        assert_eq!(ContentType::of(&HeaderMap::new()), None);
    }
}
