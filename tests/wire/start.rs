//! What Start refuses, and what a command gets.

use serde_json::{Value, json};

use crate::agent::{Agent, START, sh};

fn run(cmd: &str, cwd: &str) -> Value {
    json!({ "process": { "cmd": cmd, "cwd": cwd }, "stdin": false })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_entered_is_an_invalid_argument() {
    let agent = Agent::start().await;
    let file = agent.file("file", "");
    let missing = agent.path("missing");
    for (cwd, told) in [
        (missing.clone(), format!("cwd '{missing}' does not exist")),
        (format!("{missing}/../x"), format!("cwd '{missing}/../x' does not exist")),
    ] {
        let stream = agent.stream(START, &[], run("true", &cwd)).await;
        stream.assert_spawn_failure("invalid_argument", &told, "chdir", "ENOENT").await;
    }
    for (cwd, start) in [
        (file.clone(), "error starting process 'true': "),
        (format!("{file}/x"), "error starting process 'true': "),
        ("~nobody".to_owned(), "failed to expand path '~nobody' for user "),
        ("a\0b".to_owned(), "path contains a NUL byte"),
    ] {
        let error = agent.stream(START, &[], run("true", &cwd)).await.all().await.close["error"].take();
        assert_eq!(error["code"], "invalid_argument", "{cwd:?}");
        assert!(error["message"].as_str().unwrap().starts_with(start), "{error}");
    }
    let request = json!({ "process": { "cmd": "true", "args": ["a", "b c"], "cwd": file }, "pty": {"size": {"cols": 1, "rows": 2}} });
    let error = agent.stream(START, &[], request).await.all().await.close["error"].take();
    let told = format!("error starting pty with command 'true a b c' in dir '{file}' with '1' cols and '2' rows: ");
    assert!(error["message"].as_str().unwrap().starts_with(&told), "{error}");
    assert_eq!(agent.process("List", json!({})).await.text(), "{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_no_program_can_get_are_invalid() {
    let agent = Agent::start().await;
    for config in [
        json!({ "cmd": "true", "envs": { "A": "a\0b" } }),
        json!({ "cmd": "true", "envs": { "A\0": "" } }),
        json!({ "cmd": "true", "args": ["a\0b"] }),
        json!({ "cmd": "tr\0ue" }),
        json!({ "cmd": "/bin/true", "args": ["x".repeat(1 << 20)] }),
    ] {
        let request = json!({ "process": config });
        let told = agent.stream(START, &[], request).await.all().await;
        assert_eq!((told.pid, &told.close["error"]["code"]), (0, &json!("invalid_argument")), "{}", told.close);
    }
    agent.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_request_is_a_command_without_a_name() {
    let agent = Agent::start().await;
    for request in [json!({}), json!({ "process": {} }), json!({ "process": null, "tag": null, "pty": null })] {
        let told = agent.stream(START, &[], request).await.all().await;
        assert_eq!((told.end["exitCode"].as_i64(), told.close), (Some(127), json!({})));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_comes_in_layers() {
    let agent = Agent::start().await;
    let init = json!({ "envVars": { "GLOBAL": "g", "BOTH": "init", "E2B_SANDBOX": "faked" } });
    assert_eq!(agent.send("POST", "/init", &[], init.to_string()).await.status, 204);
    let mut request = json!({ "process": { "cmd": "/usr/bin/env", "envs": { "OWN": "1", "BOTH": "own" } } });
    let told = agent.stream(START, &[], &request).await.all().await.stdout();
    for line in ["GLOBAL=g", "BOTH=own", "OWN=1", "E2B_SANDBOX=false"] {
        assert!(told.lines().any(|shown| shown == line), "{line} in {told}");
    }
    let names: Vec<_> = told.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    for name in &names {
        let known = ["PATH", "HOME", "USER", "LOGNAME", "PWD", "GLOBAL", "BOTH", "OWN", "E2B_SANDBOX"];
        assert!(known.contains(name), "{name} leaked into the command");
    }
    request["process"]["envs"] = json!({ "HOME": "/x", "USER": "u", "E2B_SANDBOX": "mine", "EMPTY": "" });
    let told = agent.stream(START, &[], &request).await.all().await.stdout();
    for line in ["HOME=/x", "USER=u", "E2B_SANDBOX=mine", "EMPTY="] {
        assert!(told.lines().any(|shown| shown == line), "{line} in {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_directory_is_the_default_one_and_a_relative_one_is_below_home() {
    let agent = Agent::start().await;
    let pwd = async |cwd: Value| {
        let request = json!({ "process": { "cmd": "/bin/pwd", "cwd": cwd } });
        agent.stream(START, &[], request).await.all().await.stdout().trim().to_owned()
    };
    let work = agent.work().canonicalize().unwrap();
    assert_eq!(pwd(json!(null)).await, work.to_str().unwrap());
    assert_eq!(pwd(json!("")).await, work.to_str().unwrap());
    let home = agent.stream(START, &[], sh("cd && /bin/pwd")).await.all().await.stdout().trim().to_owned();
    for cwd in ["~", ".", "~/", "./.", "x/.."] {
        assert_eq!(pwd(json!(cwd)).await, home, "{cwd}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_arrives_as_the_bytes_it_is() {
    let agent = Agent::start().await;
    let script = r"head -c 8191 /dev/zero | tr '\0' a; printf '\377'; printf err >&2; printf '\0\n'";
    let told = agent.sh(script).await.all().await;
    let expected = [vec![b'a'; 8191], b"\xff\0\n".to_vec()].concat();
    assert_eq!((told.stdout, told.stderr), (expected, b"err".to_vec()));
}
