//! The one place that authenticates: the access token, the gate in front of every route, signed file URLs.
//!
//! There is at most one token. While there is none, everything is open: the platform's own edge guards such
//! sandboxes. Tokens are compared in constant time and wiped when they are replaced.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use base64_simd::STANDARD_NO_PAD;
use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

/// The request header that carries the access token.
pub const TOKEN_HEADER: &str = "x-access-token";

/// Routes that pass the gate without a token: liveness, the routes that check signatures themselves, and the one
/// that sets the token. Compared with method and path exactly as sent.
const EXEMPT: [(&str, &str); 4] = [("GET", "/health"), ("GET", "/files"), ("POST", "/files"), ("POST", "/init")];

/// Why a request is not let in.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AccessError {
    /// No token, or a wrong one, in front of a route that needs it.
    #[error("unauthorized access, please provide a valid access token or method signing if supported")]
    Unauthorized,
    /// A file request with a token in its header, but a wrong one; a signature does not make up for it.
    #[error("access token present in header but does not match")]
    WrongToken,
    /// A file request with neither token nor signature.
    #[error("missing signature query parameter")]
    MissingSignature,
    /// A signature for something else, or by another token.
    #[error("invalid signature")]
    InvalidSignature,
    /// A genuine signature whose time is over.
    #[error("signature is already expired")]
    ExpiredSignature,
}

/// Why a token may not be changed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ResetError {
    /// Another token than the present one.
    #[error("access token validation failed")]
    WrongToken,
    /// No token although there is one.
    #[error("access token reset not authorized")]
    NotAuthorized,
}

/// What a signed URL allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Download.
    Read,
    /// Upload.
    Write,
}

/// A file request as far as its signature covers it; texts as decoded from the query, empty where absent.
#[derive(Clone, Copy, Debug)]
pub struct FileAccess<'a> {
    /// What is to be done.
    pub operation: Operation,
    /// `path`.
    pub path: &'a str,
    /// `username`.
    pub user: &'a str,
    /// `signature`.
    pub signature: Option<&'a str>,
    /// `signature_expiration`, Unix seconds.
    pub expiration: Option<i64>,
}

/// The access token of the sandbox; never printed.
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes over a token text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Compares digests, so that neither the content nor the length shows in the time it takes.
    fn matches(&self, candidate: &[u8]) -> bool {
        Sha256::digest(self.0.as_bytes()).as_slice().ct_eq(Sha256::digest(candidate).as_slice()).into()
    }

    /// `v1_` and the unpadded standard base64 of SHA-256 over `path:operation:user:token[:expiration]`.
    fn signature(&self, access: &FileAccess<'_>) -> String {
        let operation = match access.operation {
            Operation::Read => "read",
            Operation::Write => "write",
        };
        let mut hash = Sha256::new();
        for part in [access.path, ":", operation, ":", access.user, ":", self.0.as_str()] {
            hash.update(part);
        }
        if let Some(expiration) = access.expiration {
            hash.update(format!(":{expiration}"));
        }
        format!("v1_{}", STANDARD_NO_PAD.encode_to_string(hash.finalize()))
    }
}

/// Holds the token and decides who gets in; cheap to clone.
#[derive(Clone, Default)]
pub struct Gate {
    token: Arc<RwLock<Option<Token>>>,
}

impl Gate {
    /// Replaces the token; `None` opens everything.
    pub fn set(&self, token: Option<Token>) {
        *self.write() = token;
    }

    /// Decides about any route by its method, its path as sent, and its token header.
    ///
    /// # Errors
    /// [`AccessError::Unauthorized`].
    pub fn admit(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), AccessError> {
        let token = self.read();
        let Some(token) = token.as_ref() else { return Ok(()) };
        if EXEMPT.contains(&(method.as_str(), path)) {
            return Ok(());
        }
        match headers.get(TOKEN_HEADER) {
            Some(candidate) if token.matches(candidate.as_bytes()) => Ok(()),
            _ => Err(AccessError::Unauthorized),
        }
    }

    /// Decides about a file request, which passes [`Gate::admit`] unseen: the token header if there is one,
    /// else the signature. `now` is Unix seconds by the sandbox's own clock.
    ///
    /// # Errors
    /// Every [`AccessError`] but [`AccessError::Unauthorized`].
    pub fn admit_file(&self, access: &FileAccess<'_>, headers: &HeaderMap, now: i64) -> Result<(), AccessError> {
        let token = self.read();
        let Some(token) = token.as_ref() else { return Ok(()) };
        if let Some(candidate) = headers.get(TOKEN_HEADER).filter(|candidate| !candidate.is_empty()) {
            return if token.matches(candidate.as_bytes()) { Ok(()) } else { Err(AccessError::WrongToken) };
        }
        let signature = access.signature.ok_or(AccessError::MissingSignature)?;
        let genuine: bool = token.signature(access).as_bytes().ct_eq(signature.as_bytes()).into();
        if !genuine {
            return Err(AccessError::InvalidSignature);
        }
        if access.expiration.is_some_and(|expiration| expiration < now) {
            return Err(AccessError::ExpiredSignature);
        }
        Ok(())
    }

    /// Decides whether the caller may replace the present token by `wanted`: while there is none, everybody;
    /// afterwards only who knows it, and it stays the same.
    ///
    /// # Errors
    /// [`ResetError`].
    pub fn admit_reset(&self, wanted: Option<&str>) -> Result<(), ResetError> {
        match (self.read().as_ref(), wanted) {
            (None, _) => Ok(()),
            (Some(token), Some(wanted)) if token.matches(wanted.as_bytes()) => Ok(()),
            (Some(_), Some(_)) => Err(ResetError::WrongToken),
            (Some(_), None) => Err(ResetError::NotAuthorized),
        }
    }

    // A panic while the lock is held cannot leave half a token behind: every write is one assignment.
    fn read(&self) -> RwLockReadGuard<'_, Option<Token>> {
        self.token.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Token>> {
        self.token.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
