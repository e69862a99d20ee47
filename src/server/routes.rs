//! The agent port: who may call, for whom, and the one table from path to handler.
//!
//! Every request passes, in this order: cross-origin rules, access token, Basic user, route.

use std::sync::Arc;

use http::{Method, Request, Response};
use tonic::Status;

use super::{
    auth::Gate,
    cors,
    errors::http::{internal, method_not_allowed, not_found},
    handler::{Handler, Procedures, Reply, SharedHandler, contain, protocol_headers},
    user,
};
use crate::{Body, system::identity::Identity};

/// The handler of the agent port; cheap to clone.
#[derive(Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

struct Inner {
    gate: Gate,
    identity: Identity,
    table: Vec<Route>,
    procedures: Arc<dyn Procedures>,
}

struct Route {
    method: Method,
    path: &'static str,
    handler: SharedHandler,
}

/// Collects the routes of an [`Agent`].
#[derive(Default)]
pub struct Table {
    routes: Vec<Route>,
}

impl Table {
    /// Adds a plain route. The path is matched exactly as sent; no method stands in for another.
    #[must_use]
    pub fn route(mut self, method: Method, path: &'static str, handler: impl Handler) -> Self {
        self.routes.push(Route { method, path, handler: Arc::new(handler) });
        self
    }
}

impl Agent {
    /// An agent port with these plain routes and procedures.
    pub fn new(gate: Gate, identity: Identity, table: Table, procedures: Arc<dyn Procedures>) -> Self {
        Self { inner: Arc::new(Inner { gate, identity, table: table.routes, procedures }) }
    }
}

impl Handler for Agent {
    fn call(&self, request: Request<Body>) -> Reply {
        let inner = self.inner.clone();
        Box::pin(async move {
            if cors::is_preflight(&request) {
                return cors::preflight(request.headers());
            }
            let origin = cors::Origin::of(&request);
            let mut response = inner.admit(request).await;
            origin.admit(response.headers_mut());
            response
        })
    }
}

impl Inner {
    async fn admit(&self, mut request: Request<Body>) -> Response<Body> {
        if let Err(error) = self.gate.admit(request.method(), request.uri().path(), request.headers()) {
            return error.into();
        }
        match user::named(request.headers(), &self.identity) {
            Ok(Some(user)) => drop(request.extensions_mut().insert(user)),
            Ok(None) => {}
            Err(error) => return self.procedures.error(request.headers(), error.into()),
        }
        self.dispatch(request).await
    }

    async fn dispatch(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        if self.procedures.has(path) {
            if request.method() != Method::POST {
                return method_not_allowed([&Method::POST]);
            }
            let headers = protocol_headers(request.headers());
            return match contain(|| self.procedures.call(request)).await {
                Some(response) => response,
                None => self.procedures.error(&headers, Status::internal("internal error")),
            };
        }
        match self.find(request.method(), path) {
            Ok(handler) => contain(|| handler.call(request)).await.unwrap_or_else(internal),
            Err(allowed) if allowed.is_empty() => not_found(),
            Err(allowed) => method_not_allowed(allowed),
        }
    }

    /// The handler, or else the methods that the path has.
    fn find(&self, method: &Method, path: &str) -> Result<&SharedHandler, Vec<&Method>> {
        let routes = self.table.iter().filter(|route| route.path == path);
        match routes.clone().find(|route| route.method == *method) {
            Some(route) => Ok(&route.handler),
            None => Err(routes.map(|route| &route.method).collect()),
        }
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
