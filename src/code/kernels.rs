//! What the HTTP face asks of whoever runs kernels. One seam, so that routes and lines can be tried with scripted
//! events.

use std::{collections::BTreeMap, path::PathBuf, pin::Pin};

use futures_core::Stream;
use kernel_bridge::Event;
use thiserror::Error;

pub(super) use kernel_bridge::spawner::BoxFuture;

/// The events of one execution. Dropping it before [`Event::End`] interrupts the cell.
pub(super) type Events = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// A context as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) id: String,
    pub(super) language: String,
    pub(super) cwd: String,
}

/// A context to create.
#[derive(Clone, Debug)]
pub(super) struct NewContext {
    /// Name of a kernelspec.
    pub(super) kernel: String,
    /// The language as the client named it, in its normal form.
    pub(super) language: String,
    pub(super) cwd: PathBuf,
}

/// Why there is no new context.
#[derive(Debug, Error)]
pub(super) enum CreateError {
    #[error("no kernel is installed under the name '{0}'")]
    UnknownKernel(String),
    #[error("{0}")]
    BadCwd(String),
    #[error("{0}")]
    Failed(String),
}

/// Why a context stays as it is.
#[derive(Debug, Error)]
pub(super) enum ChangeError {
    #[error("no such context")]
    NotFound,
    #[error("{0}")]
    Failed(String),
}

/// Contexts and their executions, by id.
pub(super) trait Kernels: Send + Sync + 'static {
    /// Whether a kernelspec has this name.
    fn has_kernel(&self, name: &str) -> bool;

    /// Starts a context; completes when it can execute.
    fn create(&self, new: NewContext) -> BoxFuture<'_, Result<Described, CreateError>>;

    fn get(&self, id: &str) -> Option<Described>;

    /// All contexts in the order of their creation.
    fn list(&self) -> Vec<Described>;

    /// Queues a cell; `None` when the context is gone.
    fn execute(&self, id: &str, code: String, env: BTreeMap<String, String>) -> Option<Events>;

    fn restart<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), ChangeError>>;

    fn delete<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), ChangeError>>;

    /// Ends all kernels.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}
