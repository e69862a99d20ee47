//! Signals to everything that a process has started, found through proc(5).
//!
//! # Who belongs to a process
//!
//! * its children, their children and so on, by parent;
//! * its process group and its session: they bear its number, and the kernel gives a number to no new process while a
//!   group or a session bears it. So these are found also when the process itself was reaped and its children have got
//!   another parent. Whether the number came round meanwhile is told by age: then everybody in them is younger than
//!   the end of our process;
//! * the groups that its descendants lead, and the sessions that they are in, but for the session that the agent is in.
//!
//! What left the group *and* the session *and* lost its parent before the signal came is not found; only a control
//! group holds on to that.
//!
//! # How they are reached
//!
//! Everything is stopped first, as often as something new is seen, so that nothing can get away by forking. Then
//! everybody gets the signal, and then may go on. Signals go through process descriptors, each of which was opened
//! before its process was looked at again, so that a number that changed hands is never hit.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{
    procfs::{Stat, Ticks},
    reap::Child,
};
use crate::sys;

/// How long the agent runs after processes that multiply.
const CHASE_LIMIT: Duration = Duration::from_secs(5);

/// Between two looks while processes are on their way to a stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Sends a signal to the child, its process group and all its descendants. Blocking, for milliseconds as a rule and for
/// twice [`CHASE_LIMIT`] at most. Whoever stood still before goes on, unless the signal is about just that.
///
/// # Errors
/// The first that occurred; the signal was sent to everybody else nevertheless. Without procfs only the process and its
/// group are reached.
pub(super) fn signal_tree(child: &Child, signal: i32) -> io::Result<()> {
    let mut outcome = Ok(());
    match signal {
        // Stopping is what they are for or against.
        libc::SIGCONT | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => match Tree::of(child) {
            Ok(tree) => tree.signal(signal, &mut outcome),
            Err(error) => signal_without_procfs(child, &[signal], error, &mut outcome),
        },
        libc::SIGSTOP => drop(stop(child, &mut outcome)?),
        libc::SIGKILL => match stop(child, &mut Ok(())) {
            Ok(tree) => {
                tree.signal(signal, &mut outcome);
                kill_what_is_left(child, &mut outcome)?;
            }
            Err(error) => signal_without_procfs(child, &[signal], error, &mut outcome),
        },
        _ => match stop(child, &mut Ok(())) {
            Ok(tree) => {
                tree.signal(signal, &mut outcome);
                tree.signal(libc::SIGCONT, &mut outcome);
            }
            Err(error) => signal_without_procfs(child, &[signal, libc::SIGCONT], error, &mut outcome),
        },
    }
    outcome
}

fn signal_without_procfs(child: &Child, signals: &[i32], error: io::Error, outcome: &mut io::Result<()>) {
    note(Err(error), outcome);
    for signal in signals {
        note(child.signal_group(*signal), outcome);
        note(child.signal(*signal), outcome);
    }
}

/// Sends a signal to every member of the process group that the reaped child has led.
///
/// # Errors
/// As [`signal_tree`].
pub(super) fn signal_group(child: &Child, signal: i32) -> io::Result<()> {
    let everybody = Stat::all()?;
    if !bears_number(child.pid(), child.reaped_at(), &everybody) {
        return Ok(());
    }
    let members = everybody.into_iter().filter(|stat| stat.group == child.pid()).collect();
    let mut outcome = Ok(());
    Tree { members }.signal(signal, &mut outcome);
    outcome
}

/// Stops everybody, until a look finds nobody new and nobody on his way. Fails only when nobody can be seen.
fn stop(child: &Child, outcome: &mut io::Result<()>) -> io::Result<Tree> {
    // One call for the whole group, which the kernel keeps whole: a fork at this moment is in it or did not happen.
    note(child.signal_group(libc::SIGSTOP), outcome);
    let mut seen: HashSet<(u32, Ticks)> = HashSet::new();
    let began = Instant::now();
    let mut last = None;
    loop {
        let tree = match (Tree::of(child), last.take()) {
            (Ok(tree), _) => tree,
            // Some stand already, and must hear what comes next.
            (Err(error), Some(tree)) => {
                note(Err(error), outcome);
                return Ok(tree);
            }
            (Err(error), None) => return Err(error),
        };
        let (mut new, mut on_the_way) = (false, false);
        for member in &tree.members {
            if !seen.insert(member.identity()) {
                on_the_way |= !is_halted(member);
            } else if member.state != 'T' {
                new = true;
                note(send(member, libc::SIGSTOP), outcome);
            }
        }
        if !new && !on_the_way {
            return Ok(tree);
        }
        if began.elapsed() > CHASE_LIMIT {
            tracing::warn!(pid = child.pid(), members = tree.members.len(), "descendants of the process do not stop");
            return Ok(tree);
        }
        if !new {
            thread::sleep(LOOK_INTERVAL);
        }
        last = Some(tree);
    }
}

/// Whether it makes no children once it was told to stop: it stands, has ended, or is in a wait that nothing but its end
/// interrupts (such as a vfork, whose child is seen by itself).
fn is_halted(member: &Stat) -> bool {
    matches!(member.state, 'T' | 't' | 'Z' | 'X' | 'D')
}

/// Kills whom the stop has missed, until a look finds nobody new.
fn kill_what_is_left(child: &Child, outcome: &mut io::Result<()>) -> io::Result<()> {
    note(child.signal_group(libc::SIGKILL), outcome);
    let mut killed: HashSet<(u32, Ticks)> = HashSet::new();
    let began = Instant::now();
    loop {
        let before = killed.len();
        // A zombie may have threads that live on when its first one has left.
        for member in &Tree::of(child)?.members {
            if killed.insert(member.identity()) {
                note(send(member, libc::SIGKILL), outcome);
            }
        }
        if killed.len() == before {
            return Ok(());
        }
        if began.elapsed() > CHASE_LIMIT {
            tracing::warn!(pid = child.pid(), killed = killed.len(), "descendants of the process go on multiplying");
            return Ok(());
        }
    }
}

