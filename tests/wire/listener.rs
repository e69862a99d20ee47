//! Listeners, HTTP and the route table: before anybody asks who is calling.

use tokio::net::{TcpStream, UnixStream};

use crate::{
    agent::{Agent, CONNECT, FILESYSTEM_UNARY, PROCESS_UNARY, START},
    http1::Exchange,
};

#[tokio::test(flavor = "multi_thread")]
async fn tcp_and_socket_file_lead_to_the_same_agent() {
    let agent = Agent::start().await;
    let mut unix = Exchange::new(UnixStream::connect(&agent.unix).await.unwrap());
    assert_eq!(unix.send("POST", "/init", &[], br#"{"envVars":{"A":"1"}}"#).await.status, 204);
    assert_eq!(agent.get("/envs").await.json()["A"], "1");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_one_request_after_the_other() {
    let agent = Agent::start().await;
    let mut connection = agent.connect().await;
    for _ in 0..3 {
        assert_eq!(connection.send("GET", "/health", &[], b"").await.status, 204);
        assert_eq!(connection.send("GET", "/nope", &[], b"").await.status, 404);
        let reply = connection
            .send("POST", "/process.Process/List", &[("content-type", "application/json")], b"not json")
            .await;
        assert_eq!(reply.status, 400);
    }
    // Sent at once, answered in order.
    connection.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET /nope HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(connection.receive("GET").await.status, 204);
    assert_eq!(connection.receive("GET").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_404_in_words() {
    let agent = Agent::start().await;
    for target in [
        "/",
        "/nope",
        "/health/",
        "/Health",
        "//health",
        "/files/",
        "/files/compose/",
        "/process.Process",
        "/process.Process/",
        "/process.Process/Nope",
        "/process.Process/list",
        "/filesystem.Filesystem/Stat/",
        "/process.Process/Stat",
        "/execute",
    ] {
        for method in ["GET", "POST", "PUT", "HEAD"] {
            let reply = agent.send(method, target, &[("content-type", "application/json")], "").await;
            assert_eq!(reply.status, 404, "{method} {target}");
            assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
            if method != "HEAD" {
                assert_eq!(reply.text(), "404 page not found\n");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_method_is_405_with_the_right_ones() {
    let agent = Agent::start().await;
    let rpc = |service: &str, method: &str| format!("/{service}/{method}");
    let mut rows: Vec<(String, Vec<&str>)> = vec![
        ("/health".into(), vec!["GET"]),
        ("/metrics".into(), vec!["GET"]),
        ("/envs".into(), vec!["GET"]),
        ("/init".into(), vec!["POST"]),
        ("/files".into(), vec!["GET", "POST"]),
        ("/files/compose".into(), vec!["POST"]),
        (START.into(), vec!["POST"]),
        (CONNECT.into(), vec!["POST"]),
        ("/process.Process/StreamInput".into(), vec!["POST"]),
        ("/filesystem.Filesystem/WatchDir".into(), vec!["POST"]),
    ];
    rows.extend(PROCESS_UNARY.map(|method| (rpc("process.Process", method), vec!["POST"])));
    rows.extend(FILESYSTEM_UNARY.map(|method| (rpc("filesystem.Filesystem", method), vec!["POST"])));
    for (target, allowed) in rows {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
            if allowed.contains(&method) {
                continue;
            }
            let reply = agent.send(method, &target, &[], "").await;
            assert_eq!((reply.status, reply.body.len()), (405, 0), "{method} {target}");
            assert_eq!(reply.all("allow"), allowed, "{method} {target}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_answered_before_anything_else() {
    let agent = Agent::start().await;
    agent.send("POST", "/init", &[], r#"{"accessToken":"tok"}"#).await;
    let ask = [
        ("origin", "https://page"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "x-access-token, content-type"),
        ("authorization", "Basic bm9ib2R5Og=="),
    ];
    for target in ["/health", "/nope", START, "/files"] {
        let reply = agent.send("OPTIONS", target, &ask, "").await;
        assert_eq!((reply.status, reply.body.len()), (204, 0), "{target}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        assert_eq!(reply.header("access-control-allow-methods"), Some("POST"));
        assert_eq!(reply.header("access-control-allow-headers"), Some("x-access-token, content-type"));
        assert_eq!(reply.header("access-control-max-age"), Some("7200"));
        assert_eq!(reply.header("access-control-allow-credentials"), None);
        assert_eq!(reply.header("vary"), Some("Origin, Access-Control-Request-Method, Access-Control-Request-Headers"));
    }
    let other = [("origin", "https://page"), ("access-control-request-method", "TRACE")];
    let reply = agent.send("OPTIONS", "/health", &other, "").await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, None));
    // Without the question it is a request like any other.
    assert_eq!(agent.send("OPTIONS", "/health", &[("origin", "https://page")], "").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_can_be_read_from_another_origin() {
    let agent = Agent::start().await;
    let path = agent.file("a.txt", "a");
    let json = ("content-type", "application/json");
    for (method, target, status) in [
        ("GET", "/health", 204),
        ("GET", "/nope", 404),
        ("PUT", "/health", 405),
        ("POST", "/process.Process/List", 200),
        ("POST", "/filesystem.Filesystem/GetWatcherEvents", 404),
    ] {
        let reply = agent.send(method, target, &[("origin", "https://page"), json], "{}").await;
        assert_eq!(reply.status, status, "{method} {target}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{target}");
        assert_eq!(
            reply.header("access-control-expose-headers"),
            Some("Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin, Location, Cache-Control, X-Content-Type-Options")
        );
        assert_eq!(reply.header("vary"), Some("Origin"), "{target}");
        let reply = agent.send(method, target, &[json], "{}").await;
        assert_eq!((reply.header("access-control-allow-origin"), reply.header("vary")), (None, Some("Origin")));
    }
    let reply = agent.get(&format!("/files?path={path}")).await;
    assert_eq!(reply.header("vary"), Some("Accept-Encoding"), "a download has its own list");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_http_ends_its_connection_only() {
    let agent = Agent::start().await;
    for address in [agent.agent, agent.code] {
        for (garbage, statuses) in [
            (&b"\r\n\r\n\r\n\r\nGET\r\n\r\n"[..], &["400"][..]),
            (b"GET /health\r\n\r\n", &["400", "505"]),
            (b"GET /health HTTP/9.9\r\nhost: x\r\n\r\n", &["400", "505"]),
            (b"GET /he alth HTTP/1.1\r\nhost: x\r\n\r\n", &["400"]),
            (b"GET /health HTTP/1.1\r\nbad header\r\n\r\n", &["400"]),
            (b"GET /health HTTP/1.1\r\nna\0me: x\r\n\r\n", &["400"]),
            (b"POST /init HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", &["400"]),
            (b"POST /init HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", &["400"]),
            (b"POST /init HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n", &["400"]),
            (b"POST /init HTTP/1.1\r\nhost: x\r\ntransfer-encoding: x\r\n\r\n", &["400", "404"]),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", &[]),
        ] {
            let mut connection = Exchange::new(TcpStream::connect(address).await.unwrap());
            connection.write(garbage).await;
            let answer = String::from_utf8_lossy(&connection.rest().await).into_owned();
            if let Some(status) = answer.strip_prefix("HTTP/1.1 ") {
                assert!(statuses.contains(&&status[..3]), "{answer} to {}", garbage.escape_ascii());
            }
        }
    }
    agent.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_megabyte_of_header_fields_is_a_status_not_a_crash() {
    let agent = Agent::start().await;
    let value = "v".repeat(60_000);
    let reply = agent.send("GET", "/health", &[("x-a", &value)], "").await;
    assert_eq!(reply.status, 204);
    let huge = "v".repeat(2 << 20);
    let mut connection = agent.connect().await;
    let request = format!("GET /health HTTP/1.1\r\nhost: x\r\nx-a: {huge}\r\n\r\n");
    let _ = tokio::io::AsyncWriteExt::write_all(&mut connection.stream, request.as_bytes()).await;
    let answer = String::from_utf8_lossy(&connection.rest().await).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    agent.assert_alive().await;
}
