//! Nonsense, from a fixed seed: whatever comes in, the agent goes on.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    agent::{Agent, FILESYSTEM_UNARY, PROCESS_UNARY},
    http1::request,
    stream::{frame, gzip},
};

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most);
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// Changes, doubles, cuts out or cuts off some bytes.
    fn mutate(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                return bytes;
            }
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes[at] = self.next() as u8,
                1 => bytes[at] ^= 1 << self.below(8),
                2 => drop(bytes.remove(at)),
                3 => bytes.truncate(at),
                _ => bytes.insert(at, *self.pick(b"\0\"{}[],:\r\n \xff\x80-0")),
            }
        }
        bytes
    }
}

/// Sends, says that there is no more, and drinks some of what comes. Neither side has to be polite.
async fn throw(address: SocketAddr, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(address).await else { panic!("the port is closed") };
    let work = async {
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut sink = vec![0; 1 << 16];
        let _ = stream.read(&mut sink).await;
    };
    // A watch or a command may have begun in earnest, and keeps quiet.
    let _ = timeout(Duration::from_millis(200), work).await;
}

const CODE_ROUTES: [&str; 7] = [
    "/health",
    "/execute",
    "/contexts",
    "/contexts/x",
    "/contexts/x/restart",
    "/contexts/%ff%00/restart",
    "/contexts/..",
];

fn agent_routes() -> Vec<String> {
    let mut routes: Vec<String> =
        ["/health", "/metrics", "/envs", "/init", "/files", "/files/compose", "/files?path=%00&username=%ff"]
            .map(str::to_owned)
            .into();
    let process = PROCESS_UNARY.into_iter().chain(["Start", "Connect", "StreamInput"]);
    routes.extend(process.map(|method| format!("/process.Process/{method}")));
    let filesystem = FILESYSTEM_UNARY.into_iter().chain(["WatchDir"]);
    routes.extend(filesystem.map(|method| format!("/filesystem.Filesystem/{method}")));
    routes
}

const TYPES: [&str; 12] = [
    "application/json",
    "application/proto",
    "application/connect+json",
    "application/connect+proto",
    "application/grpc",
    "application/grpc-web",
    "application/grpc-web-text",
    "application/octet-stream",
    "multipart/form-data; boundary=XX",
    "multipart/form-data",
    "text/plain",
    "",
];

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_end_nothing() {
    let agent = Agent::start().await;
    let mut dice = Dice(0x5eed_0001);
    for _ in 0..150 {
        let mut bytes = dice.bytes(2048);
        if dice.below(4) == 0 {
            bytes.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        }
        for address in [agent.agent, agent.code] {
            throw(address, &bytes).await;
        }
    }
    agent.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bodies_get_an_answer_on_every_route() {
    let agent = Agent::start().await;
    let mut dice = Dice(0x5eed_0002);
    for round in 0..8 {
        for (address, routes) in [(agent.agent, agent_routes()), (agent.code, CODE_ROUTES.map(str::to_owned).into())] {
            for route in &routes {
                let body = dice.bytes(300);
                let body = match round % 4 {
                    0 => body,
                    1 => frame(0, body),
                    2 => gzip(&body),
                    _ => frame(1, gzip(&body)),
                };
                let content_type = *dice.pick(&TYPES);
                let encoding = *dice.pick(&["identity", "gzip", "br"]);
                let headers = [
                    ("content-type", content_type),
                    ("content-encoding", encoding),
                    ("connect-content-encoding", encoding),
                    ("connect-timeout-ms", "2000"),
                    ("accept-encoding", *dice.pick(&["gzip", "*;q=0", "identity"])),
                    ("range", *dice.pick(&["bytes=0-", "bytes=--", "x"])),
                    ("connection", "close"),
                ];
                let method = *dice.pick(&["GET", "POST", "POST", "POST", "DELETE", "OPTIONS"]);
                throw(address, &request(method, route, &headers, &body)).await;
            }
        }
    }
    agent.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_requests_end_nothing() {
    let agent = Agent::start().await;
    let mut dice = Dice(0x5eed_0003);
    let work = agent.path("fuzz");
    let json =
        |path: &str, body: String| request("POST", path, &[("content-type", "application/json")], body.as_bytes());
    let stream = |path: &str, body: &str| {
        let headers = [("content-type", "application/connect+json"), ("connect-timeout-ms", "100")];
        request("POST", path, &headers, &frame(0, body))
    };
    let form = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"/dev/null\"\r\n\r\nabc\r\n--XX--\r\n";
    let agent_requests = [
        json("/init", r#"{"timestamp":"2024-01-01T00:00:00Z","envVars":{"A":"b"},"volumeMounts":[]}"#.into()),
        json("/filesystem.Filesystem/Stat", format!(r#"{{"path":"{work}"}}"#)),
        json("/filesystem.Filesystem/ListDir", format!(r#"{{"path":"{work}","depth":2}}"#)),
        json("/filesystem.Filesystem/GetWatcherEvents", r#"{"watcherId":"wabcdefghij0123456789"}"#.into()),
        json("/process.Process/SendInput", r#"{"process":{"pid":4294967295},"input":{"stdin":"aGk="}}"#.into()),
        json("/process.Process/SendSignal", r#"{"process":{"tag":"none"},"signal":"SIGNAL_SIGTERM"}"#.into()),
        stream(
            "/process.Process/Start",
            r#"{"process":{"cmd":"/bin/true","args":["a"],"cwd":"/"},"stdin":false,"tag":"t"}"#,
        ),
        stream("/process.Process/Connect", r#"{"process":{"pid":4294967295}}"#),
        stream("/process.Process/StreamInput", r#"{"start":{"process":{"tag":"none"}}}"#),
        stream("/filesystem.Filesystem/WatchDir", r#"{"path":"/proc/self","recursive":false}"#),
        request("GET", &format!("/files?path={work}&signature_expiration=1"), &[("range", "bytes=0-1,3-4")], b""),
        request(
            "POST",
            &format!("/files?path={work}/f"),
            &[("content-type", "multipart/form-data; boundary=XX")],
            form.as_bytes(),
        ),
        request("POST", "/process.Process/List", &[("content-type", "application/grpc-web")], &frame(0, "")),
    ];
    let code_requests = [
        request(
            "POST",
            "/execute",
            &[("content-type", "application/json")],
            br#"{"code":"1","env_vars":{"A":"b"},"language":"cobol"}"#,
        ),
        request("POST", "/contexts", &[("content-type", "application/json")], br#"{"cwd":"/","language":"cobol"}"#),
        request("DELETE", "/contexts/x", &[], b""),
    ];
    for _ in 0..40 {
        for whole in &agent_requests {
            throw(agent.agent, &dice.mutate(whole.clone())).await;
        }
        for whole in &code_requests {
            throw(agent.code, &dice.mutate(whole.clone())).await;
        }
    }
    agent.assert_alive().await;
}
