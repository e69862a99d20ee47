//! `POST /init`: the platform says who the sandbox is, at its start and after every resume.
//!
//! The platform calls with a time limit of some milliseconds, again and again until one call is answered, and
//! takes every status but 204 for a failed start. Nothing here waits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::proto::timestamp::Timestamp;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{
    auth::{Gate, Token},
    errors::http::{empty, text},
};
use crate::{
    Body,
    config::INTERFACE_VERSION,
    system::{clock, settings::Settings},
};

/// The largest body that is read, in bytes. A bundle of certificates has a few hundred kilobytes.
const MAX_BODY: usize = 16 << 20;

/// Sets the machine's clock to a time since the Unix epoch.
type StepClock = fn(Duration) -> rustix::io::Result<()>;

/// What `/init` works on; cheap to clone.
#[derive(Clone)]
pub struct Init {
    gate: Gate,
    settings: Settings,
    step_clock: Option<StepClock>,
    /// The newest timestamp that was accepted. The lock makes one request's check and its changes one step.
    newest: Arc<Mutex<Option<(i64, i32)>>>,
}

/// The body. Unknown keys are ignored, wrong types are not.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wishes<'a> {
    timestamp: Option<Timestamp>,
    env_vars: Option<BTreeMap<String, Option<String>>>,
    /// Borrowed, so that a text with escapes, which no token has, is refused.
    #[serde(borrow)]
    access_token: Option<&'a str>,
    default_user: Option<String>,
    default_workdir: Option<String>,
    #[serde(rename = "hyperloopIP")]
    hyperloop_ip: Option<String>,
    #[serde(rename = "lifecycleID")]
    _lifecycle_id: Option<String>,
    volume_mounts: Option<Vec<VolumeMount>>,
    ca_bundle: Option<String>,
}

/// Read for the types' sake only.
#[derive(Deserialize)]
struct VolumeMount {
    #[serde(default, rename = "nfs_target")]
    _nfs_target: Option<String>,
    #[serde(default, rename = "path")]
    _path: Option<String>,
}

impl<'a> Wishes<'a> {
    /// An empty body, `null` or an object.
    fn parse(body: &'a [u8]) -> Option<Self> {
        if body.is_empty() {
            return Some(Self::default());
        }
        // A derived reader takes arrays for objects, too.
        if body.trim_ascii_start().starts_with(b"[") {
            return None;
        }
        let wishes: Option<Self> = serde_json::from_slice(body).ok()?;
        let wishes = wishes.unwrap_or_default();
        (wishes.access_token != Some("")).then_some(wishes)
    }
}

impl Init {
    /// With `owns_clock`, a timestamp far from the machine's time sets its clock.
    pub fn new(gate: Gate, settings: Settings, owns_clock: bool) -> Self {
        Self::with_clock(gate, settings, owns_clock.then_some(clock::step as StepClock))
    }

    fn with_clock(gate: Gate, settings: Settings, step_clock: Option<StepClock>) -> Self {
        Self { gate, settings, step_clock, newest: Arc::default() }
    }

    /// Answers one request.
    pub async fn call(&self, request: Request<Body>) -> Response<Body> {
        let mut response = match read(request.into_body()).await {
            Some(body) => self.apply(&body),
            None => empty(StatusCode::BAD_REQUEST),
        };
        response.headers_mut().insert("x-envd-version", HeaderValue::from_static(INTERFACE_VERSION));
        response
    }

    fn apply(&self, body: &[u8]) -> Response<Body> {
        let Some(wishes) = Wishes::parse(body) else { return empty(StatusCode::BAD_REQUEST) };
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.gate.admit_reset(wishes.access_token) {
            return text(StatusCode::UNAUTHORIZED, error.to_string());
        }
        let stamp = wishes.timestamp.as_ref().map(|timestamp| (timestamp.seconds, timestamp.nanos));
        // A repeated attempt may arrive after the one that followed it: the newest wish stands.
        let stale = stamp.is_some() && stamp < *newest;
        if !stale {
            *newest = stamp.or(*newest);
            self.grant(wishes, stamp);
        }
        let mut response = empty(StatusCode::NO_CONTENT);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn grant(&self, wishes: Wishes<'_>, stamp: Option<(i64, i32)>) {
        if let Some(reference) = stamp.and_then(since_epoch) {
            self.set_clock(reference);
        }
        if let Some(variables) = wishes.env_vars {
            let variables = variables.into_iter().map(|(name, value)| (name, value.unwrap_or_default()));
            self.settings.set_user_environment(variables.collect());
        }
        self.gate.set(wishes.access_token.map(|token| Token::new(token.to_owned())));
        if let Some(user) = wishes.default_user.filter(|user| !user.is_empty()) {
            self.settings.set_default_user(user);
        }
        if let Some(dir) = wishes.default_workdir.filter(|dir| !dir.is_empty()) {
            self.settings.set_default_workdir(dir);
        }
        // A refusal would fail the start of the sandbox; the log says what it lacks.
        for (field, asked) in [
            ("hyperloopIP", wishes.hyperloop_ip.is_some_and(|text| !text.is_empty())),
            ("caBundle", wishes.ca_bundle.is_some_and(|text| !text.is_empty())),
            ("volumeMounts", wishes.volume_mounts.is_some_and(|list| !list.is_empty())),
        ] {
            if asked {
                warn!(field, "the platform asks in /init for something that this agent does not do yet");
            }
        }
    }

    fn set_clock(&self, reference: Duration) {
        let Some(step) = self.step_clock else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if clock::needs_step(now, reference) {
            match step(reference) {
                Ok(()) => info!(from_ms = now.as_millis(), to_ms = reference.as_millis(), "set the clock"),
                Err(error) => warn!(%error, "cannot set the clock"),
            }
        }
    }
}

/// The duration since the epoch; nothing for times before it, which no clock here ever shows.
fn since_epoch((seconds, nanos): (i64, i32)) -> Option<Duration> {
    Some(Duration::new(seconds.try_into().ok()?, nanos.try_into().ok()?))
}

/// The whole body, which holds a token and is therefore wiped after use; `None` where it is too long or cut off.
async fn read(mut body: Body) -> Option<Zeroizing<Vec<u8>>> {
    let mut whole = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        if whole.len().saturating_add(data.len()) > MAX_BODY {
            return None;
        }
        whole.extend_from_slice(&data);
    }
    Some(whole)
}

#[cfg(test)]
#[path = "init_tests.rs"]
mod tests;
