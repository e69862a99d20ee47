//! The command line as one checked struct.
