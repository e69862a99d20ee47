//! `POST /files/compose`: one file from several, which are then gone.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    Error, Transfers, error::is_no_space, intake::Written, locks::FileId, off_thread, source::Ending, upload::Arrival,
};
use crate::{files::metadata, system::path::clean};

/// The longest request, in bytes.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Debug, Deserialize)]
struct Request {
    #[serde(default)]
    source_paths: Vec<String>,
    #[serde(default)]
    destination: String,
    username: Option<String>,
}

/// Reads the request and does the work on a blocking thread.
pub(super) async fn receive(transfers: &Transfers, arrival: &mut Arrival) -> Result<Written, Error> {
    let mut body = Vec::new();
    loop {
        let batch = arrival.batch().await?;
        batch.chunks.iter().for_each(|chunk| body.extend_from_slice(chunk));
        match batch.ending {
            Some(Ending::Complete) => break,
            Some(Ending::Broken) => return Err(Error::ComposeBody("unexpected EOF".to_owned())),
            None if body.len() > BODY_BYTES_MAX => return Err(Error::ComposeBody("too large".to_owned())),
            None => {}
        }
    }
    let transfers = transfers.clone();
    off_thread(move || {
        let request = serde_json::from_slice(&body).map_err(|error| Error::ComposeBody(error.to_string()))?;
        compose(&transfers, request)
    })
    .await
}

fn compose(transfers: &Transfers, request: Request) -> Result<Written, Error> {
    let Request { source_paths, destination, username } = request;
    if source_paths.is_empty() {
        return Err(Error::NoSources);
    }
    if destination.is_empty() {
        return Err(Error::NoDestination);
    }
    let user = transfers.user(username.as_deref())?;
    let path = transfers.resolve(&destination, &user).map_err(|error| match error {
        Error::Path { source, .. } => Error::Destination(source),
        other => other,
    })?;
    // A link stays; what it leads to is replaced.
    let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    let existing = fs::metadata(&real).ok();
    let existing_id = existing.as_ref().map(FileId::of);
    let mut sources = Vec::with_capacity(source_paths.len());
    for raw in source_paths {
        let source = transfers.resolve(&raw, &user).map_err(|error| match error {
            Error::Path { source, .. } => Error::Source { raw: raw.clone(), source },
            other => other,
        })?;
        if clean(&source) == clean(&path) {
            return Err(Error::SourceIsDestination(raw));
        }
        let meta = fs::metadata(&source).map_err(|_| Error::SourceMissing(raw.clone()))?;
        if !meta.is_file() {
            return Err(Error::SourceIrregular(raw));
        }
        // The same file under another name would be removed in the end, and the result with it.
        if existing_id == Some(FileId::of(&meta)) {
            return Err(Error::SourceIsDestination(raw));
        }
        sources.push(source);
    }
    transfers.make_parents(real.parent().unwrap_or(&real), &user)?;
    let draft = Draft::create(&real)?;
    fchown(&draft.file, Some(user.uid), Some(user.gid)).map_err(Error::CreateDestination)?;
    for source in &sources {
        draft.append(source)?;
    }
    draft.publish(&real, existing.as_ref())?;
    for source in &sources {
        // What is listed twice is gone the second time.
        let _ = fs::remove_file(source);
    }
    Ok(Written::file(&path, metadata::Metadata::new()))
}

/// The file under construction, beside its destination; removed unless published.
struct Draft {
    file: File,
    path: Option<PathBuf>,
}

impl Draft {
    fn create(destination: &Path) -> Result<Self, Error> {
        let mut name = destination.as_os_str().to_owned();
        name.push(format!(".e2b-compose.{}.tmp", uuid::Uuid::new_v4()));
        let path = PathBuf::from(name);
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path).map_err(|error| {
                if is_no_space(&error) { Error::Space(None) } else { Error::CreateDestination(error) }
            })?;
        Ok(Self { file, path: Some(path) })
    }

    fn append(&self, source: &Path) -> Result<(), Error> {
        let copied = File::open(source).and_then(|mut from| io::copy(&mut from, &mut &self.file));
        copied.map(drop).map_err(|error| {
            if is_no_space(&error) {
                Error::Space(None)
            } else {
                Error::Append { path: source.to_owned(), source: error }
            }
        })
    }

    /// Takes the place of the destination, with its mode and metadata.
    fn publish(mut self, destination: &Path, existing: Option<&Metadata>) -> Result<(), Error> {
        if let Some(meta) = existing.filter(|meta| meta.is_file()) {
            // Ownership has changed already; that would have cleared the special bits.
            self.file
                .set_permissions(fs::Permissions::from_mode(meta.permissions().mode()))
                .map_err(Error::Finalize)?;
            metadata::replace(&self.file, &metadata::read(destination)).map_err(Error::Finalize)?;
        }
        let path = self.path.as_ref().ok_or(Error::Interrupted)?;
        fs::rename(path, destination).map_err(Error::Finalize)?;
        self.path = None;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}
