//! What every service reads from a request: the user to act for and the pace of keep-alives.

use std::{sync::Arc, time::Duration};

use http::Extensions;
use thiserror::Error;
use tonic::metadata::MetadataMap;

use super::{
    identity::{Identity, IdentityError, User},
    settings::Settings,
};

/// The user that a request named in its `Authorization: Basic` header, already looked up. Carried in the
/// extensions of the HTTP request and of the `tonic` request made from it.
#[derive(Clone, Debug)]
pub struct RequestUser(pub Arc<User>);

/// Why there is nobody to act for.
#[derive(Debug, Error)]
pub enum CallerError {
    /// The `Authorization: Basic` header names a user that does not exist.
    #[error("invalid username: '{0}'")]
    InvalidUser(String),
    /// The request names no user and the default user does not exist.
    #[error("invalid default user: '{0}'")]
    InvalidDefaultUser(String),
    /// The request names no user and there is no default user.
    #[error("no user specified")]
    NoUser,
    /// The user exists but cannot be served, or the user database cannot be read.
    #[error(transparent)]
    Refused(IdentityError),
}

/// The user for a request: the one it named, else the default user.
///
/// # Errors
/// [`CallerError`] when the default user is needed and missing, unknown or refused.
pub fn caller(extensions: &Extensions, identity: &Identity, settings: &Settings) -> Result<Arc<User>, CallerError> {
    if let Some(RequestUser(user)) = extensions.get() {
        return Ok(user.clone());
    }
    let name = settings.default_user();
    if name.is_empty() {
        return Err(CallerError::NoUser);
    }
    identity.user(&name).map_err(|error| match error {
        IdentityError::UnknownUser { name } => CallerError::InvalidDefaultUser(name),
        other => CallerError::Refused(other),
    })
}

/// The user named by an `Authorization: Basic` header.
///
/// # Errors
/// [`CallerError::InvalidUser`] for unknown names, also the empty one.
pub fn named(name: &str, identity: &Identity) -> Result<RequestUser, CallerError> {
    identity.user(name).map(RequestUser).map_err(|error| match error {
        IdentityError::UnknownUser { name } => CallerError::InvalidUser(name),
        other => CallerError::Refused(other),
    })
}

/// The pace of keep-alive events on an idle stream when the client does not ask for one.
pub const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(90);

/// The pace of keep-alive events from the `Keepalive-Ping-Interval` header, in whole seconds. Absent,
/// unparsable, zero and negative values mean [`DEFAULT_KEEPALIVE`].
pub fn keepalive_interval(metadata: &MetadataMap) -> Duration {
    metadata
        .get("keepalive-ping-interval")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.trim().parse::<u32>().ok())
        .filter(|seconds| *seconds > 0)
        .map_or(DEFAULT_KEEPALIVE, |seconds| Duration::from_secs(u64::from(seconds)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    #[test]
    fn odd_keepalive_intervals_mean_the_default() {
        let of = |value: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("keepalive-ping-interval", value.parse().unwrap());
            keepalive_interval(&metadata)
        };
        assert_eq!(of("50"), Duration::from_secs(50));
        for odd in ["0", "-1", "", "x", "1.5", "99999999999"] {
            assert_eq!(of(odd), DEFAULT_KEEPALIVE, "{odd:?}");
        }
        assert_eq!(keepalive_interval(&MetadataMap::new()), DEFAULT_KEEPALIVE);
    }
}
