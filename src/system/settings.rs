//! What the platform and the command line have set: default user, default working directory and the
//! environment that every process and code cell sees.
//!
//! One store for all services, so that variables given at sandbox creation reach commands and cells alike.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::watch;

/// Name and value of each variable.
pub type Environment = BTreeMap<String, String>;

/// The shared store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Settings {
    inner: Arc<RwLock<Inner>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    default_user: String,
    default_workdir: Option<String>,
    /// Set by the command line and replaced as a whole by `/init`.
    user: Environment,
    /// Set by the agent itself; wins over `user`.
    internal: Environment,
}

impl Settings {
    /// A store with a default user, maybe a default working directory, and the first user environment.
    pub fn new(default_user: String, default_workdir: Option<String>, user: Environment) -> Self {
        let inner = Inner { default_user, default_workdir, user, internal: Environment::new() };
        Self { inner: Arc::new(RwLock::new(inner)), changes: watch::Sender::new(0) }
    }

    /// The user for requests that name none; may be empty or unknown, which is told when it is used.
    pub fn default_user(&self) -> String {
        self.read().default_user.clone()
    }

    /// The directory that stands for an empty path, subject to path resolution.
    pub fn default_workdir(&self) -> Option<String> {
        self.read().default_workdir.clone()
    }

    /// The merged environment: user variables, then the agent's own, which cannot be overridden here.
    pub fn environment(&self) -> Environment {
        let inner = self.read();
        let mut merged = inner.user.clone();
        merged.extend(inner.internal.iter().map(|(name, value)| (name.clone(), value.clone())));
        merged
    }

    /// Replaces the default user.
    pub fn set_default_user(&self, name: String) {
        self.write().default_user = name;
        self.changed();
    }

    /// Replaces the default working directory.
    pub fn set_default_workdir(&self, dir: String) {
        self.write().default_workdir = Some(dir);
        self.changed();
    }

    /// Replaces the whole user environment.
    pub fn set_user_environment(&self, variables: Environment) {
        self.write().user = variables;
        self.changed();
    }

    /// Sets one of the agent's own variables, such as `E2B_SANDBOX`.
    pub fn set_internal(&self, name: &str, value: &str) {
        self.write().internal.insert(name.to_owned(), value.to_owned());
        self.changed();
    }

    /// Counts changes, so that code contexts can refresh what they hold.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|generation| *generation += 1);
    }

    // A panic while the lock is held cannot leave a half-written value behind: every write is one assignment.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_variables_win_and_user_variables_are_replaced() {
        let first = Environment::from([("A".to_owned(), "1".to_owned())]);
        let settings = Settings::new("root".to_owned(), None, first);
        settings.set_internal("E2B_SANDBOX", "false");
        let second = [("E2B_SANDBOX", "mine"), ("B", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        settings.set_user_environment(second.into());
        let merged = settings.environment();
        assert_eq!(merged.get("E2B_SANDBOX").map(String::as_str), Some("false"));
        assert_eq!(merged.get("B").map(String::as_str), Some("2"));
        assert_eq!(merged.get("A"), None);
    }

    #[test]
    fn every_change_is_counted() {
        let settings = Settings::new("root".to_owned(), None, Environment::new());
        let changes = settings.subscribe();
        settings.set_default_user("user".to_owned());
        settings.set_default_workdir("/srv".to_owned());
        assert_eq!(*changes.borrow(), 2);
    }
}
