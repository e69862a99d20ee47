//! Watchers whose client asks for events now and then. They outlive the request that made them and belong to
//! nobody; one that is forgotten ends after [`IDLE_LIMIT`].

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{Watch, WatchOptions, Watches};
use crate::{files::error::FilesystemError, proto::filesystem::FilesystemEvent};

/// How long a watcher lives without being asked. Clients have no other way to keep it than to ask.
pub const IDLE_LIMIT: Duration = Duration::from_hours(24);

const ID_ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID_LENGTH: usize = 20;

/// The polling watchers; cheap to clone.
#[derive(Clone, Debug)]
pub struct Pollers {
    watches: Watches,
    table: Arc<Mutex<HashMap<String, Poller>>>,
}

#[derive(Debug)]
struct Poller {
    watch: Arc<Watch>,
    asked: Instant,
}

impl Pollers {
    /// No watchers yet.
    pub fn new(watches: Watches) -> Self {
        Self { watches, table: Arc::default() }
    }

    /// Watches a directory and returns the watcher's id. Blocking.
    ///
    /// # Errors
    /// As for [`Watches::open`].
    pub fn create(&self, path: &Path, options: WatchOptions) -> Result<String, FilesystemError> {
        let watch = Arc::new(self.watches.open(path, options)?);
        let id = new_id();
        let mut table = self.table();
        table.retain(|_, poller| poller.asked.elapsed() < IDLE_LIMIT);
        table.insert(id.clone(), Poller { watch, asked: Instant::now() });
        Ok(id)
    }

    /// All events since the last call, up to this very moment. Blocking.
    ///
    /// # Errors
    /// [`FilesystemError::UnknownWatcher`].
    pub fn events(&self, id: &str) -> Result<Vec<FilesystemEvent>, FilesystemError> {
        let watch = {
            let mut table = self.table();
            let poller = table.get_mut(id).ok_or_else(|| FilesystemError::UnknownWatcher(id.to_owned()))?;
            poller.asked = Instant::now();
            poller.watch.clone()
        };
        Ok(watch.poll())
    }

    /// Ends a watcher.
    ///
    /// # Errors
    /// [`FilesystemError::UnknownWatcher`], also the second time.
    pub fn remove(&self, id: &str) -> Result<(), FilesystemError> {
        self.table().remove(id).map(drop).ok_or_else(|| FilesystemError::UnknownWatcher(id.to_owned()))
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Poller>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `w` and 20 random characters: whoever guesses an id can read another client's events.
fn new_id() -> String {
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    let random = first.as_bytes().iter().enumerate().chain(second.as_bytes().iter().enumerate());
    let letters = random
        // Bytes 6 and 8 of a UUID carry its version and variant.
        .filter(|(position, _)| !matches!(position, 6 | 8))
        .filter_map(|(_, byte)| ID_ALPHABET.get(usize::from(*byte) % ID_ALPHABET.len()))
        .map(|letter| char::from(*letter));
    std::iter::once('w').chain(letters.take(ID_LENGTH)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_shape_that_clients_expect_and_do_not_repeat() {
        let ids: std::collections::HashSet<String> = (0..1000).map(|_| new_id()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            assert!(id.len() == 21 && id.starts_with('w'), "{id}");
            assert!(id.bytes().all(|byte| ID_ALPHABET.contains(&byte)), "{id}");
        }
    }
}
