//! Commands and terminals.
