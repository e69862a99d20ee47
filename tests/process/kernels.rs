//! Kernels start through the same door.

use envd::process::KernelSpawner;
use kernel_bridge::{KernelCommand, Spawner};

use crate::agent::*;

fn kernel(script: &str, dir: &std::path::Path) -> KernelCommand {
    KernelCommand {
        argv: ["/bin/sh", "-c", script].map(Into::into).into(),
        env: vec![("KERNEL".into(), "yes".into())],
        cwd: "/".into(),
        log: dir.join("log"),
    }
}

#[tokio::test]
async fn a_kernel_has_a_session_a_log_and_an_end_that_can_be_asked_for_twice() {
    let agent = Agent::new();
    let spawner = KernelSpawner::new(agent.processes.clone());
    let dir = tempfile::tempdir().unwrap();
    let script = "echo $KERNEL $(cut -d' ' -f6 /proc/$$/stat) $$; echo oops >&2; exit 3";
    let kernel = spawner.spawn(kernel(script, dir.path())).await.unwrap();
    assert_eq!(kernel.exited().await, "exit status 3");
    assert_eq!(kernel.exited().await, "exit status 3");
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(log, format!("yes {0} {0}\noops\n", kernel.pid()));
    kernel.signal_group(9).unwrap();
    assert!(agent.list().await.is_empty());
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group_of_a_kernel() {
    let agent = Agent::new();
    let spawner = KernelSpawner::new(agent.processes.clone());
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let script = format!("sleep 1000 > {} & wait", fifo.display());
    let kernel = spawner.spawn(kernel(&script, dir.path())).await.unwrap();
    // Opens when the background child has it open, and ends when that child is gone.
    let mut held = tokio::task::spawn_blocking(move || std::fs::File::open(&fifo).unwrap()).await.unwrap();
    kernel.signal_group(9).unwrap();
    assert_eq!(kernel.exited().await, "signal: killed");
    let read = tokio::task::spawn_blocking(move || std::io::Read::read(&mut held, &mut [0]));
    assert_eq!(tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_missing_kernel_program_is_an_error() {
    let agent = Agent::new();
    let spawner = KernelSpawner::new(agent.processes.clone());
    let dir = tempfile::tempdir().unwrap();
    let command = KernelCommand { argv: vec!["no-such-kernel".into()], ..kernel("", dir.path()) };
    let error = spawner.spawn(command).await.err().unwrap().to_string();
    assert_eq!(error, "cannot start 'no-such-kernel': exec: no such file or directory");
}
