//! Entries and watches: [`FilesystemError`] to its code.

use tonic::{Code, Status};

use crate::{files::error::FilesystemError, system::path::PathError};

impl From<FilesystemError> for Status {
    fn from(error: FilesystemError) -> Self {
        use FilesystemError as E;
        let code = match error {
            E::Caller(error) => return error.into(),
            E::Path(PathError::ForeignHome { .. } | PathError::Nul)
            | E::NotADirectoryExists(_)
            | E::NotADirectory(_)
            | E::RootRemoval
            | E::WatchNotADirectory(_)
            | E::NetworkMount(_) => Code::InvalidArgument,
            E::NotFound { .. }
            | E::SourceNotFound { .. }
            | E::PathNotFound(_)
            | E::WatchNotFound { .. }
            | E::UnknownWatcher(_) => Code::NotFound,
            E::DirectoryExists(_) => Code::AlreadyExists,
            E::CyclicLinks(_) => Code::FailedPrecondition,
            E::Path(_)
            | E::Lost(_)
            | E::Unreadable { .. }
            | E::Rename { .. }
            | E::Unresolvable(_)
            | E::List { .. }
            | E::Remove { .. }
            | E::WatchStat { .. }
            | E::MountStatus { .. }
            | E::Watch { .. } => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}
