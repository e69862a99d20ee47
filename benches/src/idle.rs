//! Many processes that do nothing, each with an open stream: what the agent holds for one, and what a spawn costs
//! beside them, against a second agent that has none.

use std::{thread, time::Duration};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};

use crate::{
    agent::Agent,
    events::{Event, Events},
    figures::Pairs,
    http::Client,
    messages::{Start, Wire, unary},
    procfs::{print_state, pss_kib, resident_kib, threads},
    spawn,
};

const COUNTS: [u32; 2] = [200, 2000];
const ROUNDS: usize = 200;
/// Threads that wait for work leave after a second, and their stacks with them.
const SETTLE: Duration = Duration::from_millis(1500);
/// Descriptors that the agent may need for a process and its stream, and some for all else.
const DESCRIPTORS: u64 = 5;
const OTHER_DESCRIPTORS: u64 = 200;

/// Measures and prints.
pub(crate) fn run() {
    let limit = raise_limit();
    // Whatever they share counts half for each, before and after.
    let (agent, other) = (Agent::start(), Agent::start());
    let request = Start::command("/bin/true", &[]).request(Wire::Json);
    let (mut client, mut unloaded) = (Client::connect(agent.port), Client::connect(other.port));
    for _ in 0..ROUNDS {
        spawn::time(&mut client, &request);
        spawn::time(&mut unloaded, &request);
    }
    thread::sleep(SETTLE);
    let (pss, resident) = (pss_kib(agent.pid()), resident_kib(agent.pid()).0);
    let mut streams = Vec::new();
    for count in COUNTS {
        let wanted = u64::from(count) * DESCRIPTORS + OTHER_DESCRIPTORS;
        if limit < wanted {
            println!("NOT RUN: {count} idle streams: needs {wanted} descriptors, ulimit -Hn is {limit}");
            continue;
        }
        let more = usize::try_from(count).unwrap() - streams.len();
        streams.extend((0..more).map(|_| Stream::start(&agent)));
        thread::sleep(SETTLE);
        let each =
            |now: u64, before: u64| f64::from(u32::try_from(now.saturating_sub(before)).unwrap()) / f64::from(count);
        println!(
            "{:46} {:7.1} KiB   PSS for each; resident set {:.1} KiB; {} threads in all",
            format!("idle streams: {count}"),
            each(pss_kib(agent.pid()), pss),
            each(resident_kib(agent.pid()).0, resident),
            threads(agent.pid()),
        );
        let mut pairs = Pairs::default();
        for _ in 0..ROUNDS {
            let ours = spawn::time(&mut client, &request).1;
            pairs.push(ours, spawn::time(&mut unloaded, &request).1);
        }
        pairs.print_times_and_tail("    /bin/true meanwhile, to the end", "agent without streams");
    }
    for stream in &mut streams {
        stream.kill(&mut client);
    }
    for stream in streams {
        stream.finish();
    }
    thread::sleep(SETTLE);
    print_state(agent.pid());
}

/// Lifts the limit of descriptors, which the agent inherits, as far as it goes (getrlimit(2)). Returns it.
fn raise_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    limit.current.unwrap_or(u64::MAX)
}

/// A process that sleeps and the stream that waits for it. The process is killed on drop, if it was not before.
struct Stream {
    client: Client,
    events: Events,
    pid: Option<u32>,
}

impl Stream {
    fn start(agent: &Agent) -> Self {
        let mut client = Client::connect(agent.port);
        client.send(&Start::command("sleep", &["600"]).request(Wire::Json));
        client.read_head();
        let mut events = Events::counting(Wire::Json);
        let Event::Start(pid) = events.next(&mut client) else { panic!("no start event") };
        Self { client, events, pid: Some(pid) }
    }

    fn kill(&mut self, by: &mut Client) {
        let pid = self.pid.unwrap();
        by.send(&unary("SendSignal", &format!(r#"{{"process":{{"pid":{pid}}},"signal":"SIGNAL_SIGKILL"}}"#)));
        by.read_response();
        self.pid = None;
    }

    fn finish(mut self) {
        assert_eq!(self.events.read_to_end(&mut self.client, |_| {}), ("signal: killed".to_owned(), 0));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
