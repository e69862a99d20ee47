//! Looking at directories: when a watcher starts, when a directory appears in its tree, when its root returns,
//! and when the kernel has dropped events.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use rustix::{
    fs::inotify::{ReadFlags, WatchFlags},
    io::Errno,
};

use super::tree::{Key, Tree};
use crate::{
    files::{
        entry::below,
        links::{LinkError, canonicalize},
    },
    proto::filesystem::EventType,
};

/// Reads, opens and closes are not watched: they would wake the agent for nothing.
const WATCHED: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ATTRIB);
/// Enough to see a lost root return.
const GUARDED: WatchFlags =
    WatchFlags::CREATE.union(WatchFlags::MOVED_TO).union(WatchFlags::DELETE_SELF).union(WatchFlags::MOVE_SELF);
/// How often a root may come and go while it is looked for, before its guard is trusted.
const MAX_REVIVAL_ATTEMPTS: usize = 8;

/// What to tell about the entries that a scan finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// They were there before the watcher.
    Nothing,
    /// Their directory is new, so they are; files with content have been written, too.
    Created,
    /// Their directory came from elsewhere with them.
    MovedIn,
}

/// An entry found by a scan that is to be told.
struct Found {
    watch: i32,
    name: OsString,
    path: PathBuf,
    is_written: bool,
}

impl Tree {
    /// Like [`Tree::adopt`] for a directory that turned up in the tree; one that is gone again is no matter.
    pub(super) fn follow(&mut self, key: Key, top: &Path, report: Report) {
        if let Err(errno) = self.adopt(key, top, report)
            && errno == Errno::NOSPC
        {
            tracing::warn!("fs.inotify.max_user_watches is used up: a new directory is not watched");
        }
    }

    /// Watches a directory of the tree, and if the watcher is recursive everything below it.
    ///
    /// # Errors
    /// What inotify_add_watch(2) reports for the directory itself, and ENOSPC anywhere below it when a watcher
    /// starts. Other directories below that cannot be watched are left out.
    pub(super) fn adopt(&mut self, key: Key, top: &Path, report: Report) -> Result<(), Errno> {
        let Some((root, recursive)) = self.watchers.get(&key).map(|watcher| (watcher.root.clone(), watcher.recursive))
        else {
            return Ok(());
        };
        let mut found = Vec::new();
        let mut open = vec![top.to_owned()];
        while let Some(directory) = open.pop() {
            let is_root = directory.as_os_str().is_empty();
            let path = below(&root, &directory);
            let watch = match self.queue.watch(&path, watch_flags(is_root)) {
                Ok(watch) => watch,
                Err(errno) if directory == top || (errno == Errno::NOSPC && report == Report::Nothing) => {
                    return Err(errno);
                }
                Err(_) => continue,
            };
            if self.is_attached(key, &directory, watch) {
                continue;
            }
            self.attach(key, directory.clone(), watch);
            if is_root && report != Report::Nothing {
                self.emit(key, &directory, EventType::Create);
            }
            if !recursive && report == Report::Nothing {
                continue;
            }
            // The watch comes first: what appears while the directory is read is either found or queued, or both.
            let children = children(&path);
            if report != Report::Nothing {
                found.extend(children.iter().map(|(name, kind)| Found {
                    watch,
                    name: name.clone(),
                    path: directory.join(name),
                    is_written: report == Report::Created && kind.is_file() && has_content(&path.join(name)),
                }));
            }
            if recursive {
                let directories = children.into_iter().rev().filter(|(_, kind)| kind.is_dir());
                open.extend(directories.map(|(name, _)| directory.join(name)));
            }
        }
        self.tell(key, found);
        Ok(())
    }

    /// Tells what a scan found, and remembers it for as long as the kernel may still tell it, too.
    fn tell(&mut self, key: Key, found: Vec<Found>) {
        if found.is_empty() {
            return;
        }
        self.queue.fill();
        let last = self.queue.last_number();
        let modified = self.queue.pending.iter().filter(|event| event.mask.contains(ReadFlags::MODIFY));
        let modified: HashSet<(i32, &OsStr)> =
            modified.filter_map(|event| Some((event.watch, event.name.as_deref()?))).collect();
        for entry in &found {
            self.emit(key, &entry.path, EventType::Create);
            // The content was written before the watch; what is written since tells the kernel.
            if entry.is_written && !modified.contains(&(entry.watch, &*entry.name)) {
                self.emit(key, &entry.path, EventType::Write);
            }
        }
        for entry in found {
            self.told.insert((key, entry.watch, entry.name), last);
        }
    }

