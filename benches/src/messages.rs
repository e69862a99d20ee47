//! Requests of the process service, as JSON and as protobuf, written by hand.

use std::io::Write;

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// The Connect protocol with JSON.
    Json,
    /// The Connect protocol with protobuf.
    Proto,
    /// gRPC, which knows protobuf only.
    Grpc,
}

impl Wire {
    /// Its name in the output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "Connect JSON",
            Self::Proto => "Connect binary",
            Self::Grpc => "gRPC",
        }
    }
}

/// What is asked of `Start`.
#[derive(Clone, Copy)]
pub(crate) struct Start<'a> {
    /// Name or path of the program.
    pub(crate) program: &'a str,
    /// Its arguments; nothing that JSON would have to escape.
    pub(crate) arguments: &'a [&'a str],
    /// Variables of its environment; nothing that JSON would have to escape.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// Whether its standard input is a pipe.
    pub(crate) stdin: bool,
    /// Whether it gets a terminal.
    pub(crate) terminal: bool,
}

impl<'a> Start<'a> {
    /// A command without input.
    pub(crate) fn command(program: &'a str, arguments: &'a [&'a str]) -> Self {
        Self { program, arguments, environment: &[], stdin: false, terminal: false }
    }

    /// The message, without an envelope.
    pub(crate) fn message(&self, wire: Wire) -> Vec<u8> {
        if wire == Wire::Json {
            let arguments: Vec<_> = self.arguments.iter().map(|argument| format!("\"{argument}\"")).collect();
            let variables: Vec<_> =
                self.environment.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
            let terminal = if self.terminal { r#","pty":{"size":{"cols":80,"rows":24}}"# } else { "" };
            return format!(
                r#"{{"process":{{"cmd":"{}","args":[{}],"envs":{{{}}}}}{terminal},"stdin":{}}}"#,
                self.program,
                arguments.join(","),
                variables.join(","),
                self.stdin
            )
            .into_bytes();
        }
        let mut process = field(1, self.program.as_bytes());
        self.arguments.iter().for_each(|argument| process.extend(field(2, argument.as_bytes())));
        for (name, value) in self.environment {
            process.extend(field(3, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat()));
        }
        let mut message = field(1, &process);
        if self.terminal {
            message.extend(field(2, &field(1, &[8, 80, 16, 24])));
        }
        // Field 4, a varint.
        message.extend([0x20, u8::from(self.stdin)]);
        message
    }

    /// The whole HTTP/1.1 request.
    pub(crate) fn request(&self, wire: Wire) -> Vec<u8> {
        let content_type = if wire == Wire::Json { "connect+json" } else { "connect+proto" };
        http_request("Start", content_type, &envelope(&self.message(wire)))
    }
}

/// A call of a unary method with JSON.
pub(crate) fn unary(method: &str, message: &str) -> Vec<u8> {
    http_request(method, "json", message.as_bytes())
}

/// A call of a unary method with protobuf.
pub(crate) fn unary_proto(method: &str, message: &[u8]) -> Vec<u8> {
    http_request(method, "proto", message)
}

/// Flags and length in front of a message, the same for Connect streams and gRPC.
pub(crate) fn envelope(message: &[u8]) -> Vec<u8> {
    let mut envelope = vec![0];
    envelope.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    envelope.extend(message);
    envelope
}

/// A length-delimited field of protobuf.
pub(crate) fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint(content.len(), &mut field);
    field.extend(content);
    field
}

/// Appends an integer as protobuf writes it.
pub(crate) fn varint(mut value: usize, to: &mut Vec<u8>) {
    while value > 0x7f {
        to.push(0x80 | (value & 0x7f).to_le_bytes()[0]);
        value >>= 7;
    }
    to.push(value.to_le_bytes()[0]);
}

fn http_request(method: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut request = Vec::with_capacity(body.len() + 256);
    write!(
        request,
        "POST /process.Process/{method} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/{content_type}\r\n\
         Connect-Protocol-Version: 1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    request.extend(body);
    request
}
