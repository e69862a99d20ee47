//! How long a process may run, and how it is ended then.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    error::ProcessError,
    running::Process,
    signals::{self, Scope},
    status::{Ended, ExitStatus},
};
use crate::proto::process::TimeLimit;

/// A time limit. Without a `TimeLimit` in the request it is the call's own: SIGKILL to the process alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    begins: Begins,
    /// The first signal.
    signal: i32,
    /// Between the first signal and SIGKILL; zero: there is no first signal.
    grace: Duration,
    scope: Scope,
}

/// When the time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    At(Instant),
    AfterStart(Duration),
}

/// What a limit has come to when the process was over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) ended: Ended,
    /// The limit ended the process.
    pub(super) exceeded: bool,
    /// The grace of those that the process has left behind.
    pub(super) rest: Option<Rest>,
}

/// Members of the scope that are still to be killed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    at: Instant,
    scope: Scope,
}

impl Limit {
    /// From a request and the moment when its call expires; `None` when nothing limits the process.
    ///
    /// # Errors
    /// For numbers that mean nothing.
    pub(super) fn of(asked: Option<&TimeLimit>, deadline: Option<Instant>) -> Result<Option<Self>, ProcessError> {
        let Some(asked) = asked else {
            let bare = |at| Self {
                begins: Begins::At(at),
                signal: libc::SIGKILL,
                grace: Duration::ZERO,
                scope: Scope::Process,
            };
            return Ok(deadline.map(bare));
        };
        let signal = signals::number_or(asked.signal, libc::SIGTERM)?;
        let scope = Scope::of(asked.scope)?;
        let begins = match asked.limit_ms {
            0 => deadline.map(Begins::At),
            limit => Some(Begins::AfterStart(Duration::from_millis(limit))),
        };
        let grace = if signal == libc::SIGKILL { Duration::ZERO } else { Duration::from_millis(asked.grace_ms) };
        Ok(begins.map(|begins| Self { begins, signal, grace, scope }))
    }

    /// Waits for the process, which has just been started, and ends it when the time is up.
    pub(super) async fn enforce(
        self,
        process: &Arc<Process>,
        mut over: Pin<&mut (impl Future<Output = Ended> + Send)>,
    ) -> Outcome {
        let at = match self.begins {
            Begins::At(at) => Some(at),
            // So far away that nobody will see it.
            Begins::AfterStart(limit) => Instant::now().checked_add(limit),
        };
        if let Some(ended) = before(at, over.as_mut()).await {
            return Outcome { ended, exceeded: false, rest: None };
        }
        // What ended by itself and only has its output held open was not ended by the limit.
        let was_over = process.is_reaped();
        let mut asked = false;
        if !self.grace.is_zero() {
            asked = true;
            process.limit_signal(self.signal, self.scope).await;
            if self.scope == Scope::Process {
                // The others are not asked to end, so they are not waited for.
                process.release();
            }
            let last = Instant::now().checked_add(self.grace);
            if let Some(ended) = before(last, over.as_mut()).await {
                let rest = last.filter(|_| self.scope != Scope::Process).map(|at| Rest { at, scope: self.scope });
                return Outcome { ended, exceeded: !was_over && ended_by_limit(&ended, asked), rest };
            }
        }
        process.limit_signal(libc::SIGKILL, self.scope).await;
        process.release();
        let ended = over.await;
        Outcome { ended, exceeded: !was_over && ended_by_limit(&ended, asked), rest: None }
    }
}

impl Rest {
    /// Kills who is left at the end of the grace.
    pub(super) async fn kill(self, process: &Process) {
        sleep_until(self.at).await;
        process.limit_signal(libc::SIGKILL, self.scope).await;
    }
}

/// What comes of the future until then.
async fn before<T>(at: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match at {
        Some(at) => timeout_at(at, work).await.ok(),
        None => Some(work.await),
    }
}

/// Nobody exits by himself because of SIGKILL.
fn ended_by_limit(ended: &Ended, asked: bool) -> bool {
    match ended.status {
        ExitStatus::Exited(_) => asked,
        ExitStatus::Signaled { .. } => true,
        ExitStatus::Lost => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    #[test]
    fn without_a_wish_the_calls_limit_kills_the_process_alone() {
        let at = Instant::now();
        assert_eq!(Limit::of(None, None).unwrap(), None);
        let limit = Limit::of(None, Some(at)).unwrap().unwrap();
        let bare =
            Limit { begins: Begins::At(at), signal: libc::SIGKILL, grace: Duration::ZERO, scope: Scope::Process };
        assert_eq!(limit, bare);
    }

    #[test]
    fn a_limit_of_its_own_replaces_the_calls() {
        let at = Instant::now();
        let asked = TimeLimit { limit_ms: 50, signal: 2, grace_ms: 7, scope: 1 };
        let limit = Limit::of(Some(&asked), Some(at)).unwrap().unwrap();
        assert_eq!(limit.begins, Begins::AfterStart(Duration::from_millis(50)));
        assert_eq!((limit.signal, limit.grace, limit.scope), (2, Duration::from_millis(7), Scope::Group));
        let asked = TimeLimit { grace_ms: 7, ..TimeLimit::default() };
        let limit = Limit::of(Some(&asked), Some(at)).unwrap().unwrap();
        assert_eq!((limit.begins, limit.signal), (Begins::At(at), libc::SIGTERM));
        assert_eq!(Limit::of(Some(&asked), None).unwrap(), None);
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        let of = |signal, scope| {
            let asked = TimeLimit { limit_ms: 1, signal, grace_ms: 0, scope };
            Limit::of(Some(&asked), None).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(of(64, 2), Ok(()));
        assert_eq!(of(65, 0).unwrap_err(), "invalid time limit: 65 is no signal from 1 to 64");
        assert_eq!(of(u32::MAX, 0).unwrap_err(), "invalid time limit: 4294967295 is no signal from 1 to 64");
        assert_eq!(of(1, 9).unwrap_err(), "invalid signal scope: 9");
    }
}
