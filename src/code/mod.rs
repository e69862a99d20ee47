//! Code cells: the HTTP face of `kernel-bridge`.
