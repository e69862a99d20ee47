//! One request to the kernel from sending it to its end, whichever end that is.

use std::{future, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{EXIT_PATIENCE, Leave, Worker};
use crate::{
    cell::{Cell, Reply},
    event::Event,
    kernel::{Kernel, KernelEvent},
    outbox::Outbox,
    wire::Request,
};

/// When the client of a running cell has left: how long after that the kernel is interrupted even though it
/// did not say that it had begun, interrupted again by all means, and given up.
const BLIND_INTERRUPT: Duration = Duration::from_millis(500);
const SECOND_INTERRUPT: Duration = Duration::from_secs(2);
const GIVE_UP: Duration = Duration::from_secs(5);

/// How long setting and restoring environment variables may take.
const HIDDEN_LIMIT: Duration = Duration::from_secs(30);

/// Pause before a refused cell is sent again: the kernel is still throwing its queue away.
const RESEND_PAUSE: Duration = Duration::from_millis(50);

/// How long what is left on the channels at the end is read at most.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);

impl Worker {
    /// Sends code and hears the kernel out. With an outbox it is the user's cell, whose client may leave at any
    /// time; without one it is a silent request of ours.
    pub(super) async fn converse(
        &mut self,
        kernel: &mut Kernel,
        code: &str,
        outbox: Option<&Outbox>,
    ) -> Result<Reply, Leave> {
        let silent = outbox.is_none();
        let mut hidden_limit = silent.then(|| Instant::now() + HIDDEN_LIMIT);
        let mut interrupts: Option<Interrupts> = None;
        let mut resent = false;
        let mut cell = send(kernel, code, silent).await?;
        loop {
            if cell.is_aborted() && !resent && interrupts.is_none() {
                sleep(RESEND_PAUSE).await;
                resent = true;
                cell = send(kernel, code, silent).await?;
            }
            if cell.is_finished() || cell.is_aborted() {
                return Ok(cell.into_reply());
            }
            if let Some(interrupts) = &mut interrupts {
                interrupts.apply(kernel, &cell).await?;
            }
            let room = interrupts.is_some() || outbox.is_none_or(Outbox::has_room);
            let deadlines = [cell.deadline().filter(|_| room), interrupts.as_ref().map(Interrupts::next), hidden_limit];
            let wake = deadlines.into_iter().flatten().min();
            tokio::select! {
                event = kernel.next(room) => match event {
                    KernelEvent::Iopub(message) => forward(cell.hear(&message), outbox),
                    KernelEvent::Shell(message) => cell.answer(&message),
                    ended @ (KernelEvent::Exited(_) | KernelEvent::Broken) => {
                        if let KernelEvent::Exited(status) = ended {
                            tracing::info!(pid = kernel.pid(), status, "a kernel ended");
                        } else {
                            kernel.ended(EXIT_PATIENCE).await;
                        }
                        listen_to_last_words(kernel, &mut cell, outbox).await;
                        return if cell.is_finished() { Ok(cell.into_reply()) } else { Err(Leave::Dead) };
                    }
                },
                order = self.command() => if let Some(order) = order {
                    return Err(Leave::Order { order, busy: true });
                },
                () = closed(outbox), if interrupts.is_none() => interrupts = Some(Interrupts::default()),
                () = drained(outbox), if !room => cell.defer(),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    let now = Instant::now();
                    let overdue = |cell: &Cell| cell.deadline().is_some_and(|deadline| deadline <= now);
                    if room && overdue(&cell) {
                        // After a pause of the whole machine everything may be there and only unread.
                        listen_to_last_words(kernel, &mut cell, outbox).await;
                        if overdue(&cell) {
                            return Ok(cell.into_reply());
                        }
                    }
                    if hidden_limit.take_if(|limit| *limit <= now).is_some() {
                        interrupts.get_or_insert_default();
                    }
                }
            }
        }
    }
}

async fn send(kernel: &mut Kernel, code: &str, silent: bool) -> Result<Cell, Leave> {
    let request = Request::execute(code, silent);
    let cell = Cell::new(&request);
    match kernel.send(&request).await {
        Ok(()) => Ok(cell),
        Err(error) => {
            tracing::debug!(pid = kernel.pid(), %error, "a request was not sent");
            Err(Leave::Unsent)
        }
    }
}

fn forward(event: Option<Event>, outbox: Option<&Outbox>) {
    if let (Some(event), Some(outbox)) = (event, outbox) {
        outbox.send(event);
    }
}

/// Passes on what is left on the channels of a kernel that is dead or silent, which may be all that was missing.
async fn listen_to_last_words(kernel: &mut Kernel, cell: &mut Cell, outbox: Option<&Outbox>) {
    let limit = Instant::now() + LAST_WORDS_LIMIT;
    while Instant::now() < limit && !cell.is_finished() && outbox.is_none_or(Outbox::has_room) {
        match kernel.last_words().await {
            Some(KernelEvent::Iopub(message)) => forward(cell.hear(&message), outbox),
            Some(KernelEvent::Shell(message)) => cell.answer(&message),
            Some(_) => {}
            None => break,
        }
    }
}

async fn closed(outbox: Option<&Outbox>) {
    match outbox {
        Some(outbox) => outbox.closed().await,
        None => future::pending().await,
    }
}

async fn drained(outbox: Option<&Outbox>) {
    match outbox {
        Some(outbox) => outbox.drained().await,
        None => future::pending().await,
    }
}

/// The steps by which a cell that nobody waits for is ended.
struct Interrupts {
    since: Instant,
    sent: u32,
}

impl Default for Interrupts {
    fn default() -> Self {
        Self { since: Instant::now(), sent: 0 }
    }
}

impl Interrupts {
    /// When the next step is due.
    fn next(&self) -> Instant {
        let pause = match self.sent {
            0 => BLIND_INTERRUPT,
            1 => SECOND_INTERRUPT,
            _ => GIVE_UP,
        };
        self.since + pause
    }

    /// Takes the step that is due. A kernel is not interrupted before it runs the code: the signal would be
    /// lost, or hit the kernel itself.
    async fn apply(&mut self, kernel: &mut Kernel, cell: &Cell) -> Result<(), Leave> {
        let due = self.next() <= Instant::now();
        match self.sent {
            0 if cell.can_interrupt() || (due && cell.is_known()) => kernel.interrupt(false).await,
            0 if due => {}
            1 if due => kernel.interrupt(true).await,
            2.. if due => {
                tracing::warn!(pid = kernel.pid(), "a kernel does not stop a cell that nobody waits for");
                return Err(Leave::Stuck);
            }
            _ => return Ok(()),
        }
        self.sent += 1;
        Ok(())
    }
}
