//! The table from paths to handlers.

use std::{collections::HashMap, fmt, future::Future, pin::Pin, sync::Arc};

use futures_core::Stream;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body_util::Full;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::{
    call::Call,
    codec::{Decodable, Encodable, WriteJson, write_json},
    content_type::{ContentType, accepted},
    methods::Methods,
    stream, unary,
};
use crate::Body;

/// The largest message that a router accepts unless told otherwise, in bytes after decompression.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

struct Route {
    streaming: bool,
    serve: Box<dyn Fn(Call) -> Answer + Send + Sync>,
}

/// Answers Connect requests: paths of the form `/package.Service/Method` to handlers with the signatures that
/// `tonic` generates. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    routes: HashMap<String, Arc<Route>>,
    max_message_bytes: usize,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.routes.keys()).finish()
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl Router {
    /// A router without methods.
    pub fn new() -> Self {
        Self { routes: HashMap::new(), max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES }
    }

    /// Bounds one request message, before and after decompression. At most 4 GiB, what a frame can hold.
    #[must_use]
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes.min(usize::try_from(u32::MAX).unwrap_or(usize::MAX));
        self
    }

    /// Adds a method with one message each way.
    #[must_use]
    pub fn unary<Req, Resp, F, Fut>(self, path: impl Into<String>, handler: F) -> Self
    where
        Req: Decodable,
        Resp: Encodable,
        F: Fn(tonic::Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<tonic::Response<Resp>, Status>> + Send + 'static,
    {
        self.unary_with(path, handler, write_json)
    }

    /// [`Router::unary`] with a JSON writer of the method's own.
    #[must_use]
    pub fn unary_with<Req, Resp, F, Fut>(self, path: impl Into<String>, handler: F, write_json: WriteJson<Resp>) -> Self
    where
        Req: Decodable,
        Resp: Encodable,
        F: Fn(tonic::Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<tonic::Response<Resp>, Status>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.route(path.into(), false, move |call| Box::pin(unary::serve(call, handler.clone(), write_json)))
    }

    /// Adds a method with one message in and many out.
    #[must_use]
    pub fn server_stream<Req, Resp, S, F, Fut>(self, path: impl Into<String>, handler: F) -> Self
    where
        Req: Decodable,
        Resp: Encodable,
        S: Stream<Item = Result<Resp, Status>> + Send + 'static,
        F: Fn(tonic::Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<tonic::Response<S>, Status>> + Send + 'static,
    {
        self.server_stream_with(path, handler, write_json)
    }

    /// [`Router::server_stream`] with a JSON writer of the method's own, which puts each message straight
    /// into its frame.
    #[must_use]
    pub fn server_stream_with<Req, Resp, S, F, Fut>(
        self,
        path: impl Into<String>,
        handler: F,
        write_json: WriteJson<Resp>,
    ) -> Self
    where
        Req: Decodable,
        Resp: Encodable,
        S: Stream<Item = Result<Resp, Status>> + Send + 'static,
        F: Fn(tonic::Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<tonic::Response<S>, Status>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.route(path.into(), true, move |call| Box::pin(stream::serve_server(call, handler.clone(), write_json)))
    }

    /// Adds a method with many messages in and one out.
    #[must_use]
    pub fn client_stream<Req, Resp, F, Fut>(self, path: impl Into<String>, handler: F) -> Self
    where
        Req: Decodable,
        Resp: Encodable,
        F: Fn(tonic::Request<Streaming<Req>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<tonic::Response<Resp>, Status>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.route(path.into(), true, move |call| Box::pin(stream::serve_client(call, handler.clone(), write_json)))
    }

    /// Adds a method with many messages each way. Over HTTP/1.1 most clients send everything before they read.
    #[must_use]
    pub fn bidi_stream<Req, Resp, S, F, Fut>(self, path: impl Into<String>, handler: F) -> Self
    where
        Req: Decodable,
        Resp: Encodable,
        S: Stream<Item = Result<Resp, Status>> + Send + 'static,
        F: Fn(tonic::Request<Streaming<Req>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<tonic::Response<S>, Status>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.route(path.into(), true, move |call| Box::pin(stream::serve_bidi(call, handler.clone(), write_json)))
    }

    /// Adds the methods of one service under `/name/`; each handler gets the service and the request.
    ///
    /// ```
    /// use envd::{connect::Router, proto::process::process_server::Process};
    ///
    /// fn routes(service: impl Process) -> Router {
    ///     Router::new().service("process.Process", service, |methods| {
    ///         methods
    ///             .unary("List", |s, r| async move { s.list(r).await })
    ///             .server_stream("Start", |s, r| async move { s.start(r).await })
    ///             .client_stream("StreamInput", |s, r| async move { s.stream_input(r).await })
    ///     })
    /// }
    /// ```
    #[must_use]
    pub fn service<T>(self, name: &str, service: T, register: impl FnOnce(Methods<T>) -> Methods<T>) -> Self
    where
        T: Send + Sync + 'static,
    {
        Methods::register(self, name, service, register)
    }

    /// Whether a method answers at this path.
    pub fn has(&self, path: &str) -> bool {
        self.routes.contains_key(path)
    }

    /// Answers one request. Never fails: errors are responses.
    pub async fn call(&self, request: Request<Body>) -> Response<Body> {
        let arrived = Instant::now();
        let Some(route) = self.routes.get(request.uri().path()).cloned() else {
            let mut response = Response::new(Body::new(Full::from("404 page not found\n")));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            return response;
        };
        if request.method() != Method::POST {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, ALLOW, HeaderValue::from_static("POST"));
        }
        let content_type = ContentType::of(request.headers()).filter(|found| found.streaming == route.streaming);
        let Some(content_type) = content_type else {
            let name = HeaderName::from_static("accept-post");
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, name, accepted(route.streaming));
        };
        let (parts, body) = request.into_parts();
        let max_message_bytes = self.max_message_bytes;
        (route.serve)(Call { parts, body, content_type, max_message_bytes, arrived }).await
    }

    fn route(mut self, path: String, streaming: bool, serve: impl Fn(Call) -> Answer + Send + Sync + 'static) -> Self {
        self.routes.insert(path, Arc::new(Route { streaming, serve: Box::new(serve) }));
        self
    }
}

fn refuse(status: StatusCode, name: HeaderName, value: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(name, value);
    response
}
