//! The door: listeners, HTTP, who may call, the route table.

mod assembly;
pub mod auth;
mod begun;
mod cors;
pub mod errors;
pub mod grpc;
pub mod handler;
pub mod init;
pub mod listen;
mod procedures;
pub mod routes;
pub mod serve;
mod status;
pub mod stream;
mod unread;
mod user;

use std::{future::Future, io, pin::Pin, time::Duration};

use thiserror::Error;
use tokio::time::{self, Instant};
use tracing::info;

use self::{
    handler::SharedHandler,
    listen::{ListenError, Listener},
    serve::Connections,
};
use crate::config::{Address, Config, STARTUP_TARGET};

/// How long open requests may take to finish once the agent is told to stop. The platform replaces the binary and
/// counts on the old process being gone at once.
const DRAIN_LIMIT: Duration = Duration::from_millis(80);

/// Why the agent does not run.
#[derive(Debug, Error)]
pub enum ServerError {
    /// An address is taken, or not there.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Something that the services need is missing.
    #[error("cannot start {what}: {source}")]
    Start {
        /// Which part.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What is behind the two ports.
struct Parts {
    agent: SharedHandler,
    code: SharedHandler,
    /// Completes when the first kernel answers, or with the reason why none will.
    first_kernel: Pin<Box<dyn Future<Output = Result<(), String>> + Send>>,
    /// Ends all open streams in their own way.
    end: Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>,
}

/// An agent whose ports are bound and whose services are not started yet.
pub struct Server {
    config: Config,
    agent: Vec<Listener>,
    code: Vec<Listener>,
}

impl Server {
    /// Binds every address of the configuration.
    ///
    /// # Errors
    /// [`ServerError::Listen`] for the first address that cannot be bound.
    pub async fn bind(config: Config) -> Result<Self, ServerError> {
        let agent = bind_all(&config.agent_addresses).await?;
        let code = bind_all(&config.code_addresses).await?;
        Ok(Self { config, agent, code })
    }

    /// The bound addresses of the agent interface.
    pub fn agent_addresses(&self) -> impl Iterator<Item = &Address> {
        self.agent.iter().map(Listener::address)
    }

    /// The bound addresses of the code cell interface.
    pub fn code_addresses(&self) -> impl Iterator<Item = &Address> {
        self.code.iter().map(Listener::address)
    }

    /// Serves until `shutdown` completes, then ends open streams cleanly and returns within 100 ms. Commands keep
    /// running; kernels do not.
    ///
    /// # Errors
    /// [`ServerError::Start`].
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        let parts = assembly::assemble(&self.config)?;
        self.serve(parts, shutdown).await;
        Ok(())
    }

    async fn serve(self, parts: Parts, shutdown: impl Future<Output = ()>) {
        let connections = Connections::new();
        let agent = self.agent.into_iter().map(|listener| (listener, parts.agent.clone(), "agent"));
        let code = self.code.into_iter().map(|listener| (listener, parts.code.clone(), "code"));
        let mut loops = tokio::task::JoinSet::new();
        for (listener, handler, port) in agent.chain(code) {
            info!(target: STARTUP_TARGET, "listening on {} ({port})", listener.address());
            let connections = connections.clone();
            loops.spawn(async move { connections.accept(listener, handler).await });
        }
        let announcement = tokio::spawn(announce(parts.first_kernel));
        shutdown.await;
        let deadline = Instant::now() + DRAIN_LIMIT;
        info!("stopping");
        announcement.abort();
        connections.stop();
        // The listeners are closed, and their socket files removed, before anything else ends.
        while loops.join_next().await.is_some() {}
        let (_, ()) = tokio::join!(
            time::timeout_at(deadline, (parts.end)()),
            connections.drain(deadline.saturating_duration_since(Instant::now())),
        );
    }
}

/// Binds and runs an agent: [`Server::bind`] and [`Server::run`].
///
/// # Errors
/// [`ServerError`].
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
    Server::bind(config).await?.run(shutdown).await
}

async fn bind_all(addresses: &[Address]) -> Result<Vec<Listener>, ServerError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        listeners.push(Listener::bind(address).await?);
    }
    Ok(listeners)
}

async fn announce(first_kernel: impl Future<Output = Result<(), String>>) {
    let started = Instant::now();
    match first_kernel.await {
        Ok(()) => info!(target: STARTUP_TARGET, "first kernel ready after {} ms", started.elapsed().as_millis()),
        Err(reason) => tracing::warn!(target: STARTUP_TARGET, "no kernel for code cells: {reason}"),
    }
}
