//! File routes: [`transfer::Error`] to an HTTP answer with a JSON body.

use http::{Response, StatusCode};

use super::http::json;
use crate::{Body, files::transfer::Error, system::identity::IdentityError};

impl From<Error> for Response<Body> {
    fn from(error: Error) -> Self {
        json(status(&error), &error.to_string())
    }
}

fn status(error: &Error) -> StatusCode {
    match error {
        Error::User { source: IdentityError::Unreadable { .. }, .. } => StatusCode::INTERNAL_SERVER_ERROR,
        Error::User { .. } => StatusCode::UNAUTHORIZED,
        Error::Missing(_) | Error::SourceMissing(_) => StatusCode::NOT_FOUND,
        Error::NoEncoding | Error::IdentityRefused => StatusCode::NOT_ACCEPTABLE,
        Error::Stalled(_) => StatusCode::REQUEST_TIMEOUT,
        Error::Inodes { .. } | Error::Space(_) | Error::MetadataSpace(_) => StatusCode::INSUFFICIENT_STORAGE,
        Error::NoUser
        | Error::Path { .. }
        | Error::DownloadDirectory(_)
        | Error::ContentEncoding(_)
        | Error::GzipHeader(_)
        | Error::Metadata(_)
        | Error::ContentType(_)
        | Error::PathRequired
        | Error::NoFileName
        | Error::SamePath { .. }
        | Error::UploadDirectory(_)
        | Error::ComposeBody(_)
        | Error::NoSources
        | Error::NoDestination
        | Error::Destination(_)
        | Error::Source { .. }
        | Error::SourceIsDestination(_)
        | Error::SourceIrregular(_) => StatusCode::BAD_REQUEST,
        Error::Check { .. }
        | Error::OpenDownload { .. }
        | Error::NotForm
        | Error::NoBoundary
        | Error::Form(_)
        | Error::Directories(_)
        | Error::Info { .. }
        | Error::Chown { .. }
        | Error::OpenUpload { .. }
        | Error::Write(_)
        | Error::MetadataWrite(_)
        | Error::CreateDestination(_)
        | Error::Append { .. }
        | Error::Finalize(_)
        | Error::Lost(_)
        | Error::Interrupted => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
