//! Resource limits (getrlimit(2)).

use std::ffi::c_int;

/// A limit for a new process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceLimit {
    /// Of what.
    pub resource: Resource,
    /// Where the kernel stops the process.
    pub soft: u64,
    /// How far the process may raise that itself.
    pub hard: u64,
}

impl ResourceLimit {
    /// No limit (`RLIM_INFINITY`).
    pub const UNLIMITED: u64 = u64::MAX;
}

/// Something that a process can have only so much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource(u8);

impl Resource {
    /// All names, without `RLIMIT_` and in lower case, by the kernel's numbers, which are the same on all architectures
    /// that we build for (`asm-generic/resource.h`).
    pub const NAMES: [&str; 16] = [
        "cpu",
        "fsize",
        "data",
        "stack",
        "core",
        "rss",
        "nproc",
        "nofile",
        "memlock",
        "as",
        "locks",
        "sigpending",
        "msgqueue",
        "nice",
        "rtprio",
        "rttime",
    ];

    /// The resource with this name.
    pub fn named(name: &str) -> Option<Self> {
        let numbers = 0_u8..;
        numbers.zip(Self::NAMES).find(|(_, known)| *known == name).map(|(number, _)| Self(number))
    }

    pub(super) fn number(self) -> c_int {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_possible_wrap,
        reason = "the constants' type differs between C libraries"
    )]
    fn names_have_the_numbers_of_the_system() {
        let numbers = [
            ("cpu", libc::RLIMIT_CPU as c_int),
            ("fsize", libc::RLIMIT_FSIZE as c_int),
            ("data", libc::RLIMIT_DATA as c_int),
            ("stack", libc::RLIMIT_STACK as c_int),
            ("core", libc::RLIMIT_CORE as c_int),
            ("rss", libc::RLIMIT_RSS as c_int),
            ("nproc", libc::RLIMIT_NPROC as c_int),
            ("nofile", libc::RLIMIT_NOFILE as c_int),
            ("memlock", libc::RLIMIT_MEMLOCK as c_int),
            ("as", libc::RLIMIT_AS as c_int),
            ("locks", libc::RLIMIT_LOCKS as c_int),
            ("sigpending", libc::RLIMIT_SIGPENDING as c_int),
            ("msgqueue", libc::RLIMIT_MSGQUEUE as c_int),
            ("nice", libc::RLIMIT_NICE as c_int),
            ("rtprio", libc::RLIMIT_RTPRIO as c_int),
            ("rttime", libc::RLIMIT_RTTIME as c_int),
        ];
        for (name, number) in numbers {
            assert_eq!(Resource::named(name).map(Resource::number), Some(number), "{name}");
        }
        assert_eq!(Resource::named("NOFILE"), None);
    }
}
