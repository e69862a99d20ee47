//! Registration of all methods of one service.

use std::{future::Future, sync::Arc};

use futures_core::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    codec::{Decodable, Encodable, WriteJson, write_json},
    router::Router,
};

/// The methods of one service, in the making; see [`Router::service`]. Handlers get the service and the
/// request: `|service, request| async move { service.list(request).await }`.
#[derive(Debug)]
pub struct Methods<T> {
    router: Router,
    name: String,
    service: Arc<T>,
}

impl<T: Send + Sync + 'static> Methods<T> {
    pub(super) fn register(router: Router, name: &str, service: T, register: impl FnOnce(Self) -> Self) -> Router {
        register(Self { router, name: name.to_owned(), service: Arc::new(service) }).router
    }

    fn path(&self, method: &str) -> String {
        format!("/{}/{method}", self.name)
    }

    /// See [`Router::unary`].
    #[must_use]
    pub fn unary<Req, Resp, F, Fut>(self, method: &str, handler: F) -> Self
    where
        Req: Decodable,
        Resp: Encodable,
        F: Fn(Arc<T>, Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Resp>, Status>> + Send + 'static,
    {
        self.unary_with(method, handler, write_json)
    }

    /// See [`Router::unary_with`].
    #[must_use]
    pub fn unary_with<Req, Resp, F, Fut>(mut self, method: &str, handler: F, write_json: WriteJson<Resp>) -> Self
    where
        Req: Decodable,
        Resp: Encodable,
        F: Fn(Arc<T>, Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Resp>, Status>> + Send + 'static,
    {
        let (path, service) = (self.path(method), self.service.clone());
        self.router = self.router.unary_with(path, move |request| handler(service.clone(), request), write_json);
        self
    }

    /// See [`Router::server_stream`].
    #[must_use]
    pub fn server_stream<Req, Resp, S, F, Fut>(self, method: &str, handler: F) -> Self
    where
        Req: Decodable,
        Resp: Encodable,
        S: Stream<Item = Result<Resp, Status>> + Send + 'static,
        F: Fn(Arc<T>, Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<S>, Status>> + Send + 'static,
    {
        self.server_stream_with(method, handler, write_json)
    }

    /// See [`Router::server_stream_with`].
    #[must_use]
    pub fn server_stream_with<Req, Resp, S, F, Fut>(
        mut self,
        method: &str,
        handler: F,
        write_json: WriteJson<Resp>,
    ) -> Self
    where
        Req: Decodable,
        Resp: Encodable,
        S: Stream<Item = Result<Resp, Status>> + Send + 'static,
        F: Fn(Arc<T>, Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<S>, Status>> + Send + 'static,
    {
        let (path, service) = (self.path(method), self.service.clone());
        self.router =
            self.router.server_stream_with(path, move |request| handler(service.clone(), request), write_json);
        self
    }

    /// See [`Router::client_stream`].
    #[must_use]
    pub fn client_stream<Req, Resp, F, Fut>(mut self, method: &str, handler: F) -> Self
    where
        Req: Decodable,
        Resp: Encodable,
        F: Fn(Arc<T>, Request<Streaming<Req>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Resp>, Status>> + Send + 'static,
    {
        let (path, service) = (self.path(method), self.service.clone());
        self.router = self.router.client_stream(path, move |request| handler(service.clone(), request));
        self
    }

    /// See [`Router::bidi_stream`].
    #[must_use]
    pub fn bidi_stream<Req, Resp, S, F, Fut>(mut self, method: &str, handler: F) -> Self
    where
        Req: Decodable,
        Resp: Encodable,
        S: Stream<Item = Result<Resp, Status>> + Send + 'static,
        F: Fn(Arc<T>, Request<Streaming<Req>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<S>, Status>> + Send + 'static,
    {
        let (path, service) = (self.path(method), self.service.clone());
        self.router = self.router.bidi_stream(path, move |request| handler(service.clone(), request));
        self
    }
}
