//! From kernel events to the clients' events.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use rustix::fs::inotify::ReadFlags;

use super::{
    queue::KernelEvent,
    scan::Report,
    tree::{Key, Role, Tree},
};
use crate::proto::filesystem::EventType;

/// One kernel event can mean several things; they are told in this order.
const ENTRY_EVENTS: [(ReadFlags, EventType); 5] = [
    (ReadFlags::CREATE.union(ReadFlags::MOVED_TO), EventType::Create),
    (ReadFlags::MOVED_FROM, EventType::Rename),
    (ReadFlags::ATTRIB, EventType::Chmod),
    (ReadFlags::MODIFY, EventType::Write),
    (ReadFlags::DELETE, EventType::Remove),
];
const ROOT_EVENTS: [(ReadFlags, EventType); 3] = [
    (ReadFlags::MOVE_SELF, EventType::Rename),
    (ReadFlags::ATTRIB, EventType::Chmod),
    (ReadFlags::DELETE_SELF.union(ReadFlags::UNMOUNT), EventType::Remove),
];
/// After these the path means something else, or nothing.
const GONE: ReadFlags = ReadFlags::MOVE_SELF.union(ReadFlags::DELETE_SELF).union(ReadFlags::UNMOUNT);
const APPEARED: ReadFlags = ReadFlags::CREATE.union(ReadFlags::MOVED_TO);
const DISAPPEARED: ReadFlags = ReadFlags::DELETE.union(ReadFlags::MOVED_FROM);

impl Tree {
    /// Reads and processes all that the kernel has queued up to now. `false`: there may be more. Blocking.
    ///
    /// What arrives meanwhile is left for the next time: there may be no end of it, and others wait for the lock.
    pub(super) fn drain(&mut self) -> bool {
        let emptied = self.queue.fill();
        let last = self.queue.last_number();
        while let Some(event) = self.queue.pending.pop_front_if(|event| event.number <= last) {
            self.process(&event);
        }
        self.told.retain(|_, scanned| *scanned > last);
        if !self.queue.pending.is_empty() {
            return false;
        }
        // Their arrival was seen in the queue, but its place is watched no more.
        for ((key, _), relative) in std::mem::take(&mut self.moving) {
            self.detach_tree(key, &relative);
        }
        emptied
    }

    fn process(&mut self, event: &KernelEvent) {
        if event.mask.contains(ReadFlags::QUEUE_OVERFLOW) {
            tracing::warn!("the kernel dropped file events; looking at all watched directories again");
            let keys: Vec<Key> = self.watchers.keys().copied().collect();
            return keys.into_iter().for_each(|key| self.heal(key));
        }
        // Unknown: what was queued before its watch was removed.
        let Some(places) = self.places.get(&event.watch).cloned() else { return };
        if event.mask.contains(ReadFlags::IGNORED) {
            // The kernel has removed the watch, so there is nothing left to detach it from.
            self.places.remove(&event.watch);
        }
        for place in places {
            match (place.role, &event.name) {
                (Role::Guard(awaited), Some(name)) => {
                    if *name == awaited && event.mask.intersects(APPEARED) {
                        self.revive(place.watcher);
                    }
                }
                (Role::Guard(_), None) => {
                    if event.mask.intersects(GONE.union(ReadFlags::IGNORED)) {
                        self.revive(place.watcher);
                    }
                }
                (Role::Directory(directory), Some(name)) => self.process_entry(place.watcher, &directory, name, event),
                (Role::Directory(directory), None) => self.process_directory(place.watcher, &directory, event),
            }
        }
    }

    /// Something about an entry of a watched directory.
    fn process_entry(&mut self, key: Key, directory: &Path, name: &OsStr, event: &KernelEvent) {
        let path = directory.join(name);
        let mut mask = event.mask;
        if !self.told.is_empty() && mask.intersects(APPEARED.union(DISAPPEARED)) {
            let told = self.told.remove(&(key, event.watch, name.to_owned()));
            if told.is_some_and(|last| event.number <= last) {
                mask.remove(APPEARED);
            }
        }
        for (flags, kind) in ENTRY_EVENTS {
            if mask.intersects(flags) {
                self.emit(key, &path, kind);
            }
        }
        let is_followed = self.watchers.get(&key).is_some_and(|watcher| watcher.recursive);
        if is_followed && event.mask.contains(ReadFlags::ISDIR) {
            self.follow_directory(key, path, event);
        }
    }

    /// Keeps the watched tree in step with directories that come, go and move.
    fn follow_directory(&mut self, key: Key, path: PathBuf, event: &KernelEvent) {
        if event.mask.contains(ReadFlags::DELETE) {
            self.detach_tree(key, &path);
        }
        if event.mask.contains(ReadFlags::MOVED_FROM) {
            // A directory that leaves the tree is silent from now on.
            if self.will_arrive(key, event.cookie) {
                self.moving.insert((key, event.cookie), path.clone());
            } else {
                self.detach_tree(key, &path);
            }
        }
        if event.mask.contains(ReadFlags::CREATE) {
            self.follow(key, &path, Report::Created);
        }
        if event.mask.contains(ReadFlags::MOVED_TO) {
            match self.moving.remove(&(key, event.cookie)) {
                Some(old) => {
                    // A rename may replace an empty directory.
                    self.detach_tree(key, &path);
                    self.rename_tree(key, &old, &path);
                }
                None => self.follow(key, &path, Report::MovedIn),
            }
        }
    }

    /// Whether the other end of a rename lies in the same tree. The kernel queues both ends one after the other,
    /// so the second is at hand or arrives within this reading; if it comes later still, the directory counts as
    /// moved in from outside, which only tells its entries once more.
    fn will_arrive(&mut self, key: Key, cookie: u32) -> bool {
        let arrival = |tree: &Self| {
            let is_arrival = |event: &&KernelEvent| event.cookie == cookie && event.mask.contains(ReadFlags::MOVED_TO);
            tree.queue.pending.iter().find(is_arrival).map(|event| event.watch)
        };
        let watch = arrival(self).or_else(|| {
            self.queue.fill();
            arrival(self)
        });
        watch.and_then(|watch| self.places.get(&watch)).is_some_and(|places| {
            places.iter().any(|place| place.watcher == key && matches!(place.role, Role::Directory(_)))
        })
    }

    /// Something about a watched directory itself. Below the root its parent's watch has told it already.
    fn process_directory(&mut self, key: Key, directory: &Path, event: &KernelEvent) {
        let is_root = directory.as_os_str().is_empty();
        if is_root {
            for (flags, kind) in ROOT_EVENTS {
                if event.mask.intersects(flags) {
                    self.emit(key, directory, kind);
                }
            }
            if event.mask.intersects(GONE.union(ReadFlags::IGNORED)) {
                self.detach_tree(key, directory);
                self.revive(key);
            }
        } else if event.mask.contains(ReadFlags::IGNORED) && self.is_attached(key, directory, event.watch) {
            self.detach(key, directory);
        }
    }
}
