//! The filesystem service: each method reads the request, does its work on the blocking pool in one hop, and
//! answers.

use std::{io, path::PathBuf};

use http::Extensions;
use tonic::{Request, Response, Status, async_trait};

use super::{
    creation,
    entry::EntryReader,
    error::FilesystemError,
    legacy, listing, relocation, removal,
    watch::{WatchOptions, Watches, polling::Pollers, stream},
};
use crate::{
    proto::filesystem::{
        CreateWatcherRequest, CreateWatcherResponse, EntryInfo, GetWatcherEventsRequest, GetWatcherEventsResponse,
        ListDirRequest, ListDirResponse, MakeDirRequest, MakeDirResponse, MoveRequest, MoveResponse, RemoveRequest,
        RemoveResponse, RemoveWatcherRequest, RemoveWatcherResponse, StatRequest, StatResponse, WatchDirRequest,
        filesystem_server::Filesystem,
    },
    system::{
        blocking,
        caller::{caller, keepalive_interval},
        identity::{Identity, User},
        path,
        settings::Settings,
    },
};

/// `filesystem.Filesystem`; cheap to clone.
#[derive(Clone, Debug)]
pub struct FilesystemService {
    identity: Identity,
    settings: Settings,
    watches: Watches,
    pollers: Pollers,
}

impl FilesystemService {
    /// The service with its one inotify instance. Needs a `tokio` runtime.
    ///
    /// # Errors
    /// What inotify_init(2) reports, such as EMFILE.
    pub fn new(identity: Identity, settings: Settings) -> io::Result<Self> {
        let watches = Watches::start(identity.clone())?;
        Ok(Self { identity, settings, pollers: Pollers::new(watches.clone()), watches })
    }

    /// Ends all WatchDir streams cleanly.
    pub fn shutdown(&self) {
        self.watches.shutdown();
    }

    /// The watches behind the service.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// Runs `work` on the blocking pool for the caller, with the paths that the client wrote resolved.
    async fn run<const N: usize, T: Send + 'static>(
        &self,
        extensions: Extensions,
        raw_paths: [String; N],
        work: impl FnOnce(&Self, &User, [PathBuf; N]) -> Result<T, FilesystemError> + Send + 'static,
    ) -> Result<T, Status> {
        let service = self.clone();
        blocking(move || {
            let user = caller(&extensions, &service.identity, &service.settings)?;
            let workdir = service.settings.default_workdir();
            let mut paths = [const { PathBuf::new() }; N];
            for (path, raw) in paths.iter_mut().zip(&raw_paths) {
                *path = path::resolve(raw, &user, workdir.as_deref())?;
            }
            work(&service, &user, paths)
        })
        .await
    }

    fn entry(&self, path: &std::path::Path) -> Result<EntryInfo, FilesystemError> {
        EntryReader::new(&self.identity).read(path)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FilesystemError> + Send + 'static,
) -> Result<T, Status> {
    Ok(blocking::run(work).await.map_err(FilesystemError::from)??)
}

/// The answer to a client, in the schema that it knows.
fn respond_entry<T>(entry: EntryInfo, legacy: bool, wrap: impl Fn(Option<EntryInfo>) -> T) -> Response<T> {
    let entry = if legacy { legacy::reduce_entry(entry) } else { entry };
    legacy::respond(wrap(Some(entry)), legacy)
}

#[async_trait]
impl Filesystem for FilesystemService {
    type WatchDirStream = stream::Events;

    async fn stat(&self, request: Request<StatRequest>) -> Result<Response<StatResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let entry = self.run(extensions, [message.path], |service, _, [path]| service.entry(&path)).await?;
        Ok(respond_entry(entry, legacy::is_legacy(&metadata), |entry| StatResponse { entry }))
    }

    async fn make_dir(&self, request: Request<MakeDirRequest>) -> Result<Response<MakeDirResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let work = |service: &Self, user: &User, [path]: [PathBuf; 1]| {
            creation::make(&path, user)?;
            service.watches.catch_up();
            service.entry(&path)
        };
        let entry = self.run(extensions, [message.path], work).await?;
        Ok(respond_entry(entry, legacy::is_legacy(&metadata), |entry| MakeDirResponse { entry }))
    }

    async fn r#move(&self, request: Request<MoveRequest>) -> Result<Response<MoveResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let work = |service: &Self, user: &User, [from, to]: [PathBuf; 2]| {
            relocation::relocate(&from, &to, user)?;
            service.watches.catch_up();
            service.entry(&to)
        };
        let entry = self.run(extensions, [message.source, message.destination], work).await?;
        Ok(respond_entry(entry, legacy::is_legacy(&metadata), |entry| MoveResponse { entry }))
    }

    async fn list_dir(&self, request: Request<ListDirRequest>) -> Result<Response<ListDirResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let depth = message.depth;
        let work = move |service: &Self, _: &User, [path]: [PathBuf; 1]| listing::list(&path, depth, &service.identity);
        let mut entries = self.run(extensions, [message.path], work).await?;
        let legacy = legacy::is_legacy(&metadata);
        if legacy {
            entries = entries.into_iter().map(legacy::reduce_entry).collect();
        }
        Ok(legacy::respond(ListDirResponse { entries }, legacy))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        self.run(extensions, [message.path], |_, _, [path]| removal::remove(&path)).await?;
        Ok(legacy::respond(RemoveResponse {}, legacy::is_legacy(&metadata)))
    }

    async fn watch_dir(&self, request: Request<WatchDirRequest>) -> Result<Response<stream::Events>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let legacy = legacy::is_legacy(&metadata);
        let options = WatchOptions {
            recursive: message.recursive,
            include_entry: message.include_entry,
            allow_network_mounts: message.allow_network_mounts,
        };
        let work = move |service: &Self, _: &User, [path]: [PathBuf; 1]| service.watches.open(&path, options);
        let watch = self.run(extensions, [message.path], work).await?;
        let reduce = move |event| if legacy { legacy::reduce_event(event) } else { event };
        let events = stream::events(&self.watches, watch, keepalive_interval(&metadata), reduce);
        Ok(legacy::respond(events, legacy))
    }

    async fn create_watcher(
        &self,
        request: Request<CreateWatcherRequest>,
    ) -> Result<Response<CreateWatcherResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let options = WatchOptions {
            recursive: message.recursive,
            include_entry: message.include_entry,
            allow_network_mounts: message.allow_network_mounts,
        };
        let work = move |service: &Self, _: &User, [path]: [PathBuf; 1]| service.pollers.create(&path, options);
        let watcher_id = self.run(extensions, [message.path], work).await?;
        Ok(legacy::respond(CreateWatcherResponse { watcher_id }, legacy::is_legacy(&metadata)))
    }

    async fn get_watcher_events(
        &self,
        request: Request<GetWatcherEventsRequest>,
    ) -> Result<Response<GetWatcherEventsResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let pollers = self.pollers.clone();
        let mut events = blocking(move || pollers.events(&message.watcher_id)).await?;
        let legacy = legacy::is_legacy(&metadata);
        if legacy {
            events = events.into_iter().map(legacy::reduce_event).collect();
        }
        Ok(legacy::respond(GetWatcherEventsResponse { events }, legacy))
    }

    async fn remove_watcher(
        &self,
        request: Request<RemoveWatcherRequest>,
    ) -> Result<Response<RemoveWatcherResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.pollers.remove(&message.watcher_id).map_err(Status::from)?;
        Ok(legacy::respond(RemoveWatcherResponse {}, legacy::is_legacy(&metadata)))
    }
}
