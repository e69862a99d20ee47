//! Uploads and downloads: `GET /files`, `POST /files` and `POST /files/compose`.
//!
//! Requests have passed the door's checks of token and signature before they come here. All file work happens on
//! the blocking threads, in few hops: one for everything about a small file, then one for each large chunk.

mod body;
mod compose;
mod condition;
mod content;
mod download;
mod error;
mod form;
mod headers;
mod intake;
mod locks;
mod negotiation;
mod query;
mod range;
mod source;
mod target;
mod upload;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;

pub use self::{
    error::Error,
    headers::MetadataError,
    query::{FileQuery, QueryError},
};
use self::{locks::Locks, upload::Arrival};
use crate::{
    Body,
    files::watch::Watches,
    system::{
        blocking,
        identity::{Identity, User},
        path,
        settings::Settings,
    },
};

/// How long an upload may send nothing before it is given up.
const IDLE_LIMIT: Duration = Duration::from_secs(75);

/// Serves the file routes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Transfers {
    identity: Identity,
    settings: Settings,
    locks: Locks,
    watches: Option<Watches>,
    idle_limit: Duration,
}

impl Transfers {
    /// Serves the users of `identity` with the defaults of `settings`.
    pub fn new(identity: Identity, settings: Settings) -> Self {
        Self { identity, settings, locks: Locks::default(), watches: None, idle_limit: IDLE_LIMIT }
    }

    /// The same with watches that learn of new directories before anything is put there, so that watchers see each
    /// step of an upload.
    #[must_use]
    pub fn with_watches(mut self, watches: Watches) -> Self {
        self.watches = Some(watches);
        self
    }

    /// The same with another limit for uploads that send nothing (75 s unless set).
    #[must_use]
    pub fn with_idle_limit(mut self, idle_limit: Duration) -> Self {
        self.idle_limit = idle_limit;
        self
    }

    /// Answers `GET /files`: the file's content, whole or in ranges, plain or gzipped.
    pub async fn download(&self, query: FileQuery, request: Request<Body>) -> Response<Body> {
        let (transfers, (parts, _body)) = (self.clone(), request.into_parts());
        let response = off_thread(move || download::respond(&transfers, &query, &parts.headers)).await;
        response.unwrap_or_else(Response::from)
    }

    /// Answers `POST /files`: writes one raw body or the files of a form, and lists what was written.
    pub async fn upload(&self, query: FileQuery, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let mut arrival = Arrival::new(body, self.idle_limit);
        match upload::receive(self, query, parts.headers, &mut arrival).await {
            Ok(written) => json(&written, ""),
            Err(error) => {
                // A client that still sends would lose the answer to a reset connection.
                if !matches!(error, Error::Stalled(_)) {
                    arrival.drain().await;
                }
                error.into()
            }
        }
    }

    /// Answers `POST /files/compose`: appends files to each other into a new one and removes them.
    pub async fn compose(&self, request: Request<Body>) -> Response<Body> {
        let mut arrival = Arrival::new(request.into_body(), self.idle_limit);
        match compose::receive(self, &mut arrival).await {
            Ok(written) => json(&written, "\n"),
            Err(error) => error.into(),
        }
    }

    /// The user with this name, or the default user.
    fn user(&self, name: Option<&str>) -> Result<Arc<User>, Error> {
        let name = self.user_name(name)?;
        self.identity.user(&name).map_err(|source| Error::User { name, source })
    }

    fn user_name(&self, name: Option<&str>) -> Result<String, Error> {
        match name {
            Some(name) => Ok(name.to_owned()),
            None => Some(self.settings.default_user()).filter(|name| !name.is_empty()).ok_or(Error::NoUser),
        }
    }

    fn resolve(&self, raw: &str, user: &User) -> Result<PathBuf, Error> {
        path::resolve(raw, user, self.settings.default_workdir().as_deref())
            .map_err(|source| Error::Path { raw: raw.to_owned(), source })
    }

    /// Makes a directory with what is missing above it. Blocking.
    fn make_parents(&self, directory: &Path, user: &User) -> Result<(), Error> {
        let any_made = path::ensure_directories(directory, user).map_err(Error::Directories)?;
        if let Some(watches) = self.watches.as_ref().filter(|_| any_made) {
            watches.catch_up();
        }
        Ok(())
    }
}

/// Runs file work on a blocking thread.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    blocking::run(work).await?
}

fn json(value: &impl serde::Serialize, ending: &str) -> Response<Body> {
    // Strings, lists and maps with text keys always have a JSON form.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push_str(ending);
    let mut response = Response::new(Body::new(Full::new(Bytes::from(text))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
