//! Who may call: [`AccessError`] to 401 with a JSON object, on every route.

use http::{Response, StatusCode};

use super::http::json;
use crate::{Body, server::auth::AccessError};

impl From<AccessError> for Response<Body> {
    fn from(error: AccessError) -> Self {
        json(StatusCode::UNAUTHORIZED, &error.to_string())
    }
}