/// Keeps the first failure.
fn note(result: io::Result<()>, outcome: &mut io::Result<()>) {
    if outcome.is_ok() {
        *outcome = result;
    }
}

/// The process and whatever belongs to it, as one look found it.
struct Tree {
    members: Vec<Stat>,
}

impl Tree {
    fn of(child: &Child) -> io::Result<Self> {
        let everybody = Stat::all()?;
        // After the look: if the child is not reaped yet, its number was its own all the time.
        let reaped = child.reaped_at();
        let agent = std::process::id();
        let unseen = || io::Error::other("the agent does not see itself in /proc");
        let own = everybody.iter().find(|stat| stat.pid == agent).ok_or_else(unseen)?;
        let mut members = select(child.pid(), reaped, own.session, &everybody);
        members.retain(|member| member.pid != agent && member.pid != 1);
        Ok(Self { members })
    }

    fn signal(&self, signal: i32, outcome: &mut io::Result<()>) {
        for member in &self.members {
            note(send(member, signal), outcome);
        }
    }
}

/// Who belongs to the process with this number, itself included unless it was reaped.
fn select(root: u32, reaped: Option<Ticks>, own_session: u32, everybody: &[Stat]) -> Vec<Stat> {
    let root_bears_number = bears_number(root, reaped, everybody);
    let mut pids = HashSet::new();
    let mut sessions = HashSet::new();
    if reaped.is_none() {
        pids.insert(root);
    }
    loop {
        let before = pids.len();
        for stat in everybody {
            let belongs = pids.contains(&stat.pid)
                || pids.contains(&stat.parent)
                || pids.contains(&stat.group)
                || sessions.contains(&stat.session)
                || root_bears_number && (stat.group == root || stat.session == root);
            if belongs {
                pids.insert(stat.pid);
                if stat.session != own_session && stat.session != 0 {
                    sessions.insert(stat.session);
                }
            }
        }
        if pids.len() == before {
            break;
        }
    }
    everybody.iter().filter(|stat| pids.contains(&stat.pid)).copied().collect()
}

/// Whether the group and the session with this number are those of the process that had it until `reaped`.
fn bears_number(root: u32, reaped: Option<Ticks>, everybody: &[Stat]) -> bool {
    // Within one tick no number comes round.
    let held_on = |at| everybody.iter().any(|stat| (stat.group == root || stat.session == root) && stat.started <= at);
    reaped.is_none_or(held_on)
}

/// Sends a signal to exactly this process; one that is gone is a success.
fn send(member: &Stat, signal: i32) -> io::Result<()> {
    let Some(pidfd) = open(member)? else { return Ok(()) };
    match sys::signal::send(pidfd.as_fd(), signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

/// The descriptor of this process, or `None` when it is gone.
fn open(member: &Stat) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = i32::try_from(member.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // The same process before and after the descriptor was opened: it is the descriptor's as well.
    let same = Stat::of(member.pid).is_some_and(|now| now.identity() == member.identity());
    Ok(same.then_some(pidfd))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN_SESSION: u32 = 10;

    fn stat(pid: u32, parent: u32, group: u32, session: u32, started: u64) -> Stat {
        let started = Ticks::from_boot(started);
        Stat { pid, state: 'S', parent, group, session, user_us: 0, system_us: 0, started }
    }

    fn pids(root: u32, reaped: Option<u64>, everybody: &[Stat]) -> Vec<u32> {
        let members = select(root, reaped.map(Ticks::from_boot), OWN_SESSION, everybody);
        members.iter().map(|member| member.pid).collect()
    }

    #[test]
    fn descendants_are_found_by_parent_group_and_session() {
        let everybody = [
            stat(10, 1, 10, OWN_SESSION, 0),
            // The process, its child, a grandchild with a session of its own, and what that one has abandoned there.
            stat(100, 10, 100, OWN_SESSION, 1),
            stat(101, 100, 100, OWN_SESSION, 2),
            stat(102, 101, 102, 102, 3),
            stat(103, 1, 103, 102, 4),
            // An orphan of the process's group, and one of a group that a descendant leads.
            stat(104, 1, 100, OWN_SESSION, 5),
            stat(105, 1, 102, 102, 6),
            // A neighbour with a child.
            stat(200, 10, 200, OWN_SESSION, 1),
            stat(201, 200, 200, OWN_SESSION, 2),
        ];
        assert_eq!(pids(100, None, &everybody), [100, 101, 102, 103, 104, 105]);
    }

    #[test]
    fn what_a_reaped_process_left_behind_is_found_by_its_number() {
        let everybody = [
            stat(10, 1, 10, OWN_SESSION, 0),
            stat(101, 1, 100, OWN_SESSION, 2),
            stat(102, 101, 100, OWN_SESSION, 90),
            stat(110, 10, 110, OWN_SESSION, 3),
        ];
        assert_eq!(pids(100, Some(50), &everybody), [101, 102]);
    }

    #[test]
    fn a_number_that_came_round_is_not_taken_for_the_old_one() {
        let everybody = [
            stat(10, 1, 10, OWN_SESSION, 0),
            stat(100, 10, 100, OWN_SESSION, 51),
            stat(101, 100, 100, OWN_SESSION, 52),
        ];
        assert_eq!(pids(100, Some(50), &everybody), [0_u32; 0]);
    }
}
