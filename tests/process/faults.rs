//! Kills, disconnects and reconnects in every order: all statuses true, all bytes counted, nothing left behind.

use envd::proto::process::process_event::{DataEvent, Event, data_event::Output};

use crate::agent::*;

const BYTES: usize = 300_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_stay_true_and_bytes_stay_counted_whatever_clients_do() {
    let agent = shared(Agent::new());
    let runs = (0..240).map(|number| {
        let agent = agent.clone();
        tokio::spawn(async move {
            match number % 4 {
                0 => stays(&agent, number).await,
                1 => leaves_and_comes_back(&agent, number).await,
                2 => kills(&agent).await,
                _ => leaves_and_kills(&agent).await,
            }
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }
    assert!(agent.list().await.is_empty());
}

fn writer(number: i32) -> envd::proto::process::StartRequest {
    sh(&format!("head -c {BYTES} /dev/zero; exit {}", number % 200))
}

async fn stays(agent: &Agent, number: i32) {
    let told = agent.start(writer(number)).await.unwrap().all().await;
    assert_eq!((told.stdout.len(), told.exit_code()), (BYTES, number % 200));
}

/// Leaves after a different number of chunks each time; nothing is lost and nothing comes twice.
async fn leaves_and_comes_back(agent: &Agent, number: i32) {
    let mut events = agent.start(writer(number)).await.unwrap();
    let pid = events.started().await;
    let mut seen = 0;
    let mut connections = 1;
    loop {
        for _ in 0..number % 5 {
            match events.next().await.unwrap() {
                Event::Data(DataEvent { output: Some(Output::Stdout(data)), .. }) => seen += data.len(),
                Event::End(end) => {
                    assert_eq!((seen, end.exit_code), (BYTES, number % 200));
                    return;
                }
                Event::Start(_) | Event::Keepalive(_) => {}
                other => panic!("{other:?}"),
            }
        }
        connections += 1;
        if connections == 4 {
            let _given_back = events.ask();
            let told = agent.connect(by_pid(pid)).await.unwrap();
            drop(events);
            // While both were connected, the first may have been given what the second did not get, but nobody read it.
            let told = told.all().await;
            assert_eq!((seen + told.stdout.len(), told.exit_code()), (BYTES, number % 200));
            return;
        }
        drop(events);
        events = agent.connect(by_pid(pid)).await.unwrap();
    }
}

async fn kills(agent: &Agent) {
    let mut events = agent.start(command("/usr/bin/yes", &[])).await.unwrap();
    let pid = events.started().await;
    events.until("y\n").await;
    agent.signal(pid, 9).await.unwrap();
    assert_eq!(events.all().await.status(), "signal: killed");
    assert!(!exists(pid) || agent.list().await.iter().any(|info| info.pid == pid), "{pid} is a zombie");
}

async fn leaves_and_kills(agent: &Agent) {
    let mut events = agent.start(command("/usr/bin/yes", &[])).await.unwrap();
    let pid = events.started().await;
    drop(events);
    agent.signal(pid, 15).await.unwrap();
    assert_eq!(agent.connect(by_pid(pid)).await.unwrap().all().await.status(), "signal: terminated");
}
