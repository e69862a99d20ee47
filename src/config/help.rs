//! The `--help` page.

use super::{AGENT_PORT, CODE_PORT, INTERFACE_VERSION};

/// The whole page, one screen high.
pub(super) fn page() -> String {
    let own = env!("CARGO_PKG_VERSION");
    format!(
        "\
envd {own}: the agent inside a sandbox. Runs commands, terminals and code cells,
moves and watches files, for the unmodified E2B SDKs (interface {INTERFACE_VERSION}).

Usage: envd [serve] [OPTIONS]

Examples:
  envd                                      serve every interface, ports {AGENT_PORT} and {CODE_PORT}
  envd --listen tcp://127.0.0.1:{AGENT_PORT} --code-listen tcp://127.0.0.1:{CODE_PORT}
                                            the same, on loopback only
  envd --listen unix:/run/envd.sock --listen vsock://:{AGENT_PORT}
                                            behind a socket file and a microVM's vsock

Where to listen (repeat an option for several addresses):
  --listen URL         commands, terminals, files    [tcp://[::]:{AGENT_PORT}]
  --code-listen URL    code cells                    [tcp://[::]:{CODE_PORT}]
                       URL is tcp://IP:PORT, unix:/path or vsock://CID:PORT. Port 0 picks a
                       free TCP port, vsock://:PORT accepts every CID, and [::] means IPv6
                       and IPv4. The log tells the addresses that were bound.

Whom to serve:
  --user NAME          the user where a request names none     [root, or who started envd]
  --workdir DIR        the directory where a request names none      [the user's home]
  --env NAME=VALUE     a variable for every command and code cell (repeatable)
  --kernel-path DIR    a directory with Jupyter kernelspecs (repeatable, first match wins)
                       [/usr/local/share/jupyter/kernels, /usr/share/jupyter/kernels]

What to log, on standard error:
  --log SPEC           off, error, warn, info, debug or trace; plus module=level for single
                       modules; plus json for JSON lines: --log info,envd::code=debug,json
  -verbose             the same as --log debug

What platforms pass:
  -port NUMBER         the same as --listen tcp://[::]:NUMBER
  -isnotfc             not in a Firecracker microVM: E2B_SANDBOX=false, the clock is left alone
  -no-cgroups          no control groups for processes, also where a request asks for one
  -cgroup-root DIR     where cgroup2 is mounted; groups are made when asked for [/sys/fs/cgroup]

About:
  --help               this page
  -version             the interface version, {INTERFACE_VERSION}; with -verbose also envd's own
  -commit              the commit that this binary was built from

Options take one dash or two, and a value after a space or after '='.
Started without root, envd serves only the user who started it.
SIGTERM ends open streams cleanly and leaves the commands running.
Exit status: 0 after SIGTERM or SIGINT, 64 for a wrong command line, 1 for any other failure.
"
    )
}
