//! Which services are behind the two ports, and how they are wired together.

use std::{future, sync::Arc};

use http::{HeaderMap, Method, Request, Response};
use tonic::Status;

use super::{
    Parts, ServerError,
    auth::Gate,
    errors::http::{not_found, text},
    handler::{Procedures, Reply},
    init::Init,
    routes::{Agent, Table},
    status,
};
use crate::{
    Body,
    config::Config,
    system::{identity::Identity, metrics::Metrics, settings::Settings},
};

struct None;

impl Procedures for None {
    fn has(&self, _path: &str) -> bool {
        false
    }

    fn call(&self, _request: Request<Body>) -> Reply {
        Box::pin(async { not_found() })
    }

    fn error(&self, _headers: &HeaderMap, status: Status) -> Response<Body> {
        text(http::StatusCode::UNAUTHORIZED, status.message())
    }
}

pub(super) fn assemble(config: &Config) -> Result<Parts, ServerError> {
    let identity = Identity::system();
    let settings = Settings::new("root".to_owned(), config.workdir.clone(), config.environment.clone());
    let gate = Gate::default();
    let metrics = Arc::new(Metrics::new());
    let init = Init::new(gate.clone(), settings.clone(), !config.is_not_fc);
    let table = Table::default()
        .route(Method::GET, "/health", async |_| status::health())
        .route(Method::GET, "/metrics", move |_| future::ready(status::metrics(&metrics)))
        .route(Method::GET, "/envs", move |_| future::ready(status::envs(&settings)))
        .route(Method::POST, "/init", move |request| {
            let init = init.clone();
            async move { init.call(request).await }
        });
    let agent = Agent::new(gate, identity, table, Arc::new(None));
    Ok(Parts {
        agent: Arc::new(agent),
        code: Arc::new(async |_: Request<Body>| not_found()),
        first_kernel: Box::pin(async { Err("not built in".to_owned()) }),
        end: Box::new(|| Box::pin(async {})),
    })
}
