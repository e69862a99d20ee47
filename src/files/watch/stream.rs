//! Events as they come: start, events, keep-alives while nothing happens, until the client leaves or the agent
//! goes down.

use std::{collections::VecDeque, pin::Pin, time::Duration};

use futures_core::Stream;
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use tonic::Status;

use super::{Watch, Watches};
use crate::proto::filesystem::{
    FilesystemEvent, WatchDirResponse,
    watch_dir_response::{Event, KeepAlive, StartEvent},
};

/// What a client of WatchDir gets.
pub type Events = Pin<Box<dyn Stream<Item = Result<WatchDirResponse, Status>> + Send>>;

/// How many events are taken from the outlet at once.
const BATCH: usize = 256;

struct Session {
    watch: Watch,
    ready: VecDeque<FilesystemEvent>,
    keepalive: Interval,
    stopping: watch::Receiver<bool>,
    has_started: bool,
}

/// The stream of an armed watch. Each message goes through `reduce` on its way out.
pub fn events(
    watches: &Watches,
    watch: Watch,
    keepalive: Duration,
    reduce: impl Fn(FilesystemEvent) -> FilesystemEvent + Send + 'static,
) -> Events {
    let mut keepalive = interval_at(Instant::now() + keepalive, keepalive);
    // After a pause of the machine one is enough.
    keepalive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stopping = watches.inner.stopping.subscribe();
    let session = Session { watch, ready: VecDeque::new(), keepalive, stopping, has_started: false };
    Box::pin(futures_util::stream::unfold((session, reduce), |(mut session, reduce)| async move {
        let event = match session.next().await? {
            Event::Filesystem(event) => Event::Filesystem(reduce(event)),
            other => other,
        };
        Some((Ok(WatchDirResponse { event: Some(event) }), (session, reduce)))
    }))
}

impl Session {
    async fn next(&mut self) -> Option<Event> {
        if !self.has_started {
            self.has_started = true;
            self.keepalive.reset();
            return Some(Event::Start(StartEvent {}));
        }
        loop {
            if *self.stopping.borrow() {
                return None;
            }
            if let Some(event) = self.ready.pop_front() {
                self.keepalive.reset();
                return Some(Event::Filesystem(event));
            }
            self.ready.extend(self.watch.take(BATCH));
            if !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                () = self.watch.outlet.arrived() => {}
                _ = self.keepalive.tick() => return Some(Event::Keepalive(KeepAlive {})),
                changed = self.stopping.changed() => if changed.is_err() { return None },
            }
        }
    }
}
