//! gRPC over cleartext HTTP/2 and gRPC-Web over any HTTP, through the generated `tonic` servers.

use std::{convert::Infallible, time::Duration};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use tokio::time::Instant;
use tonic::{Status, server::NamedService};
use tonic_web::GrpcWebLayer;
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};

use super::{errors::http::empty, handler::Reply};
use crate::{Body, connect::Deadline};

/// Which of the two protocols a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `application/grpc`.
    Grpc,
    /// `application/grpc-web` and `application/grpc-web-text`.
    Web,
    /// A relative of these with a codec that nobody here has.
    Unsupported,
}

impl Protocol {
    /// By the content type; `None`: neither.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let essence = value.split(';').next()?.trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/grpc" | "application/grpc+proto" => Some(Self::Grpc),
            "application/grpc-web"
            | "application/grpc-web+proto"
            | "application/grpc-web-text"
            | "application/grpc-web-text+proto" => Some(Self::Web),
            other => other.starts_with("application/grpc").then_some(Self::Unsupported),
        }
    }
}

type Service = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The generated servers by service name.
#[derive(Clone, Default)]
pub struct Grpc {
    services: Vec<(&'static str, Service)>,
}

impl Grpc {
    /// Adds a generated server. Compression and size limits are set on the server itself.
    #[must_use]
    pub fn service<S>(mut self, service: S) -> Self
    where
        S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.services.push((S::NAME, BoxCloneSyncService::new(service)));
        self
    }

    /// Calls the procedure under the path of the request.
    pub fn call(&self, protocol: Protocol, mut request: Request<Body>) -> Reply {
        let name = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or("");
        let service = self.services.iter().find(|(known, _)| *known == name).map(|(_, service)| service.clone());
        let Some(service) = service else {
            let response = error(protocol, Status::unimplemented("unknown service"));
            return Box::pin(std::future::ready(response));
        };
        match deadline(request.headers()) {
            Ok(Some(deadline)) => drop(request.extensions_mut().insert(deadline)),
            Ok(None) => {}
            Err(status) => return Box::pin(std::future::ready(error(protocol, status))),
        }
        Box::pin(async move {
            let outcome = match protocol {
                Protocol::Grpc => service.oneshot(request).await,
                Protocol::Web => GrpcWebLayer::new().layer(service).oneshot(request).await,
                Protocol::Unsupported => Ok(unsupported()),
            };
            outcome.unwrap_or_else(|never| match never {})
        })
    }
}

/// An error in the shape of the protocol: only headers, with status 200.
pub fn error(protocol: Protocol, status: Status) -> Response<Body> {
    let mut response = match protocol {
        Protocol::Unsupported => return unsupported(),
        Protocol::Grpc | Protocol::Web => status.into_http::<Body>(),
    };
    if protocol == Protocol::Web {
        let content_type = HeaderValue::from_static("application/grpc-web+proto");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response
}

fn unsupported() -> Response<Body> {
    let mut response = empty(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let known = "application/grpc, application/grpc+proto, application/grpc-web, application/grpc-web+proto";
    response.headers_mut().insert("accept-post", HeaderValue::from_static(known));
    response
}

/// `grpc-timeout`: at most eight digits and a unit, as the gRPC protocol over HTTP/2 has it.
fn deadline(headers: &HeaderMap) -> Result<Option<Deadline>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let limit = value.to_str().ok().and_then(time_limit);
    let limit = limit.ok_or_else(|| Status::invalid_argument("malformed grpc-timeout"))?;
    // A limit beyond what the clock can count is none.
    Ok(Instant::now().checked_add(limit).map(|at| Deadline { at, limit }))
}

fn time_limit(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
