//! File routes: [`transfer::Error`] to an HTTP answer with a JSON body.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::{
    Body,
    files::transfer::{Error, QueryError},
    system::identity::IdentityError,
};

impl From<Error> for Response<Body> {
    fn from(error: Error) -> Self {
        let status = status(&error);
        let body = format!("{}\n", json!({ "code": status.as_u16(), "message": error.to_string() }));
        let mut response = Self::new(Body::new(http_body_util::Full::new(body.into())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

impl From<QueryError> for Response<Body> {
    fn from(error: QueryError) -> Self {
        Error::from(error).into()
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
        Error::Query(_)
        | Error::NoUser
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
        | Error::Interrupted => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
