//! Who is calling: [`CallerError`] to `unauthenticated`.

use tonic::Status;

use crate::system::caller::CallerError;

impl From<CallerError> for Status {
    fn from(error: CallerError) -> Self {
        Self::unauthenticated(error.to_string())
    }
}
