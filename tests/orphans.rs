//! As a subreaper (and the same holds for process 1) the agent reaps orphans without taking anybody's status.
//!
//! In a file of its own, because being a subreaper is a property of the whole process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]

use std::time::{Duration, Instant};

use envd::{
    process::{ProcessService, Processes},
    proto::process::{ProcessConfig, StartRequest, process_event::Event, process_server::Process},
    system::{identity::Identity, settings::Settings},
};
use futures_util::StreamExt;
use tonic::Request;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_are_reaped_and_every_status_finds_its_owner() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let identity = Identity::system();
    let settings = Settings::new(identity.own().name.clone(), Some("/".to_owned()), [].into());
    let service = ProcessService::new(Processes::start(identity, settings).unwrap());

    let runs = (0..200).map(|number: i32| {
        let service = service.clone();
        tokio::spawn(async move {
            // The inner subshell's child is orphaned and outlives the shell by a moment.
            let script = format!("(sleep 0.0{} >/dev/null 2>&1 &); exit {}", number % 10, number % 250);
            let config = ProcessConfig { cmd: "/bin/sh".into(), args: vec!["-c".into(), script], ..Default::default() };
            let request = StartRequest { process: Some(config), stdin: Some(false), ..Default::default() };
            let mut events = service.start(Request::new(request)).await.unwrap().into_inner();
            while let Some(event) = events.next().await {
                if let Some(Event::End(end)) = event.unwrap().event.unwrap().event {
                    assert_eq!(end.exit_code, number % 250, "{end:?}");
                    return;
                }
            }
            panic!("no end");
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }

    let limit = Instant::now() + Duration::from_secs(30);
    let children = || std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()));
    let left = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let lists = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        lists.collect::<Vec<_>>().concat()
    };
    if children().is_err() {
        // The kernel was built without that file.
        return;
    }
    while !left().trim().is_empty() {
        assert!(Instant::now() < limit, "zombies: {}", left());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
