use std::{fs, os::unix::fs::PermissionsExt};

use crate::fixture::Fixture;

#[tokio::test]
async fn sources_become_one_file_and_are_gone() {
    let fixture = Fixture::new();
    fixture.file("a", "1");
    fixture.file("b", "2");
    let answer = fixture.compose(r#"{"source_paths":["a","~/b","a"],"destination":"new/c"}"#).await;
    let path = fixture.path("new/c");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), format!("{{\"name\":\"c\",\"path\":\"{}\",\"type\":\"file\"}}\n", path.display()));
    assert_eq!(fs::read_to_string(path).unwrap(), "121");
    assert_eq!(fixture.names(), ["new"]);
}

#[tokio::test]
async fn an_existing_destination_keeps_its_mode_and_its_link() {
    let fixture = Fixture::new();
    let real = fixture.file("real", "old");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o751)).unwrap();
    std::os::unix::fs::symlink(&real, fixture.path("link")).unwrap();
    fixture.file("a", "new");
    let answer = fixture.compose(r#"{"source_paths":["a"],"destination":"link","username":"tester"}"#).await;
    assert_eq!(answer.json()["path"], fixture.path("link").to_str().unwrap());
    assert_eq!(fs::read_to_string(&real).unwrap(), "new");
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o7777, 0o751);
    assert_eq!(fixture.names(), ["link", "real"]);
}

#[tokio::test]
async fn failures_come_in_their_order_and_leave_everything() {
    let fixture = Fixture::new();
    fixture.file("a", "1");
    let destination = fixture.file("dest", "old");
    fs::hard_link(&destination, fixture.path("alias")).unwrap();
    fs::create_dir(fixture.path("dir")).unwrap();
    for (body, status, message) in [
        (r#"{"destination":""}"#, 400, "source_paths must not be empty"),
        (r#"{"source_paths":["a"]}"#, 400, "destination is required"),
        (
            r#"{"source_paths":["a"],"destination":"d","username":"ghost"}"#,
            401,
            "error looking up user 'ghost': user: unknown user ghost",
        ),
        (
            r#"{"source_paths":["./dest"],"destination":"dest"}"#,
            400,
            "source path \"./dest\" cannot be the same as destination",
        ),
        (
            r#"{"source_paths":["alias"],"destination":"dest"}"#,
            400,
            "source path \"alias\" cannot be the same as destination",
        ),
        (r#"{"source_paths":["a","none"],"destination":"dest"}"#, 404, "source file not found: none"),
        (r#"{"source_paths":["a","dir"],"destination":"dest"}"#, 400, "source path is not a regular file: dir"),
        (r#"{"source_paths":["a"],"destination":"dir"}"#, 500, "error finalizing compose: is a directory"),
    ] {
        fixture.compose(body).await.fails(status, message);
    }
    let odd = fixture.compose("{").await;
    assert_eq!(odd.status, 400);
    assert!(odd.json()["message"].as_str().unwrap().starts_with("invalid request body: "));
    for (raw, prefix) in [
        (r#"{"source_paths":["a"],"destination":"~x"}"#, "error resolving destination path: "),
        (r#"{"source_paths":["~x"],"destination":"d"}"#, "error resolving source path \"~x\": "),
    ] {
        let answer = fixture.compose(raw).await;
        assert_eq!(answer.status, 400);
        assert!(answer.json()["message"].as_str().unwrap().starts_with(prefix), "{}", answer.text());
    }
    assert_eq!(fs::read_to_string(destination).unwrap(), "old");
    assert_eq!(fixture.names(), ["a", "alias", "dest", "dir"]);
}
