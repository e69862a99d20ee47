//! The small routes: is the agent alive, how is the machine, which variables are set.

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use tracing::warn;

use super::errors::http::{empty, with_type};
use crate::{
    Body,
    system::{metrics::Metrics, settings::Settings},
};

/// `GET /health`: 204 as long as the agent listens, whether it is initialised or not.
pub(super) fn health() -> Response<Body> {
    uncached(empty(StatusCode::NO_CONTENT))
}

/// `GET /metrics`: one sample.
pub(super) fn metrics(metrics: &Metrics) -> Response<Body> {
    match metrics.sample() {
        Ok(sample) => json(&sample),
        Err(error) => {
            warn!(%error, "cannot read the machine's figures");
            empty(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// `GET /envs`: the environment that commands and code cells start with.
pub(super) fn envs(settings: &Settings) -> Response<Body> {
    json(&settings.environment())
}

fn json(value: &impl Serialize) -> Response<Body> {
    let Ok(mut body) = serde_json::to_vec(value) else { return empty(StatusCode::INTERNAL_SERVER_ERROR) };
    body.push(b'\n');
    uncached(with_type(StatusCode::OK, "application/json", body.into()))
}

fn uncached(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
