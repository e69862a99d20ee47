//! Work that may block, such as file calls and starting programs, on threads of its own.
//!
//! As tokio's blocking pool, with one difference: one thread stays for ever. tokio's last one leaves when it has been
//! idle for a while, and where the system has no thread to give by then (`RLIMIT_NPROC`, `pids.max`, memory), tokio
//! panics. Here work waits for the thread that is there. It also spares the first call after a pause the making of one.
//!
//! Further threads come with the work and leave when they have been idle for a second.

use std::{
    any::Any,
    collections::VecDeque,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    thread,
    time::Duration,
};

use thiserror::Error;
use tokio::{runtime::Handle, sync::oneshot};

/// How many threads there are at most. Work that hangs, as on a dead network mount, must not stop the rest.
const MAX_THREADS: usize = 64;

/// When a thread that is not the last one leaves.
const IDLE: Duration = Duration::from_secs(1);

static POOL: Pool = Pool::new(MAX_THREADS, IDLE);

/// Why there is no result.
#[derive(Debug, Error)]
pub enum Lost {
    /// There is no thread, and the system gives none.
    #[error("no thread for blocking work: the system gives none")]
    NoThread,
    /// A bug, which the log tells.
    #[error("blocking work failed")]
    Panicked,
}

/// Makes the thread that stays; later work can then always run, if perhaps late.
///
/// # Errors
/// As pthread_create(3).
pub fn start() -> io::Result<()> {
    POOL.keep_one()
}

/// Runs work on a thread that may block, in the context of the caller's tokio runtime. It starts at once and runs to
/// its end also if the result is not waited for.
pub fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Running<T> {
    POOL.run(work)
}

/// Work on its way; completes with its result.
#[derive(Debug)]
pub struct Running<T>(oneshot::Receiver<Result<T, Box<dyn Any + Send>>>);

impl<T> Future for Running<T> {
    type Output = Result<T, Lost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| match answer {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_panic)) => Err(Lost::Panicked),
            Err(_dropped) => Err(Lost::NoThread),
        })
    }
}

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    max_threads: usize,
    idle: Duration,
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Threads that wait for work; some may have been woken already.
    idle: usize,
}

impl Pool {
    const fn new(max_threads: usize, idle: Duration) -> Self {
        let state = State { jobs: VecDeque::new(), threads: 0, idle: 0 };
        Self { max_threads, idle, state: Mutex::new(state), work: Condvar::new() }
    }

    fn keep_one(&'static self) -> io::Result<()> {
        {
            let mut state = self.state();
            if state.threads > 0 {
                return Ok(());
            }
            state.threads += 1;
        }
        self.add_thread()
    }

    fn run<T: Send + 'static>(&'static self, work: impl FnOnce() -> T + Send + 'static) -> Running<T> {
        let (answer, answered) = oneshot::channel();
        let runtime = Handle::try_current().ok();
        let job: Job = Box::new(move || {
            let _context = runtime.as_ref().map(Handle::enter);
            // Nobody may wait any more.
            let _ = answer.send(catch_unwind(AssertUnwindSafe(work)));
        });
        self.submit(job);
        Running(answered)
    }

    fn submit(&'static self, job: Job) {
        let wanted = {
            let mut state = self.state();
            state.jobs.push_back(job);
            let wanted = state.idle < state.jobs.len() && state.threads < self.max_threads;
            if wanted {
                state.threads += 1;
            }
            wanted
        };
        if !wanted {
            self.work.notify_one();
            return;
        }
        if let Err(error) = self.add_thread() {
            let mut state = self.state();
            if state.threads == 0 {
                // Dropping the job tells whoever waits.
                let jobs = std::mem::take(&mut state.jobs);
                drop(state);
                drop(jobs);
                tracing::error!(%error, "no thread for blocking work");
            } else {
                tracing::warn!(%error, "no further thread for blocking work, it waits for another");
                drop(state);
                self.work.notify_one();
            }
        }
    }

    /// A thread that is counted already.
    fn add_thread(&'static self) -> io::Result<()> {
        let made = thread::Builder::new().name("envd-blocking".to_owned()).spawn(|| self.serve());
        if made.is_err() {
            self.state().threads -= 1;
        }
        made.map(drop)
    }

    fn serve(&self) {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state();
                continue;
            }
            state.idle += 1;
            // The last one does not look up without a reason: an idle agent sleeps.
            let alone = state.threads == 1;
            let mut timed_out = false;
            state = if alone {
                self.work.wait_while(state, |state| state.jobs.is_empty()).unwrap_or_else(PoisonError::into_inner)
            } else {
                let waited = self.work.wait_timeout_while(state, self.idle, |state| state.jobs.is_empty());
                let (state, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
                timed_out = outcome.timed_out();
                state
            };
            state.idle -= 1;
            if timed_out && state.jobs.is_empty() && state.threads > 1 {
                state.threads -= 1;
                return;
            }
        }
    }

    // Jobs do not panic, and nothing else does while the lock is held.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::*;

    fn pool(max_threads: usize, idle: Duration) -> &'static Pool {
        Box::leak(Box::new(Pool::new(max_threads, idle)))
    }

    fn wait_until(pool: &Pool, what: impl Fn(&State) -> bool) {
        while !what(&pool.state()) {
            thread::yield_now();
        }
    }

    #[tokio::test]
    async fn work_gets_threads_and_one_of_them_stays() {
        let pool = pool(3, Duration::from_millis(1));
        pool.keep_one().unwrap();
        pool.keep_one().unwrap();
        assert_eq!(pool.state().threads, 1);
        let together = Arc::new(Barrier::new(3));
        let running: Vec<_> = (0..3)
            .map(|number| {
                let together = together.clone();
                pool.run(move || {
                    together.wait();
                    number
                })
            })
            .collect();
        for (number, running) in running.into_iter().enumerate() {
            assert_eq!(running.await.unwrap(), number);
        }
        wait_until(pool, |state| state.threads == 1 && state.idle == 1);
    }

    #[tokio::test]
    async fn more_work_than_threads_waits_its_turn() {
        let pool = pool(1, IDLE);
        let running: Vec<_> = (0..100).map(|number| pool.run(move || number)).collect();
        for (number, running) in running.into_iter().enumerate() {
            assert_eq!(running.await.unwrap(), number);
        }
        assert_eq!(pool.state().threads, 1);
    }

    #[tokio::test]
    async fn a_panic_is_told_and_the_thread_goes_on() {
        let pool = pool(1, IDLE);
        let failed = pool.run(|| std::panic::resume_unwind(Box::new("a test")));
        assert!(matches!(failed.await, Err::<(), _>(Lost::Panicked)));
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_finds_the_runtime_and_needs_nobody_who_waits() {
        let pool = pool(1, IDLE);
        let (sender, receiver) = oneshot::channel();
        drop(pool.run(move || {
            tokio::spawn(async move { sender.send(7) });
        }));
        assert_eq!(receiver.await.unwrap(), 7);
    }
}