    /// Looks for a root that was lost: watches it again when it is back, else the place where it must reappear.
    pub(super) fn revive(&mut self, key: Key) {
        let Some(root) = self.watchers.get(&key).map(|watcher| watcher.root.clone()) else { return };
        self.drop_guard(key);
        for _ in 0..MAX_REVIVAL_ATTEMPTS {
            let mut missing = match canonicalize(&root) {
                Ok(_) if root.is_dir() => match self.adopt(key, Path::new(""), Report::MovedIn) {
                    Ok(()) => return,
                    Err(_) => continue,
                },
                // Something else stands there now.
                Ok(path) | Err(LinkError::Component { path, .. }) => path,
                Err(LinkError::Cyclic(_)) => return,
            };
            while missing.parent().is_some_and(|parent| !parent.is_dir()) {
                missing.pop();
            }
            let (Some(parent), Some(name)) = (missing.parent(), missing.file_name()) else { return };
            let Ok(watch) = self.queue.watch(parent, GUARDED) else { continue };
            self.set_guard(key, watch, name);
            // It may have come back before its guard stood.
            if !root.is_dir() && missing.symlink_metadata().is_ok() == root.symlink_metadata().is_ok() {
                return;
            }
        }
        tracing::warn!("a watched directory is gone and cannot be waited for");
    }

    /// After dropped events: brings the watched tree in step with the disk, and has the client look again.
    pub(super) fn heal(&mut self, key: Key) {
        let Some(watcher) = self.watchers.get(&key) else { return };
        let (root, recursive) = (watcher.root.clone(), watcher.recursive);
        let top = Path::new("");
        let Some(known) = watcher.directories.get(top).copied() else { return self.revive(key) };
        if self.queue.watch(&root, watch_flags(true)) != Ok(known) {
            self.emit(key, top, EventType::Remove);
            self.detach_tree(key, top);
            return self.revive(key);
        }
        if recursive {
            self.heal_below(key, &root);
        }
        self.emit(key, top, EventType::Write);
    }

    fn heal_below(&mut self, key: Key, root: &Path) {
        let Some(watcher) = self.watchers.get(&key) else { return };
        let mut missing: BTreeSet<PathBuf> = watcher.directories.keys().cloned().collect();
        missing.remove(Path::new(""));
        let mut open = vec![PathBuf::new()];
        while let Some(directory) = open.pop() {
            for (name, kind) in children(&below(root, &directory)) {
                if !kind.is_dir() {
                    continue;
                }
                let path = directory.join(name);
                let Ok(watch) = self.queue.watch(&root.join(&path), watch_flags(false)) else { continue };
                if self.is_attached(key, &path, watch) {
                    missing.remove(&path);
                    open.push(path);
                    continue;
                }
                // Another directory under a known name: what was below the old one is gone with it.
                if missing.remove(&path) {
                    missing.retain(|old| !old.starts_with(&path));
                    self.emit(key, &path, EventType::Remove);
                    self.detach_tree(key, &path);
                }
                self.emit(key, &path, EventType::Create);
                self.follow(key, &path, Report::Created);
            }
        }
        for path in missing {
            self.emit(key, &path, EventType::Remove);
            self.detach(key, &path);
        }
    }
}

/// Only the root may be a symbolic link.
fn watch_flags(is_root: bool) -> WatchFlags {
    if is_root { WATCHED } else { WATCHED | WatchFlags::DONT_FOLLOW }
}

/// The names and types in a directory, in byte order; what cannot be read is not there.
fn children(directory: &Path) -> Vec<(OsString, fs::FileType)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut children: Vec<_> = entries.filter_map(|entry| Some((entry.file_name(), entry.file_type().ok()?))).collect();
    children.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    children
}

fn has_content(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.len() > 0)
}
