#![allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]

use super::*;

fn gate(token: &str) -> Gate {
    let gate = Gate::default();
    gate.set(Some(Token::new(token.to_owned())));
    gate
}

fn with_token(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(TOKEN_HEADER), token.parse().unwrap())])
}

fn access<'a>(operation: Operation, path: &'a str, user: &'a str) -> FileAccess<'a> {
    FileAccess { operation, path, user, signature: None, expiration: None }
}

#[test]
fn signatures_are_those_of_the_sdks() {
    use Operation::{Read, Write};
    let expiring = |access: FileAccess<'static>, at| FileAccess { expiration: Some(at), ..access };
    for (token, access, signature) in [
        ("tok", access(Read, "/home/user/a.txt", ""), "v1_Zkbb3914oLJLvMBzCAHQhm2ydBLxbSx2eQUR/kLdvIY"),
        ("tok", access(Read, "/home/user/a.txt", "user"), "v1_p0WqJQYCLtO6YX+e4h7VbpybRsdJbMbIw7clYpulIJk"),
        (
            "tok",
            expiring(access(Write, "/home/user/a.txt", "user"), 1_700_000_000),
            "v1_x09R0+VxB2mRzkxWcRyFCpiJmFv0okUrtgQ6q12G0jM",
        ),
        ("tok", access(Write, "", ""), "v1_XfYYOx0ojDc6kqfLnaJuiYLWXCK2SaWCthv8+gv5kbo"),
        (
            "0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0",
            access(Read, "hello.txt", "user"),
            "v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E",
        ),
    ] {
        assert_eq!(Token::new(token.to_owned()).signature(&access), signature);
        let signed = FileAccess { signature: Some(signature), ..access };
        assert_eq!(gate(token).admit_file(&signed, &HeaderMap::new(), 0), Ok(()));
    }
}

#[test]
fn without_a_token_everything_is_open() {
    let gate = Gate::default();
    assert_eq!(gate.admit(&Method::POST, "/process.Process/List", &HeaderMap::new()), Ok(()));
    let wrong = FileAccess { signature: Some("v1_x"), expiration: Some(1), ..access(Operation::Read, "a", "") };
    assert_eq!(gate.admit_file(&wrong, &with_token("x"), 9), Ok(()));
}

#[test]
fn only_the_exact_exemptions_pass_without_the_token() {
    let gate = gate("tok");
    let none = HeaderMap::new();
    for (method, path) in
        [(Method::GET, "/health"), (Method::GET, "/files"), (Method::POST, "/files"), (Method::POST, "/init")]
    {
        assert_eq!(gate.admit(&method, path, &none), Ok(()), "{method} {path}");
    }
    for (method, path) in [
        (Method::HEAD, "/health"),
        (Method::GET, "/health/"),
        (Method::GET, "/Health"),
        (Method::GET, "/%68ealth"),
        (Method::GET, "//health"),
        (Method::PUT, "/files"),
        (Method::POST, "/files/compose"),
        (Method::GET, "/init"),
        (Method::OPTIONS, "/health"),
        (Method::POST, "/process.Process/List"),
        (Method::GET, ""),
    ] {
        assert_eq!(gate.admit(&method, path, &none), Err(AccessError::Unauthorized), "{method} {path}");
        assert_eq!(gate.admit(&method, path, &with_token("tok")), Ok(()), "{method} {path}");
    }
}

#[test]
fn only_the_whole_token_matches() {
    let gate = gate("tok");
    for wrong in ["", "to", "tok ", "tokk", "Tok"] {
        let outcome = gate.admit(&Method::GET, "/envs", &with_token(wrong));
        assert_eq!(outcome, Err(AccessError::Unauthorized), "{wrong:?}");
    }
}

#[test]
fn the_header_wins_over_the_signature_in_both_directions() {
    let gate = gate("tok");
    let signature = Token::new("tok".to_owned()).signature(&access(Operation::Read, "a", ""));
    let genuine = FileAccess { signature: Some(&signature), ..access(Operation::Read, "a", "") };
    let wrong = FileAccess { signature: Some("v1_x"), ..genuine };
    assert_eq!(gate.admit_file(&genuine, &with_token("other"), 0), Err(AccessError::WrongToken));
    assert_eq!(gate.admit_file(&wrong, &with_token("tok"), 0), Ok(()));
    assert_eq!(gate.admit_file(&genuine, &with_token(""), 0), Ok(()));
}

#[test]
fn a_signature_is_checked_before_its_expiry() {
    let gate = gate("tok");
    let at = |expiration| FileAccess { expiration: Some(expiration), ..access(Operation::Read, "a", "user") };
    let signature = Token::new("tok".to_owned()).signature(&at(100));
    let signed = FileAccess { signature: Some(&signature), ..at(100) };
    let none = HeaderMap::new();
    assert_eq!(gate.admit_file(&signed, &none, 100), Ok(()));
    assert_eq!(gate.admit_file(&signed, &none, 101), Err(AccessError::ExpiredSignature));
    let moved = FileAccess { expiration: Some(200), ..signed };
    assert_eq!(gate.admit_file(&moved, &none, 300), Err(AccessError::InvalidSignature));
    let unlimited = FileAccess { expiration: None, ..signed };
    assert_eq!(gate.admit_file(&unlimited, &none, 0), Err(AccessError::InvalidSignature));
    let unsigned = FileAccess { signature: None, ..signed };
    assert_eq!(gate.admit_file(&unsigned, &none, 0), Err(AccessError::MissingSignature));
}

#[test]
fn a_signature_covers_operation_user_and_its_own_spelling() {
    let gate = gate("tok");
    let read = access(Operation::Read, "a", "");
    let signature = Token::new("tok".to_owned()).signature(&read);
    let padded = format!("{signature}=");
    for wrong in [
        FileAccess { operation: Operation::Write, signature: Some(&signature), ..read },
        FileAccess { user: "root", signature: Some(&signature), ..read },
        FileAccess { path: "b", signature: Some(&signature), ..read },
        FileAccess { signature: Some(&padded), ..read },
        FileAccess { signature: Some(""), ..read },
    ] {
        assert_eq!(gate.admit_file(&wrong, &HeaderMap::new(), 0), Err(AccessError::InvalidSignature), "{wrong:?}");
    }
}

#[test]
fn a_token_is_changed_only_by_who_may() {
    let open = Gate::default();
    assert_eq!(open.admit_reset(None), Ok(()));
    assert_eq!(open.admit_reset(Some("new")), Ok(()));
    let gate = gate("tok");
    assert_eq!(gate.admit_reset(Some("tok")), Ok(()));
    assert_eq!(gate.admit_reset(Some("other")), Err(ResetError::WrongToken));
    assert_eq!(gate.admit_reset(None), Err(ResetError::NotAuthorized));
}
