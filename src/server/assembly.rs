//! Which services are behind the two ports, and how they are wired together.

use std::{
    future, io,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{Method, Request, Response, StatusCode};
use tracing::warn;

use super::{
    Parts, ServerError,
    auth::{FileAccess, Gate, Operation},
    errors::http::text,
    init::Init,
    procedures::Procedures,
    routes::{Agent, Table},
    status,
};
use crate::{
    Body,
    code::{self, CodeService},
    config::Config,
    files::{
        FilesystemService,
        transfer::{FileQuery, Transfers},
    },
    process::{KernelSpawner, ProcessService, Processes},
    system::{
        cgroup::ControlGroups, identity::Identity, metrics::Metrics, runtime_dir::RuntimeDir, settings::Settings,
    },
};

/// Starts all services. Needs a `tokio` runtime.
pub(super) fn assemble(config: &Config) -> Result<Parts, ServerError> {
    let failed = |what| move |source: io::Error| ServerError::Start { what, source };
    let identity = Identity::system();
    let settings = settings(config, &identity);
    let runtime_dir = RuntimeDir::create().map_err(failed("the directory for kernel sockets"))?;

    let control_groups = ControlGroups::below(config.cgroup_root.clone());
    let processes = Processes::with_control_groups(identity.clone(), settings.clone(), control_groups)
        .map_err(failed("the process table"))?;
    let filesystem =
        FilesystemService::new(identity.clone(), settings.clone()).map_err(failed("the filesystem watches"))?;
    let transfers = Transfers::new(identity.clone(), settings.clone()).with_watches(filesystem.watches().clone());
    let code_config =
        code::Config { kernel_dirs: config.kernel_dirs.clone(), runtime_dir: runtime_dir.path().to_owned() };
    let spawner = Arc::new(KernelSpawner::new(processes.clone()));
    let code = CodeService::start(code_config, settings.clone(), identity.clone(), spawner);

    let gate = Gate::default();
    let init = Init::new(gate.clone(), settings.clone(), !config.is_not_fc);
    let table = file_routes(routes(settings, init), &gate, &transfers);
    let procedures = Procedures::new(ProcessService::new(processes.clone()), filesystem.clone());
    let agent = Agent::new(gate, identity, table, Arc::new(procedures));

    let (port, first) = (code.clone(), code.clone());
    Ok(Parts {
        agent: Arc::new(agent),
        code: Arc::new(move |request: Request<Body>| {
            let code = port.clone();
            async move { code.call(request).await }
        }),
        first_kernel: Box::pin(async move { first.ready().await }),
        end: Box::new(move || {
            Box::pin(async move {
                processes.shutdown();
                filesystem.shutdown();
                code.shutdown().await;
                drop(runtime_dir);
            })
        }),
    })
}

/// What the command line has set, on top of what the machine says.
fn settings(config: &Config, identity: &Identity) -> Settings {
    let own = identity.own();
    let user = match &config.user {
        Some(user) => user.clone(),
        None if identity.is_bound() => own.name.clone(),
        None => "root".to_owned(),
    };
    if identity.is_bound() {
        warn!("running without root privileges: only the user '{}' can be served", own.name);
    }
    let settings = Settings::new(user, config.workdir.clone(), config.environment.clone());
    settings.set_internal("E2B_SANDBOX", if config.is_not_fc { "false" } else { "true" });
    settings
}

fn routes(settings: Settings, init: Init) -> Table {
    let metrics = Metrics::new();
    Table::default()
        .route(Method::GET, "/health", |_| future::ready(status::health()))
        .route(Method::GET, "/metrics", move |_| future::ready(status::metrics(&metrics)))
        .route(Method::GET, "/envs", move |_| future::ready(status::envs(&settings)))
        .route(Method::POST, "/init", move |request| {
            let init = init.clone();
            async move { init.call(request).await }
        })
}

/// The file routes. The gate lets the first two through, so that they come with a signature instead of the token.
fn file_routes(table: Table, gate: &Gate, transfers: &Transfers) -> Table {
    let (download, upload, compose) = (transfers.clone(), transfers.clone(), transfers.clone());
    let (reading, writing) = (gate.clone(), gate.clone());
    table
        .route(Method::GET, "/files", move |request| {
            let (transfers, access) = (download.clone(), file_query(&reading, Operation::Read, &request));
            async move {
                match access {
                    Ok(query) => transfers.download(query, request).await,
                    Err(refusal) => *refusal,
                }
            }
        })
        .route(Method::POST, "/files", move |request| {
            let (transfers, access) = (upload.clone(), file_query(&writing, Operation::Write, &request));
            async move {
                match access {
                    Ok(query) => transfers.upload(query, request).await,
                    Err(refusal) => *refusal,
                }
            }
        })
        .route(Method::POST, "/files/compose", move |request| {
            let transfers = compose.clone();
            async move { transfers.compose(request).await }
        })
}

/// The query of a file request that may be served.
fn file_query(gate: &Gate, operation: Operation, request: &Request<Body>) -> Result<FileQuery, Box<Response<Body>>> {
    let query = FileQuery::parse(request.uri().query())
        .map_err(|error| Box::new(text(StatusCode::BAD_REQUEST, error.to_string())))?;
    let access = FileAccess {
        operation,
        path: query.path.as_deref().unwrap_or_default(),
        user: query.username.as_deref().unwrap_or_default(),
        signature: query.signature.as_deref(),
        expiration: query.signature_expiration,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    gate.admit_file(&access, request.headers(), i64::try_from(now).unwrap_or(i64::MAX))
        .map_err(|error| Box::new(error.into()))?;
    Ok(query)
}
