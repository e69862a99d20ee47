//! Which watcher sees which directory under which name.
//!
//! The kernel knows watches: one for each inode. A watcher knows names: each directory of its tree, relative to its
//! root. Both directions are kept here; everything else is built on `attach`, `detach` and their tree forms.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    outlet::{Event, Outlet, SELF},
    queue::Queue,
};
use crate::{
    files::entry::{EntryReader, below},
    proto::filesystem::EventType,
    system::identity::Identity,
};

/// Identifies a watcher inside the agent.
pub(super) type Key = u64;

/// What one client watches.
#[derive(Debug)]
pub(super) struct Watcher {
    /// The watched directory as resolved; may be a symbolic link to it.
    pub root: PathBuf,
    /// The same, cleaned: what event entries show.
    pub shown: PathBuf,
    pub recursive: bool,
    pub include_entry: bool,
    /// The watched directories, relative to the root, which is the empty path. Paths order by component, so a
    /// subtree is one range, and `foo` never takes `foobar` along.
    pub directories: BTreeMap<PathBuf, i32>,
    /// The watch on the nearest existing ancestor while the root is gone.
    pub guard: Option<i32>,
    pub outlet: Arc<Outlet>,
}

/// Why a watcher is interested in a kernel watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A directory of its tree, relative to its root.
    Directory(PathBuf),
    /// The place where this name must appear for the lost root to return.
    Guard(OsString),
}

/// One watcher's interest in one kernel watch.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub watcher: Key,
    pub role: Role,
}

/// All watches and watchers, behind one lock.
#[derive(Debug)]
pub(super) struct Tree {
    pub queue: Queue,
    pub identity: Identity,
    pub places: HashMap<i32, Vec<Place>>,
    pub watchers: HashMap<Key, Watcher>,
    /// Directories that left their place by a rename with this cookie and will arrive at another one.
    pub moving: HashMap<(Key, u32), PathBuf>,
    /// Entries told by a scan, and the last event that was queued when the scan ended: the kernel's own event for
    /// such an entry, if it is not younger, would tell it twice.
    pub told: HashMap<(Key, i32, OsString), u64>,
}

impl Tree {
    pub(super) fn new(queue: Queue, identity: Identity) -> Self {
        Self {
            queue,
            identity,
            places: HashMap::new(),
            watchers: HashMap::new(),
            moving: HashMap::new(),
            told: HashMap::new(),
        }
    }

    /// Whether the watcher sees this kernel watch under this name already.
    pub(super) fn is_attached(&self, key: Key, relative: &Path, watch: i32) -> bool {
        self.watchers.get(&key).is_some_and(|watcher| watcher.directories.get(relative) == Some(&watch))
    }

    pub(super) fn attach(&mut self, key: Key, relative: PathBuf, watch: i32) {
        self.detach(key, &relative);
        let Some(watcher) = self.watchers.get_mut(&key) else { return };
        watcher.directories.insert(relative.clone(), watch);
        self.places.entry(watch).or_default().push(Place { watcher: key, role: Role::Directory(relative) });
    }

    pub(super) fn detach(&mut self, key: Key, relative: &Path) {
        let Some(watch) = self.watchers.get_mut(&key).and_then(|watcher| watcher.directories.remove(relative)) else {
            return;
        };
        self.leave(watch, |place| {
            place.watcher == key && matches!(&place.role, Role::Directory(path) if path == relative)
        });
    }

    /// Detaches a directory with everything below it.
    pub(super) fn detach_tree(&mut self, key: Key, top: &Path) {
        for (relative, _) in self.subtree(key, top) {
            self.detach(key, &relative);
        }
    }

    /// Gives a directory and everything below it a new name.
    pub(super) fn rename_tree(&mut self, key: Key, from: &Path, to: &Path) {
        for (old, watch) in self.subtree(key, from) {
            let new = below(to, old.strip_prefix(from).unwrap_or_else(|_| Path::new("")));
            if let Some(watcher) = self.watchers.get_mut(&key) {
                watcher.directories.remove(&old);
                watcher.directories.insert(new.clone(), watch);
            }
            for place in self.places.entry(watch).or_default() {
                if place.watcher == key && place.role == Role::Directory(old.clone()) {
                    place.role = Role::Directory(new.clone());
                }
            }
        }
    }

    /// The directory and everything below it, with their watches.
    fn subtree(&self, key: Key, top: &Path) -> Vec<(PathBuf, i32)> {
        let Some(watcher) = self.watchers.get(&key) else { return Vec::new() };
        watcher
            .directories
            .range::<Path, _>((Bound::Included(top), Bound::Unbounded))
            .take_while(|(relative, _)| relative.starts_with(top))
            .map(|(relative, watch)| (relative.clone(), *watch))
            .collect()
    }

    pub(super) fn set_guard(&mut self, key: Key, watch: i32, name: &OsStr) {
        self.drop_guard(key);
        let Some(watcher) = self.watchers.get_mut(&key) else { return };
        watcher.guard = Some(watch);
        self.places.entry(watch).or_default().push(Place { watcher: key, role: Role::Guard(name.to_owned()) });
    }

    pub(super) fn drop_guard(&mut self, key: Key) {
        if let Some(watch) = self.watchers.get_mut(&key).and_then(|watcher| watcher.guard.take()) {
            self.leave(watch, |place| place.watcher == key && matches!(place.role, Role::Guard(_)));
        }
    }

    /// Forgets a watcher and every kernel watch that was only its own.
    pub(super) fn remove(&mut self, key: Key) {
        self.drop_guard(key);
        self.detach_tree(key, Path::new(""));
        self.watchers.remove(&key);
        self.moving.retain(|(watcher, _), _| *watcher != key);
    }

    fn leave(&mut self, watch: i32, is_leaving: impl Fn(&Place) -> bool) {
        let Some(places) = self.places.get_mut(&watch) else { return };
        places.retain(|place| !is_leaving(place));
        if places.is_empty() {
            self.places.remove(&watch);
            self.queue.unwatch(watch);
        }
    }

    /// Tells the watcher's client about an entry, relative to the root. Details are those of this very moment.
    pub(super) fn emit(&self, key: Key, relative: &Path, kind: EventType) {
        let Some(watcher) = self.watchers.get(&key) else { return };
        // After a rename or a removal, what stands there is another entry.
        let has_entry = matches!(kind, EventType::Create | EventType::Write | EventType::Chmod);
        let entry = (watcher.include_entry && has_entry)
            .then(|| {
                let (path, shown) = (below(&watcher.root, relative), below(&watcher.shown, relative));
                EntryReader::new(&self.identity).read_as(&path, &shown).ok().map(Box::new)
            })
            .flatten();
        let is_root = relative.as_os_str().is_empty();
        let name = if is_root { SELF.into() } else { relative.to_string_lossy().into_owned().into_boxed_str() };
        watcher.outlet.push(Event { name, kind, entry });
    }
}
