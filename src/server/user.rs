//! The user that a request names in its `Authorization: Basic` header (RFC 7617). The password is ignored: who
//! passed the gate may act for every user.

use base64_simd::STANDARD;
use http::{HeaderMap, header::AUTHORIZATION};

use crate::system::{
    caller::{self, CallerError, RequestUser},
    identity::Identity,
};

/// Looks up the named user. `None`: no such header, another scheme, or credentials that are not well-formed.
pub(super) fn named(headers: &HeaderMap, identity: &Identity) -> Result<Option<RequestUser>, CallerError> {
    basic_name(headers).map(|name| caller::named(&name, identity)).transpose()
}

/// What stands before the first colon of the decoded credentials.
fn basic_name(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, credentials) = value.split_at_checked("Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let decoded = STANDARD.decode_to_vec(credentials).ok()?;
    let end = decoded.iter().position(|byte| *byte == b':')?;
    Some(String::from_utf8_lossy(decoded.get(..end)?).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    fn name(value: &str) -> Option<String> {
        basic_name(&HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]))
    }

    fn encoded(text: &str) -> String {
        format!("Basic {}", STANDARD.encode_to_string(text))
    }

    #[test]
    fn the_name_ends_at_the_first_colon() {
        assert_eq!(name(&encoded("user:")).as_deref(), Some("user"));
        assert_eq!(name(&encoded("user:pass:word")).as_deref(), Some("user"));
        assert_eq!(name(&encoded(":")).as_deref(), Some(""));
        assert_eq!(name(&encoded("user:").replace("Basic", "bAsIc")).as_deref(), Some("user"));
    }

    #[test]
    fn anything_else_names_nobody() {
        for value in ["Bearer abc", "Basic", "Basic ", "Basic !!!", &encoded("user"), "", "Basically dXNlcjo="] {
            assert_eq!(name(value), None, "{value:?}");
        }
        assert_eq!(basic_name(&HeaderMap::new()), None);
    }
}
