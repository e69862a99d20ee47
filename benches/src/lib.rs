//! What the benches and the programs that they start agree on.
//!
//! The programs are `floor` (start-up), `pump` (a bare copy between a pipe and a socket) and `child` (what the agent
//! and the floors run). `benches` measures.

pub mod sum;
pub mod text;
