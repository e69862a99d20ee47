#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]

use super::*;

fn command(arguments: &[&str]) -> Result<Command, UsageError> {
    parse(arguments.iter().map(OsString::from))
}

fn config(arguments: &[&str]) -> Config {
    match command(arguments).unwrap() {
        Command::Serve(config) => *config,
        Command::Print(text) => panic!("printed {text}"),
    }
}

fn printed(arguments: &[&str]) -> String {
    match command(arguments).unwrap() {
        Command::Print(text) => text,
        Command::Serve(_) => panic!("served"),
    }
}

fn urls(addresses: &[Address]) -> Vec<String> {
    addresses.iter().map(Address::to_string).collect()
}

#[test]
fn nothing_given_means_the_default_ports() {
    for arguments in [&[][..], &["serve"]] {
        let config = config(arguments);
        assert_eq!(urls(&config.agent_addresses), ["tcp://[::]:49983"]);
        assert_eq!(urls(&config.code_addresses), ["tcp://[::]:49999"]);
        assert_eq!(config.kernel_dirs, KERNEL_DIRS.map(PathBuf::from));
        assert!(config.user.is_none() && config.workdir.is_none() && !config.is_not_fc);
    }
}

#[test]
fn one_or_two_dashes_and_both_ways_to_give_a_value() {
    for arguments in [["-port", "7", ""], ["--port", "7", ""], ["-port=7", "", ""], ["--port=7", "", ""]] {
        let arguments: Vec<&str> = arguments.into_iter().filter(|text| !text.is_empty()).collect();
        assert_eq!(urls(&config(&arguments).agent_addresses), ["tcp://[::]:7"], "{arguments:?}");
    }
}

#[test]
fn repeated_options_add_up_and_replace_the_default() {
    let config = config(&[
        "serve",
        "--listen",
        "unix:/run/a.sock",
        "--listen=vsock://:49983",
        "--code-listen",
        "tcp://127.0.0.1:0",
        "--kernel-path",
        "/a",
        "--kernel-path=/b",
        "--env",
        "A=1",
        "--env=B=x=y",
        "--env",
        "A=2",
        "--env=EMPTY=",
    ]);
    assert_eq!(urls(&config.agent_addresses), ["unix:/run/a.sock", "vsock://:49983"]);
    assert_eq!(urls(&config.code_addresses), ["tcp://127.0.0.1:0"]);
    assert_eq!(config.kernel_dirs, ["/a", "/b"].map(PathBuf::from));
    let expected = [("A", "2"), ("B", "x=y"), ("EMPTY", "")].map(|(name, value)| (name.into(), value.into()));
    assert_eq!(config.environment, expected.into());
}

#[test]
fn the_platforms_command_line_is_accepted() {
    let config = config(&["-port", "49983", "-isnotfc", "-no-cgroups", "-cgroup-root", "/x", "-verbose=false"]);
    assert!(config.is_not_fc);
    assert_eq!(config.cgroup_root, None);
    assert_eq!(self::config(&["-cgroup-root", "/x"]).cgroup_root.as_deref(), Some("/x".as_ref()));
    assert_eq!(self::config(&["-no-cgroups=false"]).cgroup_root.as_deref(), Some("/sys/fs/cgroup".as_ref()));
    assert!(!self::config(&["-isnotfc=false"]).is_not_fc);
}

#[test]
fn a_value_may_look_like_a_flag() {
    assert_eq!(config(&["--workdir", "-odd"]).workdir.as_deref(), Some("-odd"));
}

#[test]
fn the_version_is_the_interface_version_and_nothing_else() {
    assert_eq!(printed(&["-version"]), "0.6.13\n");
    assert_eq!(printed(&["--version"]), "0.6.13\n");
    let verbose = printed(&["--version", "--verbose"]);
    assert!(verbose.starts_with("0.6.13\n") && verbose.contains(env!("CARGO_PKG_VERSION")), "{verbose}");
    assert!(printed(&["-commit"]).ends_with('\n'));
}

#[test]
fn the_help_page_names_every_option_and_fits_a_terminal() {
    let page = printed(&["--help"]);
    for option in [
        "--listen",
        "--code-listen",
        "--user",
        "--workdir",
        "--env",
        "--kernel-path",
        "--log",
        "-port",
        "-isnotfc",
        "-no-cgroups",
        "-cgroup-root",
        "-verbose",
        "-version",
        "-commit",
        "--help",
    ] {
        assert!(page.contains(option), "{option}");
    }
    for line in page.lines() {
        assert!(line.chars().count() <= 96, "{line}");
    }
    assert_eq!(page, printed(&["-h"]));
}

#[test]
fn a_wrong_argument_gets_one_line_that_says_what_to_do() {
    for (arguments, named) in [
        (&["--bogus"][..], "'--bogus'"),
        (&["--bogus=secret"], "'--bogus'"),
        (&["run"], "'run'"),
        (&["serve", "serve"], "'serve'"),
        (&["-"], "'-'"),
        (&["--"], "'--'"),
        (&["--user"], "--user NAME"),
        (&["--user="], "--user NAME"),
        (&["--port", "x"], "'x'"),
        (&["--port", "65536"], "'65536'"),
        (&["--listen", "localhost"], "tcp://IP:PORT"),
        (&["--code-listen", "tcp://localhost:1"], "IP address"),
        (&["--env", "A"], "NAME=VALUE"),
        (&["--env", "=secret"], "NAME=VALUE"),
        (&["--log", "loud"], "'loud'"),
        (&["-isnotfc=maybe"], "'maybe'"),
    ] {
        let message = command(arguments).unwrap_err().to_string();
        assert!(message.contains(named), "{arguments:?}: {message}");
        assert!(!message.contains('\n') && !message.contains("secret"), "{message}");
    }
}

#[test]
fn verbose_logs_debug_unless_a_level_is_given() {
    use tracing::Level;
    assert!(config(&["-verbose"]).logging.filter.would_enable("envd", &Level::DEBUG));
    assert!(!config(&["-verbose", "--log", "info"]).logging.filter.would_enable("envd", &Level::DEBUG));
    let json = config(&["--log", "json", "-verbose"]).logging;
    assert!(json.filter.would_enable("envd", &Level::DEBUG));
    assert_eq!(json.format, Format::Json);
}
