//! The query parameters of `/files`.

use thiserror::Error;

/// What a client asks for in the query of `GET /files` and `POST /files`, percent-decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileQuery {
    /// Which file; absolute, or relative to the user's home. Absent and empty mean different things to uploads.
    pub path: Option<String>,
    /// Whose home and ownership; a present but empty name is looked up literally, and fails.
    pub username: Option<String>,
    /// `v1_` and the base64 of a SHA-256, in place of an access token.
    pub signature: Option<String>,
    /// When the signature ends, in seconds of Unix time.
    pub signature_expiration: Option<i64>,
}

/// Why a query cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum QueryError {
    /// Each parameter has one value.
    #[error("Invalid format for parameter {0}: multiple values for single value parameter '{0}'")]
    Repeated(&'static str),
    /// The expiry is not a 64-bit decimal number.
    #[error("Invalid format for parameter signature_expiration: '{0}' is not an integer")]
    Expiration(String),
}

impl FileQuery {
    /// Reads the part of a URI after `?`. Unknown parameters are ignored.
    ///
    /// # Errors
    /// [`QueryError`] for a repeated parameter or an expiry that is no integer.
    pub fn parse(query: Option<&str>) -> Result<Self, QueryError> {
        let mut parsed = Self::default();
        let mut expiration = None;
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let (name, slot) = match &*name {
                "path" => ("path", &mut parsed.path),
                "username" => ("username", &mut parsed.username),
                "signature" => ("signature", &mut parsed.signature),
                "signature_expiration" => ("signature_expiration", &mut expiration),
                _ => continue,
            };
            if slot.replace(value.into_owned()).is_some() {
                return Err(QueryError::Repeated(name));
            }
        }
        if let Some(text) = expiration {
            parsed.signature_expiration = Some(text.parse().map_err(|_| QueryError::Expiration(text))?);
        }
        Ok(parsed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_absent_is_not_empty() {
        let query = FileQuery::parse(Some("path=%2Ftmp%2Fa%20b%2Bc+d&username=&other=1&other=2")).unwrap();
        assert_eq!(query.path.as_deref(), Some("/tmp/a b+c d"));
        assert_eq!(query.username.as_deref(), Some(""));
        assert_eq!((query.signature, query.signature_expiration), (None, None));
        assert_eq!(FileQuery::parse(None).unwrap(), FileQuery::default());
    }

    #[test]
    fn repeated_parameters_are_refused() {
        for query in ["path=a&path=a", "username=a&username=b", "signature=&signature=", "path&path"] {
            assert!(matches!(FileQuery::parse(Some(query)), Err(QueryError::Repeated(_))), "{query}");
        }
        let error = FileQuery::parse(Some("path=a&path=b")).unwrap_err().to_string();
        assert!(error.starts_with("Invalid format for parameter path: "), "{error}");
    }

    #[test]
    fn expiry_is_a_decimal_integer() {
        let of = |value: &str| FileQuery::parse(Some(&format!("signature_expiration={value}")));
        assert_eq!(of("-7").unwrap().signature_expiration, Some(-7));
        for odd in ["", "x", "1.5", "99999999999999999999", "0x10"] {
            assert!(matches!(of(odd), Err(QueryError::Expiration(_))), "{odd:?}");
        }
    }
}
