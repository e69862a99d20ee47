//! Resource limits as requests write them.

use thiserror::Error;

use crate::{
    proto::process::ResourceLimit as Requested,
    sys::spawn::{Resource, ResourceLimit},
};

/// What is wrong with a resource limit of a request.
#[derive(Debug, Error)]
pub enum LimitError {
    /// No such resource.
    #[error("unknown resource '{}'; resources are: {}", .0, Resource::NAMES.join(", "))]
    UnknownResource(String),
    /// The limit that can be raised to is below the one that counts.
    #[error("the soft limit {soft} of '{resource}' is above its hard limit {hard}")]
    SoftAboveHard {
        /// Of what.
        resource: String,
        /// The one that counts.
        soft: String,
        /// The one that it can be raised to.
        hard: String,
    },
}

/// Checks the limits of a request; of two for the same resource the later one counts.
///
/// # Errors
/// [`LimitError`] for the first that makes no sense.
pub(super) fn check(requested: Vec<Requested>) -> Result<Vec<ResourceLimit>, LimitError> {
    let mut checked: Vec<ResourceLimit> = Vec::with_capacity(requested.len());
    for requested in requested {
        let limit = check_one(requested)?;
        // A limit that is lowered first could not be raised again without privileges.
        checked.retain(|earlier| earlier.resource != limit.resource);
        checked.push(limit);
    }
    Ok(checked)
}

fn check_one(requested: Requested) -> Result<ResourceLimit, LimitError> {
    let Requested { resource: name, soft, hard } = requested;
    let Some(resource) = Resource::named(&name) else { return Err(LimitError::UnknownResource(name)) };
    let soft = soft.unwrap_or(ResourceLimit::UNLIMITED);
    let hard = hard.unwrap_or(soft);
    if soft > hard {
        let text = |limit| match limit {
            ResourceLimit::UNLIMITED => "unlimited".to_owned(),
            limit => limit.to_string(),
        };
        return Err(LimitError::SoftAboveHard { resource: name, soft: text(soft), hard: text(hard) });
    }
    Ok(ResourceLimit { resource, soft, hard })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    fn one(resource: &str, soft: Option<u64>, hard: Option<u64>) -> Result<(u64, u64), String> {
        let checked = check(vec![Requested { resource: resource.to_owned(), soft, hard }]);
        checked.map(|limits| limits.first().map(|limit| (limit.soft, limit.hard)).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn absent_numbers_have_their_meaning() {
        assert_eq!(one("core", Some(0), None), Ok((0, 0)));
        assert_eq!(one("nofile", Some(64), Some(128)), Ok((64, 128)));
        assert_eq!(one("cpu", None, None), Ok((u64::MAX, u64::MAX)));
    }

    #[test]
    fn nonsense_is_refused_with_a_sentence() {
        let refusal = one("files", Some(1), None).unwrap_err();
        assert!(refusal.starts_with("unknown resource 'files'; resources are: cpu, fsize,"), "{refusal}");
        assert!(refusal.ends_with("rtprio, rttime"), "{refusal}");
        let refusal = one("nofile", Some(9), Some(8)).unwrap_err();
        assert_eq!(refusal, "the soft limit 9 of 'nofile' is above its hard limit 8");
        let refusal = one("nofile", None, Some(8)).unwrap_err();
        assert_eq!(refusal, "the soft limit unlimited of 'nofile' is above its hard limit 8");
    }
}
