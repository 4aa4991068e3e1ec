//! The data plane's outer half: a thread and a socket of its own for each core, and the C functions that Python calls.
//!
//! `sys` has the system calls and `ffi` the functions for Python: the only unsafe code of the data plane is there.
#![deny(unsafe_code)]

mod backlog;
mod counters;
// Its functions are exported to C by name, which Rust does not count as use.
#[allow(unreachable_pub)]
mod ffi;
mod plane;
mod sys;
